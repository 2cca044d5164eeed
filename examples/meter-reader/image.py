"""Builds the example's application as a container image: an OCI image layout, made without an engine or registry.

    python examples/meter-reader/image.py [--out DIR] [--force]

It is made of the interpreter that runs this, so it fits machines like this one. Models are no part of it: they come
with the release. Nothing is done when nothing has changed.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
APP = HERE / "app"
sys.path[:0] = [str(HERE), str(APP)]

from build_tools.image import build_image  # noqa: E402  the path above must come first
from build_tools.stamp import digest_inputs, is_fresh, write_stamp  # noqa: E402

IMAGE_NAME = "image"


def main(arguments: list[str] | None = None) -> int:
    """Build the image unless it is there; the exit code for the process."""
    parser = argparse.ArgumentParser(description="Build the meter-reader example's container image.")
    parser.add_argument(
        "--out", type=Path, default=HERE / "build", help="where it goes (default: build/ here)"
    )
    parser.add_argument("--force", action="store_true", help="build it, changed or not")
    asked = parser.parse_args(arguments)
    out: Path = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started, target = time.monotonic(), out / IMAGE_NAME
    requirements = HERE / "requirements.txt"
    own = sorted((APP / "meter_reader").glob("*.py"))
    tools = [HERE / "build_tools" / name for name in ("bundle.py", "image.py")]
    facts = [sys.version, platform.machine(), *platform.libc_ver(), str(bool(shutil.which("strip")))]
    inputs = digest_inputs([*tools, requirements, *own], facts)
    fresh = not asked.force and is_fresh(out, "image", inputs)
    if not fresh:
        build_image(APP, requirements, target)
        written = sorted(path for path in target.rglob("*") if path.is_file())
        write_stamp(out, "image", inputs, written)
    took = "unchanged" if fresh else f"{time.monotonic() - started:.1f} s"
    index = json.loads((target / "index.json").read_bytes())
    digest: str = index["manifests"][0]["digest"]
    size_mb = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
    print(f"image     {took}, {size_mb:.1f} MB, {digest[:19]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
