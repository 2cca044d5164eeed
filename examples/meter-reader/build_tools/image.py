"""Builds the application's container image as an OCI image layout, without an engine, a registry or root.

The root file system is the running interpreter, its standard library and the shared libraries that it and the
compiled packages load, each where the dynamic linker looks for it; nothing else is in it, not even a shell. Layers
that change rarely come first: interpreter, dependencies, application. The same sources, pins and interpreter give
the same bytes: entries are sorted, their times are zero and their owner is root.

Formats: OCI image specification 1.1 (image layout, configuration, layers as plain tars).
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from build_tools.bundle import install_command, strip_site

PYTHON = "opt/python"
SITE = "opt/site-packages"
APP = "opt/app"
USER = 10001
PORT = 8080
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Of the standard library: tests, what installs and draws, and modules whose libraries nothing here needs.
LEFT_OUT = (
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo",
    "turtle.py", "ensurepip", "lib2to3", "pydoc_data", "config-*", "sqlite3", "dbm", "curses", "_sqlite3.*",
    "_tkinter.*", "_test*", "_xx*", "xxlimited*", "_ctypes_test.*", "_dbm.*", "_gdbm.*", "_curses*", "readline.*",
    "nis.*", "*.a", "*.o", "EXTERNALLY-MANAGED",
)  # fmt: skip
# Loaded by name when one is looked up, by C libraries that do not have them built in.
NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
_ldd_re = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)

Entries = dict[str, Path | bytes]
"""What a layer holds, by its path in the image: a file to take, or content."""


def build_image(app: Path, requirements: Path, target: Path) -> None:
    """Write the image as an OCI layout in the directory `target`, replacing what was there.

    Raises:
        RuntimeError: this machine or interpreter is none that an image can be made of.
        subprocess.CalledProcessError: a tool failed; it has said why.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None or not sys.platform.startswith("linux"):
        raise RuntimeError(f"no image can be made on {sys.platform} {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="meter-reader-image-") as scratch:
        site = Path(scratch) / "site"
        subprocess.run(install_command(requirements, site), check=True)
        strip_site(site)
        interpreter = _interpreter(Path(scratch) / "stripped", site)
        dependencies = {f"{SITE}/{path.relative_to(site)}": path for path in _files(site)}
        own = {
            f"{APP}/{path.relative_to(app)}": path for path in _files(app) if "__pycache__" not in path.parts
        }
        unfinished = target.with_name(target.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_layout(unfinished, (interpreter, dependencies, own), architecture)
    # Into place in one step, but for the moment in which there is none.
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def write_layout(target: Path, layers: Iterable[Mapping[str, Path | bytes]], architecture: str) -> None:
    """Write an image of these layers, lowest first, as an OCI layout."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    written = [_write_layer(blobs, layer) for layer in layers]
    config = _write_blob(blobs, _json(_configuration(architecture, [layer["digest"] for layer in written])))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer} for layer in written],
    }
    described = {
        "mediaType": manifest["mediaType"],
        **_write_blob(blobs, _json(manifest)),
        "platform": {"os": "linux", "architecture": architecture},
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }
    (target / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (target / "index.json").write_bytes(_json(index))


def _configuration(architecture: str, diff_ids: list[str]) -> dict[str, Any]:
    env = {
        "PATH": f"/{PYTHON}/bin",
        "PYTHONHOME": f"/{PYTHON}",
        "PYTHONPATH": f"/{APP}:/{SITE}",
        "LD_LIBRARY_PATH": f"/{PYTHON}/lib",
        # Nothing can be written below /opt, and asking for it each time only takes time.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # Outside of a container this would be too open; here its network is the application's own.
        "SKERRY_HOST": "0.0.0.0",
        "SKERRY_PORT_HTTP": str(PORT),
    }
    return {
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Entrypoint": [f"/{PYTHON}/bin/python3", "-m", "meter_reader"],
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "meter-reader"},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": name} for name in ("interpreter", "dependencies", "application")],
    }


# ── what is in it ────────────────────────────────────────────────────────────────────────────────────────


def _interpreter(stripped: Path, site: Path) -> Entries:
    """The interpreter, its library, and every shared library that it or the packages below `site` load."""
    executable = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    entries: Entries = {f"{PYTHON}/bin/python3": executable}
    for path in _files(library):
        inside = path.relative_to(library)
        if not any(fnmatch.fnmatch(part, pattern) for part in inside.parts for pattern in LEFT_OUT):
            entries[f"{PYTHON}/{sys.platlibdir}/{version}/{inside}"] = path
    own = [path for path in entries.values() if isinstance(path, Path) and ".so" in path.name]
    compiled = [path for path in _files(site) if ".so" in path.name]
    entries.update(_libraries([executable, *own, *compiled], Path(sys.base_prefix).resolve(), site))
    entries = {name: _stripped(held, stripped) for name, held in entries.items()}
    entries["etc/passwd"] = f"root:x:0:0::/:/none\nreader:x:{USER}:{USER}::/:/none\n".encode()
    entries["etc/group"] = f"root:x:0:\nreader:x:{USER}:\n".encode()
    # Without it, some C libraries ask a name server before the file in which engines write neighbours.
    entries["etc/nsswitch.conf"] = b"hosts: files dns\n"
    return entries


def _libraries(binaries: list[Path], prefix: Path, site: Path) -> Entries:
    """The shared libraries of binaries, each under its own path, those of the interpreter beside it."""
    found: Entries = {}
    for binary in binaries:
        listing = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
        for name, location in _ldd_re.findall(listing.stdout):
            path = Path(location)
            if site.resolve() in path.resolve().parents:
                continue
            inside = prefix in path.resolve().parents
            found[f"{PYTHON}/lib/{name or path.name}" if inside else location.lstrip("/")] = path.resolve()
    for location, held in list(found.items()):
        if Path(location).name == "libc.so.6" and isinstance(held, Path):
            for name in NAME_SERVICES:
                beside = Path("/", location).with_name(name)
                if beside.is_file():
                    found[str(beside).lstrip("/")] = beside.resolve()
    return found


def _stripped(held: Path | bytes, folder: Path) -> Path | bytes:
    """Compiled code without its debugging symbols, where a tool for that is installed."""
    tool = shutil.which("strip")
    if isinstance(held, bytes) or tool is None or not _is_compiled(held):
        return held
    folder.mkdir(exist_ok=True)
    target = folder / hashlib.sha256(str(held).encode()).hexdigest()
    if not target.exists():
        command = [tool, "--strip-unneeded", "-o", str(target), str(held)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            return held
    return target


def _is_compiled(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ── how it is written ────────────────────────────────────────────────────────────────────────────────────


def _write_layer(blobs: Path, entries: Mapping[str, Path | bytes]) -> dict[str, Any]:
    """Write a layer as a plain tar, its folders before what is in them, and return its descriptor."""
    folders = {str(parent) for name in entries for parent in Path(name).parents} - {"."}
    unfinished = blobs / "unfinished"
    with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted({*entries, *folders}):
            member = tarfile.TarInfo(name)
            held = entries.get(name)
            if held is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
                continue
            content = held if isinstance(held, bytes) else held.read_bytes()
            member.size, member.mode = len(content), 0o755 if content[:4] == b"\x7fELF" else 0o644
            tar.addfile(member, io.BytesIO(content))
    with unfinished.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    unfinished.rename(blobs / digest)
    return {"digest": f"sha256:{digest}", "size": (blobs / digest).stat().st_size}


def _write_blob(blobs: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
