"""Inference runtimes within reach: ONNX Runtime, OpenVINO and TensorRT."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import cast

from skerry.adapters.facts.asking import Ask, Question
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree

_runtimes: tuple[tuple[Question, str], ...] = (
    ("onnxruntime", "providers"),
    ("openvino", "devices"),
    ("tensorrt", ""),
)
_nvinfer_re = re.compile(r"libnvinfer\.so\.([0-9]{1,3}(?:\.[0-9]{1,3}){2,3})")


def detect_runtimes(tree: Tree, found: Findings, ask: Ask, search: Sequence[str] | None = None) -> None:
    """Find runtimes that the agent's Python could import, without importing them, and TensorRT's library."""
    nodes = tuple(node for node in tree.names("dev") if node.startswith(("nvidia", "dri", "accel", "kfd")))
    for runtime, kind in _runtimes:
        place = find_package(runtime, sys.path if search is None else search)
        if place is None:
            continue
        folder, changed = place
        # Which providers and devices there are depends on the machine's, too.
        answer = ask(runtime, (folder, changed, nodes))
        if problem := answer.get("problem"):
            found.add_problem(f"{runtime}: {problem}")
        found.add(f"runtime.{runtime}", str(answer.get("version") or ""), f"import of {folder}")
        names = answer.get("names")
        if kind and isinstance(names, list):
            texts = [str(name) for name in cast(list[object], names)]
            found.add(f"runtime.{runtime}.{kind}", texts, f"import of {folder}")
    if "runtime.tensorrt" not in found.facts:
        _detect_nvinfer(tree, found)


def _detect_nvinfer(tree: Tree, found: Findings) -> None:
    for arch in ("aarch64", "x86_64"):
        folder = f"usr/lib/{arch}-linux-gnu"
        for name in tree.names(folder):
            if match := _nvinfer_re.fullmatch(name):
                found.add("runtime.tensorrt", match[1], f"/{folder}/{name}")


def find_package(name: str, search: Sequence[str]) -> tuple[str, int] | None:
    """Return a package's folder and when it was last installed; None when it is not to be had.

    importlib would do it as well, but reads and caches every directory of the path in the agent's memory.
    """
    for entry in search:
        folder = os.path.join(entry, name)  # noqa: PTH118
        try:
            return folder, os.stat(os.path.join(folder, "__init__.py")).st_mtime_ns  # noqa: PTH116, PTH118
        except (OSError, ValueError):
            continue
    return None
