"""Judges a self-test: what a component printed against what is right.

For each golden case the component prints one line of JSON, `{"case": "MODEL/CASE", "outputs": [...],
"latency_ms": 1.5}`; other lines do not matter. `outputs` are numbers, nested in lists as in the expected file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import cast

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.spec.model import Tolerance

MAX_DEPTH = 8
MAX_NUMBERS = 1_000_000


class GoldenAnswer(msgspec.Struct, frozen=True):
    """What is right for one case, as the content of its file, and how far off an answer may be."""

    expected: bytes
    tolerance: Tolerance


class CaseLine(msgspec.Struct, frozen=True):
    """One line that a component prints."""

    case: str
    outputs: object
    latency_ms: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """How a component's self-test went: by model what failed, and the median latency of those that passed."""

    failures: Mapping[str, str] = {}
    latencies_us: Mapping[str, int] = {}


def judge_self_test(
    models: Sequence[str],
    answers: Mapping[str, GoldenAnswer],
    output: bytes,
    *,
    ended: str,
    limits_ms: Mapping[str, float] | None = None,
) -> Verdict:
    """Return the verdict on the models of a component, given what it printed.

    `answers` maps `MODEL/CASE` to what is right. `ended` is empty when the command ended with 0; otherwise it
    says how it ended, and every model that did not answer all its cases rightly has failed. `limits_ms` says by
    model how long the median answer may take; where it says so, not to tell how long it took is a failure.
    """
    lines = _lines(output)
    failures: dict[str, str] = {}
    latencies: dict[str, int] = {}
    for model in models:
        cases = {case: answer for case, answer in answers.items() if case.split("/", maxsplit=1)[0] == model}
        failure = next((why for case in cases if (why := _judge(case, cases[case], lines.get(case)))), "")
        if ended and (failure or not cases):
            failure = f"{ended}; {failure}" if failure else ended
        found = (lines[case].latency_ms for case in cases if case in lines)
        times = [latency_ms for latency_ms in found if latency_ms is not None and latency_ms > 0]
        if failure := failure or _too_slow(times, (limits_ms or {}).get(model)):
            failures[model] = failure
            continue
        if times:
            latencies[model] = max(1, round(median(times) * 1000))
    if ended and not failures and models:
        failures = dict.fromkeys(models, ended)
    return Verdict(failures, latencies)


def compare_outputs(got: object, expected: object, tolerance: Tolerance) -> str:
    """Return where an output is too far from the expected one, or nothing."""
    budget = [MAX_NUMBERS]
    return _compare(got, expected, tolerance, "", budget)


def _judge(case: str, answer: GoldenAnswer, line: CaseLine | None) -> str:
    if line is None:
        return f"{case}: no answer"
    try:
        expected = msgspec.json.decode(answer.expected)
    except UNREADABLE:
        return f"{case}: the expected output is not JSON"
    difference = compare_outputs(line.outputs, expected, answer.tolerance)
    return f"{case}: {difference}" if difference else ""


def _too_slow(times_ms: Sequence[float], limit_ms: float | None) -> str:
    if limit_ms is None:
        return ""
    if not times_ms:
        return f"no latency_ms is told, and an answer may take {limit_ms:g} ms at the most"
    took_ms = median(times_ms)
    return (
        f"an answer takes {took_ms:g} ms, and may take {limit_ms:g} ms at the most"
        if took_ms > limit_ms
        else ""
    )


def _lines(output: bytes) -> dict[str, CaseLine]:
    decoder = msgspec.json.Decoder(CaseLine)
    found: dict[str, CaseLine] = {}
    for line in output.splitlines():
        if line.lstrip().startswith(b"{"):
            try:
                decoded = decoder.decode(line)
            except UNREADABLE:
                continue
            found[decoded.case] = decoded
    return found


def _compare(got: object, expected: object, tolerance: Tolerance, where: str, budget: list[int]) -> str:
    if where.count("[") > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    if isinstance(expected, list) or isinstance(got, list):
        gots = cast("list[object]", got) if isinstance(got, list) else None
        wanteds = cast("list[object]", expected) if isinstance(expected, list) else None
        if gots is None or wanteds is None or len(gots) != len(wanteds):
            return f"output{where} has another shape: {_shape(gots)}, expected {_shape(wanteds)}"
        pairs = enumerate(zip(gots, wanteds, strict=True))
        return next(
            (why for i, (g, e) in pairs if (why := _compare(g, e, tolerance, f"{where}[{i}]", budget))), ""
        )
    budget[0] -= 1
    if budget[0] < 0:
        return f"more than {MAX_NUMBERS} numbers"
    if not _is_number(got) or not _is_number(expected):
        return "" if got == expected else f"output{where} is {got!r:.80}, expected {expected!r:.80}"
    assert isinstance(got, (int, float)) and isinstance(expected, (int, float))
    allowed = tolerance.absolute + tolerance.relative * abs(expected)
    # Written so that a NaN is never near enough.
    if math.isfinite(got) and abs(got - expected) <= allowed:
        return ""
    return f"output{where} is {got:g}, expected {expected:g} within {allowed:g}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shape(values: list[object] | None) -> str:
    return "a single value" if values is None else f"a list of {len(values)}"
