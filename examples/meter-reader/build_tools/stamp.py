"""Remembers what a build step was made from and what it made, so that a step with nothing new is skipped.

The stamp lies next to the outputs. A step is fresh when its inputs' digest is the recorded one and every
output still has the recorded digest: outputs that were lost or changed by hand are made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest_inputs(files: Iterable[Path], facts: Iterable[str]) -> str:
    """One digest over files (name and content, in the order given) and facts such as library versions."""
    state = hashlib.sha256()
    for file in files:
        state.update(f"{file.name}\0{digest_file(file)}\n".encode())
    for fact in facts:
        state.update(f"{fact}\n".encode())
    return state.hexdigest()


def digest_file(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_fresh(out: Path, step: str, inputs: str) -> bool:
    """Whether a step needs no work."""
    try:
        recorded = json.loads(_stamp_path(out, step).read_text(encoding="utf-8"))
        made: dict[str, str] = recorded["outputs"]
        return bool(
            recorded["inputs"] == inputs and all(digest_file(out / name) == was for name, was in made.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_stamp(out: Path, step: str, inputs: str, outputs: Iterable[Path]) -> None:
    """Record a step that is done; outputs lie under `out`."""
    made = {path.relative_to(out).as_posix(): digest_file(path) for path in outputs}
    content = json.dumps({"inputs": inputs, "outputs": made}, indent=1)
    _stamp_path(out, step).write_text(content + "\n", encoding="utf-8")


def _stamp_path(out: Path, step: str) -> Path:
    return out / f".{step}.stamp.json"
