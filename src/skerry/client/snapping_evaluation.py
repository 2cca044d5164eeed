"""Runs a model's evaluation on the publisher's machine and judges snapped weights by it.

Rules:
- The command is the publisher's own document's and runs with the publisher's rights, without a shell, in the
  document's directory, for no longer than its timeout. What of its environment begins with SKERRY_ it does not get.
- Output is bounded; only its last line counts.
- Whatever cannot be judged has not passed: a metric that lacks, a case without outputs, a NaN.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected
from skerry.kit.quantities import format_size, parse_duration
from skerry.reconcile.judging import compare_outputs
from skerry.spec.model import Evaluation, MetricTolerance, Tolerance

MAX_OUTPUT_BYTES = 64 << 20
_MAX_LINE_BYTES = 16 << 20
_TOLD_BYTES = 2000
_LOOK_EVERY_S = 0.2


class EvaluationResult(msgspec.Struct, frozen=True):
    """What an evaluation found: its metrics, and by golden case what the model answered."""

    metrics: dict[str, float] = {}
    outputs: dict[str, msgspec.Raw] = {}


class GoldenOutputs(msgspec.Struct, frozen=True):
    """What is right, as JSON by golden case, and how far off an answer may be."""

    expected: Mapping[str, bytes]
    tolerance: Tolerance


class Evaluator:
    """One model's evaluation."""

    def __init__(self, evaluation: Evaluation, directory: Path, environment: Mapping[str, str]) -> None:
        self._evaluation = evaluation
        self._directory = directory
        self._environment = {
            name: value for name, value in environment.items() if not name.startswith("SKERRY_")
        }

    def run(self, variant: str, folder: Path) -> EvaluationResult:
        """Return what the evaluation says of a variant whose files are in `folder`.

        Raises:
            Rejected: it does not run, ends with a failure or too late, or says nothing that can be read.
        """
        own = {"SKERRY_MODEL_DIR": str(folder), "SKERRY_MODEL_VARIANT": variant}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    self._evaluation.command,
                    cwd=self._directory,
                    env=self._environment | own,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise _failed(f"cannot be started: {self._evaluation.command[0]}: {reason}") from None
            with _ended(process):
                self._wait(process, (output, errors))
            if process.returncode:
                raise _failed(f"ended with exit code {process.returncode}{_told(errors)}")
            return _parse(_last_line(output))

    def _wait(self, process: subprocess.Popen[bytes], files: tuple[BinaryIO, ...]) -> None:
        timeout = self._evaluation.timeout
        deadline = time.monotonic() + parse_duration(timeout)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise _failed(f"did not end within {timeout}{_told(files[1])}")
            with contextlib.suppress(subprocess.TimeoutExpired):  # the deadline is looked at above
                process.wait(min(_LOOK_EVERY_S, left_s))
                return
            if any(os.fstat(file.fileno()).st_size > MAX_OUTPUT_BYTES for file in files):
                raise _failed(f"printed more than {format_size(MAX_OUTPUT_BYTES)}")


def judge_exact(evaluation: Evaluation, exact: EvaluationResult, golden: GoldenOutputs | None) -> str:
    """Return what is wrong with the evaluation of the exact files, which must pass themselves, or nothing."""
    for name in evaluation.metrics:
        if not math.isfinite(exact.metrics.get(name, math.nan)):
            told = ", ".join(sorted(exact.metrics)) or "none"
            return f"the metric {name} lacks in what the evaluation printed (metrics there: {told})"
    return _judge_outputs(exact, golden)


def judge_snapped(
    evaluation: Evaluation,
    exact: EvaluationResult,
    snapped: EvaluationResult,
    golden: GoldenOutputs | None,
) -> str:
    """Return why snapped files are not as good as the exact ones, or nothing."""
    for name, tolerance in evaluation.metrics.items():
        before, after = exact.metrics[name], snapped.metrics.get(name, math.nan)
        if not _is_near(before, after, tolerance):
            return f"{name} went from {before:g} to {after:g}, and may be worse by {tolerance.worse_by:g}"
    return _judge_outputs(snapped, golden)


def _is_near(before: float, after: float, tolerance: MetricTolerance) -> bool:
    worse = before - after if tolerance.better == "higher" else after - before
    # Written so that a NaN is never near enough. A decimal tolerance must hold for decimal metrics: 0.9 - 0.89.
    return worse <= tolerance.worse_by + 1e-12 * abs(before)


def _judge_outputs(result: EvaluationResult, golden: GoldenOutputs | None) -> str:
    if golden is None:
        return ""
    for case, content in golden.expected.items():
        if case not in result.outputs:
            return f"case {case}: the evaluation gives no outputs for it"
        try:
            expected = msgspec.json.decode(content)
            got = msgspec.json.decode(result.outputs[case])
        except UNREADABLE:
            return f"case {case}: the expected output is not JSON"
        if difference := compare_outputs(got, expected, golden.tolerance):
            return f"case {case}: {difference}"
    return ""


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Generator[None]:
    """Leave no process behind, whatever happens in between."""
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_line(output: BinaryIO) -> bytes:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _MAX_LINE_BYTES))
    return output.read(_MAX_LINE_BYTES).rstrip().rpartition(b"\n")[2]


def _parse(line: bytes) -> EvaluationResult:
    try:
        return msgspec.json.decode(line, type=EvaluationResult)
    except UNREADABLE as error:
        shown = line[:100].decode(errors="replace")
        hint = 'it must end with a line such as {"metrics": {"accuracy": 0.93}}'
        raise _failed(f"printed as its last line no result: {shown!r}: {error}", hint) from None


def _told(errors: BinaryIO) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TOLD_BYTES))
    text = errors.read(_TOLD_BYTES).decode(errors="replace").strip()
    return f", saying:\n{text}" if text else ""


def _failed(message: str, hint: str = "") -> Rejected:
    return Rejected("snap.evaluation", f"the evaluation {message}", hint=hint)
