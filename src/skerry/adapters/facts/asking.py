"""Asking what only a library can answer, in a short-lived child process.

Rules: the agent never loads a driver's or a runtime's library: it would keep its memory for ever, and a driver that
hangs would hang the agent. The child has a time limit and a bound on what it says. An answer is kept until what it
depends on changes; no answer is asked for again after `RETRY_S`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from skerry.adapters.facts.child import run_child
from skerry.kit.canonical import UNREADABLE

Question = Literal["nvml", "hailo", "onnxruntime", "openvino", "tensorrt"]
Answer = Mapping[str, Any]
Ask = Callable[[Question, Hashable], Answer]
"""Asks a question; the second argument is all that the answer depends on. An answer may state a `problem`."""

ANSWER_S = 15.0
ANSWER_LIMIT_BYTES = 1 << 16
RETRY_S = 600.0

QUESTIONS = Path(__file__).with_name("questions.py")


class ChildAnswers:
    """Answers by child processes, kept while they hold."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic, script: Path = QUESTIONS) -> None:
        self._monotonic = monotonic
        self._script = script
        self._kept: dict[Question, tuple[Hashable, Answer, float]] = {}

    def __call__(self, question: Question, key: Hashable) -> Answer:
        """Return the answer, from memory where nothing it depends on has changed."""
        kept = self._kept.get(question)
        if kept and kept[0] == key and self._monotonic() < kept[2]:
            return kept[1]
        answer = ask_child(question, script=self._script)
        until = self._monotonic() + RETRY_S if "problem" in answer else float("inf")
        self._kept[question] = (key, answer, until)
        return answer


def ask_child(question: Question, *, limit_s: float = ANSWER_S, script: Path = QUESTIONS) -> Answer:
    """Ask a fresh process; what goes wrong is the answer's `problem`."""
    # -I: neither the environment nor the working directory decides what is imported.
    outcome = run_child(
        [sys.executable, "-I", str(script), question],
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
        limit_s=limit_s,
        limit_bytes=ANSWER_LIMIT_BYTES,
    )
    if outcome.failure:
        return {"problem": f"asking {question}: {outcome.failure}"}
    try:
        answer: Any = msgspec.json.decode(outcome.output)
    except UNREADABLE:
        answer = None
    if not isinstance(answer, dict):
        return {"problem": f"asking {question}: the answer makes no sense"}
    return cast(dict[str, Any], answer)


def ask_nobody(question: Question, key: Hashable) -> Answer:  # noqa: ARG001 (an `Ask`)
    """Know no answer: for trees of other machines."""
    return {}
