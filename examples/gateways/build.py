"""Builds `skerry-gateways.pyz`: all gateways and what they need but the Python interpreter, in one file.

    python examples/gateways/build.py [--out DIR] [--force]

Where nothing has changed nothing is done. The same sources and pins give the same bytes. Compiled libraries tie the
file to the Python minor version and the kind of machine it was built with. ffmpeg, which cameras take, is the host's
or the image's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).resolve().parent
APP, REQUIREMENTS = HERE / "app", HERE / "requirements.txt"
NAME = "skerry-gateways.pyz"
# Never used when a gateway runs, and what an installer writes about itself.
LEFT_OUT = (
    "bin",
    ".lock",
    "**/__pycache__",
    "**/tests",
    "**/*.pyi",
    "*.dist-info/INSTALLER",
    "*.dist-info/RECORD",
)
# Earliest time a zip file can hold: 1980-01-01.
SOURCE_DATE_EPOCH = "315532800"


def main(arguments: list[str] | None = None) -> int:
    """Build the bundle; the exit code for the process."""
    parser = argparse.ArgumentParser(description="Build the gateways' bundle.")
    parser.add_argument(
        "--out", type=Path, default=HERE / "build", help="where it goes (default: build/ here)"
    )
    parser.add_argument("--force", action="store_true", help="build it, changed or not")
    asked = parser.parse_args(arguments)
    target: Path = asked.out.resolve() / NAME
    made_of = target.with_suffix(".made-of")
    wanted = digest_of_inputs()
    if asked.force or not target.exists() or not made_of.exists() or made_of.read_text() != wanted:
        build(target)
        made_of.write_text(wanted)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def digest_of_inputs() -> str:
    """Return a digest of all that the bundle is made of."""
    facts = f"{platform.python_version()} {platform.machine()} shiv {version_of('shiv')}"
    state = hashlib.sha256(facts.encode())
    for path in (Path(__file__), REQUIREMENTS, *sorted(APP.rglob("*.py"))):
        state.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return state.hexdigest()


def build(target: Path) -> None:
    """Write the bundle.

    Raises:
        subprocess.CalledProcessError: installing or packing failed; the tool has said why.
    """
    with tempfile.TemporaryDirectory(prefix="gateways-") as scratch:
        site = Path(scratch) / "site-packages"
        subprocess.run(install_command(site), check=True)
        shutil.copytree(APP, site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for pattern in LEFT_OUT:
            for path in list(site.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in site.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        packed = Path(scratch) / NAME
        pack = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "shiv", "--reproducible"]
        pack += ["--site-packages", str(site), "--entry-point", "skerry_gateways.__main__:main"]
        pack += ["--python", "/usr/bin/env python3", "--output-file", str(packed)]
        subprocess.run(pack, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH})
        target.parent.mkdir(parents=True, exist_ok=True)
        # Into place in one step: a build that breaks off leaves no half bundle behind.
        unfinished = target.with_suffix(".unfinished")
        shutil.copy(packed, unfinished)
        unfinished.replace(target)


def install_command(site: Path) -> list[str]:
    """Return the command that installs the pinned requirements into a directory: uv where there is one, else pip."""
    common = [
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--target",
        str(site),
        "--requirement",
        str(REQUIREMENTS),
    ]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable, "--link-mode", "copy", *common]
    return [sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", *common]


if __name__ == "__main__":
    sys.exit(main())
