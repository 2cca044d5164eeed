"""Machines as trees of files, unpacked from their manifests."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from skerry.adapters.facts.asking import Answer, Question

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "machines"
MACHINES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


class Unpacked(NamedTuple):
    """A tree on the disk, and what libraries answer on that machine."""

    root: Path
    answers: dict[str, Any]
    data: Path

    def ask(self, question: Question, key: Hashable) -> Answer:
        answer: Answer = self.answers.get(question, {})
        return answer


def unpack(name: str, folder: Path) -> Unpacked:
    """Write a machine's files and links below a folder."""
    manifest: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    root = folder / name
    for path, text in manifest["files"].items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for path, target in manifest["links"].items():
        link = root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    (root / "data").mkdir()
    return Unpacked(root, manifest["answers"], root / "data")
