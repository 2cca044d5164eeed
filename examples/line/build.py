"""Builds what the line is made of: the meter reader and its models, the gateways, and the guard.

    python examples/line/build.py

It needs the project's `example` dependency group. What has not changed is left as it is, and the same sources give
the same bytes.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
GUARD = HERE / "build" / "guard.pyz"
MAIN = "import sys\n\nfrom guard.__main__ import main\n\nsys.exit(main())\n"


def main() -> int:
    """Build all of it; the exit code for the process."""
    for example in ("meter-reader", "gateways"):
        subprocess.run([sys.executable, str(EXAMPLES / example / "build.py")], check=True)
    build_guard(GUARD)
    print(f"{GUARD}: {GUARD.stat().st_size / 1e3:.0f} kB")
    return 0


def build_guard(target: Path) -> None:
    """Write the guard with the MQTT library that is installed here, which is pure Python, as one file."""
    library = importlib.util.find_spec("paho")
    assert library is not None and library.submodule_search_locations, (
        "install the dependency group `example`"
    )
    roots = [HERE / "app" / "guard", Path(library.submodule_search_locations[0])]
    files = {"__main__.py": MAIN.encode()}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            files[path.relative_to(root.parent).as_posix()] = path.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Into place in one step: a build that breaks off leaves no half bundle behind.
    unfinished = target.with_suffix(".unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    unfinished.replace(target)


if __name__ == "__main__":
    sys.exit(main())
