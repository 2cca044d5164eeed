"""What other tools make of a pair of files: bytes to send, and what applying them takes, by Debian's programs.

Rules:
- Nothing is kept from run to run but the programs: every figure is of the run that shows it.
- What was applied is compared with what was wanted, else the benchmark fails.
- ostree has no tar: it gets the tree that a tar holds (a model: a tree with that one file), and keeps files one by
  one, without times. Only what changed is sent, and written when it is applied.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from tests.bench.delivery_debian import Package, archive_of, fetch, load_index

_PACKAGES: tuple[str, ...] = ("bsdiff", "xdelta3", "casync", "zstd", "ostree")
_TIMEOUT_S = 1800
_LAUNCHER = Path(__file__).with_name("measured_run.py")
_APPLY = Path(__file__).resolve().parents[1] / "unit" / "delta_memory.py"
# bsdiff holds the old file, two tables of 4 bytes for each of its bytes, and the new file.
_BSDIFF_TIMES = 11
_BSDIFF_LIMIT_BYTES = 12 << 30


class Usage(msgspec.Struct, frozen=True):
    """CPU time (user and kernel) of a process, and the most memory that was resident."""

    cpu_s: float
    peak_rss_bytes: int


class Sent(NamedTuple):
    """The bytes that a tool sends, and what applying them took, where it applies anything."""

    size_bytes: int
    applied: Usage | None = None


class Peers:
    """The other tools, fetched below a folder."""

    def __init__(self, cache: Path) -> None:
        self._tree = cache / "peers"
        self._work = cache / f"work-{os.getpid()}"
        if not (self._tree / "usr/bin/ostree").exists():
            index = load_index(cache, "old")
            for name in _with_dependencies(index):
                archive = fetch(cache, f"{archive_of('old')[0]}{index[name]['Filename']}")
                subprocess.run(["dpkg-deb", "-x", archive, self._tree], check=True, timeout=120)

    def measure(self, tool: Tool, old: Path, new: Path) -> Sent | None:
        """Return what a tool sends to lead from `old` to `new`; `None`: it takes more memory than there is."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        try:
            return _TOOLS[tool](self, old, new)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def apply_ours(self, delta: Path, old: Path, new: Path) -> Usage:
        """Return what applying our delta takes, in a Python of its own, without numpy."""
        self._work.mkdir(parents=True, exist_ok=True)
        try:
            made = self._work / "made"
            usage = self._run(sys.executable, _APPLY, "plain", old, delta, made)
            _compare(made, new)
            return usage
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _run(self, *command: str | Path, limit_bytes: int = 0) -> Usage:
        environment = dict(os.environ)
        if command[0] != sys.executable:
            libraries = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
            environment["LD_LIBRARY_PATH"] = ":".join(str(self._tree / folder) for folder in libraries)
            environment["PATH"] = f"{self._tree / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
        ran = subprocess.run(
            [sys.executable, "-I", "-S", _LAUNCHER, str(limit_bytes), *command],
            check=False,
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=environment,
        )
        if ran.returncode:
            raise RuntimeError(f"{command[0]} failed: {ran.stderr.decode(errors='replace')[-2000:]}")
        return msgspec.json.decode(ran.stdout, type=Usage)

    def _gzip(self, _: Path, new: Path) -> Sent:
        """What a pull moves: the layer, as registries keep it."""
        ran = subprocess.run(
            ["gzip", "-6", "-n", "-c", new], check=True, capture_output=True, timeout=_TIMEOUT_S
        )
        return Sent(len(ran.stdout))

    def _zstd(self, _: Path, new: Path) -> Sent:
        packed = self._work / "packed"
        self._run("zstd", "-q", "-19", new, "-o", packed)
        return Sent(packed.stat().st_size)

    def _zstd_patch(self, old: Path, new: Path) -> Sent:
        patch, made = self._work / "patch", self._work / "made"
        self._run("zstd", "-q", "-19", "--long=31", f"--patch-from={old}", new, "-o", patch)
        applied = self._run("zstd", "-q", "-d", "--long=31", f"--patch-from={old}", patch, "-o", made)
        _compare(made, new)
        return Sent(patch.stat().st_size, applied)

    def _bsdiff(self, old: Path, new: Path) -> Sent | None:
        needed = _BSDIFF_TIMES * max(old.stat().st_size, new.stat().st_size)
        if needed > min(_BSDIFF_LIMIT_BYTES, _free_bytes()):
            return None
        patch, made = self._work / "patch", self._work / "made"
        self._run("bsdiff", old, new, patch, limit_bytes=_BSDIFF_LIMIT_BYTES)
        applied = self._run("bspatch", old, made, patch)
        _compare(made, new)
        return Sent(patch.stat().st_size, applied)

    def _xdelta(self, old: Path, new: Path) -> Sent:
        """With the whole old file in the window, both ways."""
        patch, made = self._work / "patch", self._work / "made"
        window = str(max(old.stat().st_size, 1 << 20))
        self._run("xdelta3", "-e", "-f", "-9", "-B", window, "-s", old, new, patch)
        applied = self._run("xdelta3", "-d", "-f", "-B", window, "-s", old, patch, made)
        _compare(made, new)
        return Sent(patch.stat().st_size, applied)

    def _casync(self, old: Path, new: Path) -> Sent:
        """The chunks and the index that a store lacks for the new file, in the default sizes."""
        store = self._work / "store.castr"
        self._run("casync", "make", f"--store={store}", self._work / "old.caibx", old)
        before = _size_of(store)
        self._run("casync", "make", f"--store={store}", self._work / "new.caibx", new)
        return Sent(_size_of(store) - before + (self._work / "new.caibx").stat().st_size)

    def _ostree(self, old: Path, new: Path) -> Sent:
        """A static delta in one file, superblock and parts, with nothing left to be fetched beside it.

        The receiver's repository holds files unpacked (`bare-user`), as hosts do that check them out by links.
        """
        source, receiver, delta = (self._work / name for name in ("source", "receiver", "delta"))
        self._run("ostree", "init", f"--repo={source}", "--mode=archive")
        for branch, file in (("old", old), ("new", new)):
            if file.suffix == ".tar":
                tree = [f"--tree=tar={file}", "--tar-autocreate-parents"]
            else:
                folder = self._work / f"tree-{branch}"
                folder.mkdir()
                shutil.copyfile(file, folder / "model")
                tree = [f"--tree=dir={folder}", "--owner-uid=0", "--owner-gid=0"]
            self._run("ostree", "commit", f"--repo={source}", f"--branch={branch}", *tree)
        self._run(
            "ostree", "static-delta", "generate", f"--repo={source}", "--from=old", "--to=new",
            "--min-fallback-size=0", "--inline", f"--filename={delta}",
        )  # fmt: skip
        self._run("ostree", "init", f"--repo={receiver}", "--mode=bare-user")
        self._run("ostree", "pull-local", f"--repo={receiver}", source, "old")
        applied = self._run("ostree", "static-delta", "apply-offline", f"--repo={receiver}", delta)
        wanted = (source / "refs/heads/new").read_text().strip()
        self._run("ostree", "checkout", f"--repo={receiver}", "--user-mode", wanted, self._work / "made")
        return Sent(delta.stat().st_size, applied)


Tool = Literal["gzip", "zstd -19", "casync", "xdelta3", "zstd --patch-from", "bsdiff", "ostree"]
_TOOLS: dict[Tool, Callable[[Peers, Path, Path], Sent | None]] = {
    "gzip": Peers._gzip,
    "zstd -19": Peers._zstd,
    "casync": Peers._casync,
    "xdelta3": Peers._xdelta,
    "zstd --patch-from": Peers._zstd_patch,
    "bsdiff": Peers._bsdiff,
    "ostree": Peers._ostree,
}


def _compare(made: Path, wanted: Path) -> None:
    digests: list[bytes] = []
    for path in (made, wanted):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    if digests[0] != digests[1]:
        raise RuntimeError(f"what was applied is not {wanted.name}")


def _free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LookupError("MemAvailable")


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _with_dependencies(index: dict[str, Package]) -> list[str]:
    """Return the tools and the libraries that they need, without the C library that is there."""
    todo, seen = list(_PACKAGES), set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name not in index or name in ("libc6", "libgcc-s1", "libstdc++6"):
            continue
        if name not in _PACKAGES and not name.startswith(("lib", "zlib")):
            # What sets a system up; the programs run without.
            continue
        seen.add(name)
        todo += re.findall(r"(?:^|,)\s*([a-z0-9.+-]+)", index[name].get("Depends", ""))
    return sorted(seen)
