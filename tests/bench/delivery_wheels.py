"""Layers of Python applications, from wheels: one dependency bumped, and a minor upgrade of a big native library."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.bench.delivery_debian import write_tar

# Pure Python and small, in a layer of big neighbours that stay.
_STAYING = ("numpy==2.3.4", "scipy==1.16.2", "cryptography==46.0.3", "requests==2.32.4")
_BUMPED = ("urllib3==2.5.0", "urllib3==2.6.0")
_LIBRARY = ("onnxruntime==1.30.0", "onnxruntime==1.31.1")


def make_dependency_bump(cache: Path) -> tuple[Path, Path]:
    """Return the layers before and after one dependency went up."""
    return (
        make_layer(cache, "application-old", (*_STAYING, _BUMPED[0])),
        make_layer(cache, "application-new", (*_STAYING, _BUMPED[1])),
    )


def make_library_upgrade(cache: Path) -> tuple[Path, Path]:
    """Return layers that hold a big native library, before and after a minor upgrade."""
    return make_layer(cache, "library-old", _LIBRARY[:1]), make_layer(cache, "library-new", _LIBRARY[1:])


def make_layer(cache: Path, name: str, requirements: tuple[str, ...]) -> Path:
    """Return the tar of what the wheels of some requirements contain."""
    path = cache / f"{name}.tar"
    if not path.exists():
        wheels = cache / "wheels" / name
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(wheels), *requirements], check=True, timeout=600)
        tree = cache / name
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    archive.extract(member, tree / "site-packages")
        for file in tree.rglob("*"):
            # Installing gives every file the time of the build.
            _set_time(file, 1_750_000_000 if name.endswith("old") else 1_760_000_000)
        write_tar(tree, path)
    return path


def _set_time(file: Path, time_s: int) -> None:
    import os

    os.utime(file, (time_s, time_s))
