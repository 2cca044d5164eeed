"""Build the wheel, install it as a device would (`skerry[agent]`), and see that it works and stays small."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HUB_ONLY = ("litestar", "sqlalchemy", "obstore", "httpx2", "uvicorn", "starlette", "rich")
COMMANDS = (("--version",), ("--help",), ("agent", "--help"), ("agent", "run", "--help"))


def main() -> int:
    """Return 0 when the agent's install works and holds nothing of the hub's."""
    uv = run("sh", "scripts/setup.sh", "--print-uv", capture=True).strip()
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run(uv, "build", "--quiet", "--wheel", "--out-dir", "dist")
    wheels = sorted((ROOT / "dist").glob("skerry-*.whl"))
    if len(wheels) != 1:
        return fail(f"expected one wheel in dist, found {len(wheels)}")
    with tempfile.TemporaryDirectory(prefix="skerry-wheel-") as folder:
        return try_install(uv, wheels[0], Path(folder))


def try_install(uv: str, wheel: Path, folder: Path) -> int:
    """Install the wheel with the locked versions of its libraries and use it from outside the source tree."""
    constraints, venv = folder / "constraints.txt", folder / "venv"
    export = (
        "export",
        "--quiet",
        "--frozen",
        "--no-dev",
        "--extra",
        "agent",
        "--no-emit-project",
        "--no-hashes",
    )
    run(uv, *export, "--output-file", str(constraints))
    run(uv, "venv", "--quiet", "--python", sys.executable, str(venv))
    python = venv / "bin" / "python"
    target = f"skerry[agent] @ {wheel.as_uri()}"
    run(uv, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(constraints), target)

    for command in COMMANDS:
        run(str(venv / "bin" / "skerry"), *command, cwd=folder, capture=True)
    probe = f"import importlib.util as u; print(*[m for m in {HUB_ONLY!r} if u.find_spec(m)])"
    found = run(str(python), "-c", probe, cwd=folder, capture=True).split()
    if found:
        return fail(f"the agent's install holds libraries of the hub: {', '.join(found)}")
    site_packages = next((venv / "lib").glob("python3*/site-packages"))
    size = sum(file.stat().st_size for file in site_packages.rglob("*") if file.is_file())
    own = wheel.stat().st_size
    print(f"{wheel.name}: {own / 1024:.0f} KiB; skerry[agent] installs {size / 2**20:.1f} MiB")
    return 0


def run(*command: str, cwd: Path = ROOT, capture: bool = False) -> str:
    """Run a command and return its output, if captured; leave with its output when it fails."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if done.returncode:
        print(done.stdout or "", end="")
        sys.exit(fail(f"{' '.join(command)} exited with {done.returncode}"))
    return done.stdout or ""


def fail(why: str) -> int:
    """Say why and return the exit code."""
    print(f"check_wheel: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
