"""Builds `meter-reader.pyz`: the application and everything it needs but the Python interpreter, in one file.

The same sources and pins give the same bytes, so that releases which differ only in their model share the
bundle. What an installer writes about itself (who installed, when, from where) is therefore left out, and
file modes are set.

Compiled libraries tie a bundle to the Python minor version and the kind of machine it was built with.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Never used when a model is only run: compilers' files, tests, and onnxruntime's converters. Licences stay.
LEFT_OUT = (
    "bin",
    ".lock",
    "**/__pycache__",
    "**/tests",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.a",
    "**/*.h",
    "*.dist-info/INSTALLER",
    "*.dist-info/RECORD",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_*.json",
    "numpy/distutils",
    "numpy/f2py",
    # The same code once more, for C programs: the Python module carries its own.
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "PIL/_avif.*",
    "pillow.libs/libavif-*",
)
ENTRY_POINT = "meter_reader.__main__:main"
# Earliest time a zip file can hold: 1980-01-01.
SOURCE_DATE_EPOCH = "315532800"


def build_bundle(app: Path, requirements: Path, target: Path) -> None:
    """Write the bundle from the application's source directory and its pinned requirements.

    Raises:
        subprocess.CalledProcessError: installing or packing failed; the tool has said why.
    """
    with tempfile.TemporaryDirectory(prefix="meter-reader-") as scratch:
        site = Path(scratch) / "site-packages"
        subprocess.run(install_command(requirements, site), check=True)
        shutil.copytree(app, site, dirs_exist_ok=True)
        note = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "machine": platform.machine()}
        (site / "meter_reader" / "built-for.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
        strip_site(site)
        packed = Path(scratch) / target.name
        pack = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "shiv", "--reproducible"]
        pack += ["--site-packages", str(site), "--entry-point", ENTRY_POINT]
        pack += ["--python", "/usr/bin/env python3", "--output-file", str(packed)]
        subprocess.run(pack, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH})
        target.parent.mkdir(parents=True, exist_ok=True)
        # Into place in one step: a build that breaks off leaves no half bundle behind.
        unfinished = target.with_suffix(".unfinished")
        shutil.copy(packed, unfinished)
        unfinished.replace(target)


def install_command(requirements: Path, site: Path) -> list[str]:
    """The command that installs the pinned requirements into a directory: uv where there is one, else pip."""
    common = [
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--target",
        str(site),
        "--requirement",
        str(requirements),
    ]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable, "--link-mode", "copy", *common]
    return [sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", *common]


def strip_site(site: Path) -> None:
    """Remove what the application never uses and give every file the same mode."""
    for pattern in LEFT_OUT:
        for path in list(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
