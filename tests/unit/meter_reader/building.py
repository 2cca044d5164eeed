"""Where the example lies, what it takes to be tested, and its build as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "meter-reader"


def need_libraries() -> None:
    """Let a test module skip itself where the example's libraries are not installed."""
    for needed in ("numpy", "sklearn", "onnx", "onnxruntime", "PIL"):
        pytest.importorskip(needed)


def build(out: Path, hash_seed: str = "0") -> None:
    """Run the example's build as a person would, without the bundle."""
    command = [sys.executable, str(EXAMPLE / "build.py"), "--out", str(out), "--without-bundle"]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
