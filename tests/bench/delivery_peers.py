"""What other tools make of a pair of files: bytes to send, by programs from Debian's archive.

Their results are kept beside the corpora, by the digests of the files: bsdiff takes minutes, and does not change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.bench.delivery_debian import Package, archive_of, fetch, load_index

_PACKAGES: tuple[str, ...] = ("bsdiff", "xdelta3", "casync", "zstd")
_TIMEOUT_S = 1800


class Peers:
    """The other tools, fetched below a folder."""

    def __init__(self, cache: Path) -> None:
        self._tree = cache / "peers"
        self._kept = cache / "peers.json"
        self._digests: dict[Path, str] = {}
        self._work = cache / f"work-{os.getpid()}"
        self._work.mkdir(parents=True, exist_ok=True)
        if not self._tree.exists():
            index = load_index(cache, "old")
            for name in _with_dependencies(index):
                archive = fetch(cache, f"{archive_of('old')[0]}{index[name]['Filename']}")
                subprocess.run(["dpkg-deb", "-x", archive, self._tree], check=True, timeout=120)

    def size_of(self, tool: Tool, old: Path, new: Path) -> int:
        """Return the bytes that a tool sends to lead from `old` to `new`."""
        kept = self._load()
        key = f"{tool} {self._digest(old)} {self._digest(new)}"
        if key not in kept:
            size = _TOOLS[tool](self, old, new)
            kept = {**self._load(), key: size}
            self._kept.write_text(json.dumps(kept, indent=1))
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        return kept[key]

    def _load(self) -> dict[str, int]:
        kept: dict[str, int] = json.loads(self._kept.read_text()) if self._kept.exists() else {}
        return kept

    def close(self) -> None:
        """Remove what the tools wrote."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]

    def _run(self, *command: str | Path) -> bytes:
        libraries = ":".join(
            str(self._tree / folder) for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
        )
        program = self._tree / "usr/bin" / command[0]
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        ran = subprocess.run(
            ["nice", program, *command[1:]],
            check=True,
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=environment,
        )
        return ran.stdout

    def gzip_bytes(self, _: Path, new: Path) -> int:
        """Return what a pull moves: the layer, as registries keep it."""
        ran = subprocess.run(
            ["gzip", "-6", "-n", "-c", new], check=True, capture_output=True, timeout=_TIMEOUT_S
        )
        return len(ran.stdout)

    def zstd_bytes(self, _: Path, new: Path) -> int:
        """Return the file packed by `zstd -19`."""
        return len(self._run("zstd", "-q", "-19", "-c", new))

    def zstd_patch_bytes(self, old: Path, new: Path) -> int:
        """Return a patch of `zstd --patch-from`."""
        return len(self._run("zstd", "-q", "-19", "--long=31", f"--patch-from={old}", "-c", new))

    def bsdiff_bytes(self, old: Path, new: Path) -> int:
        """Return a patch of bsdiff."""
        patch = self._work / "patch"
        self._run("bsdiff", old, new, patch)
        return patch.stat().st_size

    def xdelta_bytes(self, old: Path, new: Path) -> int:
        """Return a patch of xdelta3 with the whole old file in its window."""
        patch = self._work / "patch"
        self._run(
            "xdelta3", "-e", "-f", "-9", "-B", str(max(old.stat().st_size, 1 << 20)), "-s", old, new, patch
        )
        return patch.stat().st_size

    def casync_bytes(self, old: Path, new: Path) -> int:
        """Return the chunks and the index that a casync store lacks for the new file, in its default sizes."""
        store = self._work / "store.castr"
        shutil.rmtree(store, ignore_errors=True)
        self._run("casync", "make", f"--store={store}", self._work / "old.caibx", old)
        before = _size_of(store)
        self._run("casync", "make", f"--store={store}", self._work / "new.caibx", new)
        return _size_of(store) - before + (self._work / "new.caibx").stat().st_size


Tool = Literal["gzip", "zstd -19", "casync", "xdelta3", "zstd --patch-from", "bsdiff"]
_TOOLS: dict[Tool, Callable[[Peers, Path, Path], int]] = {
    "gzip": Peers.gzip_bytes,
    "zstd -19": Peers.zstd_bytes,
    "casync": Peers.casync_bytes,
    "xdelta3": Peers.xdelta_bytes,
    "zstd --patch-from": Peers.zstd_patch_bytes,
    "bsdiff": Peers.bsdiff_bytes,
}


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _with_dependencies(index: dict[str, Package]) -> list[str]:
    """Return the tools and the libraries that they need, without the C library that is there."""
    todo, seen = list(_PACKAGES), set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name not in index or name in ("libc6", "libgcc-s1", "libstdc++6"):
            continue
        seen.add(name)
        todo += re.findall(r"(?:^|,)\s*([a-z0-9.+-]+)", index[name].get("Depends", ""))
    return sorted(seen)
