"""Which variant of a model or an image is the best of those that fit a host, and why.

Rules: what is required is required. Of what is left, the objective decides; then the weights of what the author
would prefer; then the author's order. `listed` has no figure, so the weights come first. `fastest` takes the
latency that the host measured itself where there is one, else the one the author expects. `smallest` is the
fewest bytes of files, then the least memory expected. A variant without the figure in question comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import msgspec

from skerry.kit.quantities import parse_duration, parse_size
from skerry.matching.clauses import Clause, clause_holds, read_subject, show_size
from skerry.matching.requirements import clauses_of, describe_met, platform_clauses, unmet_of
from skerry.spec.facts import HostFacts
from skerry.spec.hardware import Expectation, Objective, Preference
from skerry.spec.image import ImageVariant
from skerry.spec.model import FileSpec, ModelSpec, Variant

_NEVER = float("inf")


class ClauseIndex:
    """Gives every distinct clause one bit, so that what holds on a host is one number."""

    def __init__(self) -> None:
        self.clauses: list[Clause] = []
        self._bits: dict[Clause, int] = {}

    def mask(self, clauses: Sequence[Clause]) -> int:
        """Return the number whose bits are those of the clauses."""
        return reduce(lambda mask, clause: mask | self._bit(clause), clauses, 0)

    def holding(self, facts: HostFacts) -> int:
        """Return the number whose bits are those of the clauses that hold on a host."""
        values = {clause.subject: read_subject(facts, clause.subject) for clause in self.clauses}
        return reduce(
            lambda mask, pair: mask | (1 << pair[0]),
            ((n, c) for n, c in enumerate(self.clauses) if clause_holds(c, values[c.subject])),
            0,
        )

    def _bit(self, clause: Clause) -> int:
        bit = self._bits.get(clause)
        if bit is None:
            bit = self._bits[clause] = 1 << len(self.clauses)
            self.clauses.append(clause)
        return bit


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A variant, ready to be judged. `key` is the name it is measured and remembered by; `needs` its bits.

    `goes_with` maps a model's name to the variants of it that this one can be taken together with.
    """

    name: str
    key: str
    needs: int
    clauses: tuple[Clause, ...]
    prefers: tuple[tuple[int, int], ...]
    latency_us: float
    accuracy: float
    size_bytes: int
    memory_bytes: float
    goes_with: Mapping[str, tuple[str, ...]] = {}


class Choice(msgspec.Struct, frozen=True):
    """The variant to run, and one line per variant that was looked at."""

    variant: Variant
    why: tuple[str, ...]


class NoMatch(msgspec.Struct, frozen=True):
    """No variant fits; one line of reason per variant."""

    reasons: tuple[str, ...]


def match_variant(
    model: ModelSpec,
    facts: HostFacts,
    *,
    name: str = "",
    objective: Objective = "listed",
    failed: Mapping[str, str] = {},
) -> Choice | NoMatch:
    """Return the best variant whose requirements hold on a host with these facts.

    `name` is the model's, under which its variants are measured and remembered as `failed`.
    """
    index = ClauseIndex()
    candidates = model_candidates(model, name, index)
    holding = index.holding(facts)
    latencies = latencies_of(candidates, facts)
    ranked = rank(candidates, objective, holding, latencies, failed)
    why = explain_candidates(
        candidates, ranked[0] if ranked else None, objective, facts, Standing(holding, latencies, failed)
    )
    return Choice(model.variants[ranked[0]], why) if ranked else NoMatch(why)


def variant_key(model: str, version: str, variant: str) -> str:
    """Return the name by which a variant is remembered, in `failed` and among measured facts."""
    return f"{model}@{version}/{variant}"


def model_candidates(model: ModelSpec, name: str, index: ClauseIndex) -> tuple[Candidate, ...]:
    """Return the variants of a model in their author's order."""
    return tuple(
        _candidate(
            variant,
            variant_key(name, model.version, variant.name),
            (clauses_of(variant.requires), variant.files),
            index,
        )
        for variant in model.variants
    )


def image_candidates(
    variants: Sequence[ImageVariant], component: str, index: ClauseIndex
) -> tuple[Candidate, ...]:
    """Return the variants of a component's image in their author's order."""
    return tuple(
        msgspec.structs.replace(
            _candidate(
                variant,
                variant_key(component, "", variant.name),
                (
                    (*platform_clauses(variant.platform), *clauses_of(variant.requires)),
                    tuple(file for file in (variant.config, *variant.layers) if file is not None),
                ),
                index,
            ),
            goes_with=variant.models,
        )
        for variant in variants
    )


def _candidate(
    variant: Variant | ImageVariant,
    key: str,
    parts: tuple[tuple[Clause, ...], tuple[FileSpec, ...]],
    index: ClauseIndex,
) -> Candidate:
    clauses, files = parts
    expects: Expectation = variant.expects
    return Candidate(
        name=variant.name,
        key=key,
        needs=index.mask(clauses),
        clauses=clauses,
        prefers=preferences(variant.prefer, index),
        latency_us=parse_duration(expects.latency) * 1e6 if expects.latency else _NEVER,
        accuracy=expects.accuracy if expects.accuracy is not None else -_NEVER,
        size_bytes=sum({str(file.digest or file.path): file.size_bytes for file in files}.values()),
        memory_bytes=parse_size(expects.memory) if expects.memory else _NEVER,
    )


def preferences(prefer: Sequence[Preference], index: ClauseIndex) -> tuple[tuple[int, int], ...]:
    """Return pairs of the bits that must hold and the weight they then have."""
    return tuple((index.mask(clauses_of(wish.when)), wish.weight) for wish in prefer)


def score(prefers: Sequence[tuple[int, int]], holding: int) -> int:
    """Return the sum of the weights of what holds."""
    return sum(weight for needs, weight in prefers if needs & holding == needs)


class Standing(msgspec.Struct, frozen=True):
    """How the candidates of one slot stand on one host; `barred` are those that go with no other choice, and why."""

    holding: int
    latencies: Mapping[str, int] = {}
    failed: Mapping[str, str] = {}
    barred: Mapping[str, str] = {}


def latencies_of(candidates: Sequence[Candidate], facts: HostFacts) -> dict[str, int]:
    """Return the latencies in microseconds that the host measured itself, by candidate."""
    found: dict[str, int] = {}
    for candidate in candidates:
        fact = facts.get(f"measured.{candidate.key}.latency_us")
        if fact is not None and type(fact.value) is int and fact.value >= 0:
            found[candidate.key] = fact.value
    return found


def rank(
    candidates: Sequence[Candidate],
    objective: Objective,
    holding: int,
    latencies: Mapping[str, float],
    failed: Mapping[str, str],
) -> list[int]:
    """Return the positions of those that fit and have not failed, the best first."""
    fitting = [
        (*_figure(candidate, objective, latencies), -score(candidate.prefers, holding), position)
        for position, candidate in enumerate(candidates)
        if candidate.needs & holding == candidate.needs and candidate.key not in failed
    ]
    return [key[-1] for key in sorted(fitting)]


def _figure(
    candidate: Candidate, objective: Objective, latencies: Mapping[str, float]
) -> tuple[float, float]:
    match objective:
        case "fastest":
            return latencies.get(candidate.key, candidate.latency_us), 0.0
        case "most-accurate":
            return -candidate.accuracy, 0.0
        case "smallest":
            return candidate.size_bytes, candidate.memory_bytes
        case "listed":
            return 0.0, 0.0


def explain_candidates(
    candidates: Sequence[Candidate],
    chosen: int | None,
    objective: Objective,
    facts: HostFacts,
    standing: Standing,
) -> tuple[str, ...]:
    """Return one line per candidate, in the author's order: why it was chosen, or why not."""
    best = candidates[chosen] if chosen is not None else None
    lines: list[str] = []
    for candidate in candidates:
        if lacks := unmet_of(candidate.clauses, facts):
            text = f"needs {'; '.join(map(str, lacks))}"
        elif candidate.key in standing.failed:
            text = f"failed its self-test on this host: {standing.failed[candidate.key]}"
        elif best is None or candidate.name in standing.barred:
            text = standing.barred.get(candidate.name, "fits, but cannot be taken")
        elif candidate is best:
            figure = _told(candidate, objective, standing)
            wish = score(candidate.prefers, standing.holding)
            parts = [describe_met(candidate.clauses, facts)]
            parts += [figure] if figure and len(candidates) > 1 else []
            parts += [f"preferred with weight {wish}"] if wish else []
            text = f"fits ({', '.join(parts)})"
        else:
            text = _less(candidate, best, objective, standing)
        lines.append(f"{candidate.name}: {text}")
    return tuple(lines)


def _less(candidate: Candidate, best: Candidate, objective: Objective, standing: Standing) -> str:
    """Say why a candidate that fits comes after the best, with the figure that decided."""
    worse = {"fastest": "slower", "most-accurate": "less accurate", "smallest": "larger"}
    figures = [_figure(c, objective, standing.latencies) for c in (candidate, best)]
    if figures[0] != figures[1]:
        mine, other = _told(candidate, objective, standing), _told(best, objective, standing)
        what = worse[objective]
        if objective == "smallest" and figures[0][0] == figures[1][0]:
            memory = [c.memory_bytes for c in (candidate, best)]
            needs, against = (show_size(int(m)) if m != _NEVER else "an unknown amount" for m in memory)
            return f"as large, but takes more memory, {needs} against {against}"
        return f"{what}, {mine} against {other}" if mine else f"nothing says how {_asked(objective)} it is"
    weights = [score(c.prefers, standing.holding) for c in (candidate, best)]
    if weights[0] != weights[1]:
        return f"less preferred, weight {weights[0]} against {weights[1]}"
    return "less preferred, it comes later in its author's order"


def _asked(objective: Objective) -> str:
    return {"fastest": "fast", "most-accurate": "accurate", "smallest": "small"}.get(objective, "good")


def _told(candidate: Candidate, objective: Objective, standing: Standing) -> str:
    """Return the figure that the objective looks at, and whence it is; empty when there is none."""
    if objective == "fastest":
        measured = standing.latencies.get(candidate.key)
        if measured is not None:
            return f"{_milliseconds(measured)} (measured)"
        if candidate.latency_us != _NEVER:
            return f"{_milliseconds(candidate.latency_us)} (declared)"
    if objective == "most-accurate" and candidate.accuracy != -_NEVER:
        return f"accuracy {candidate.accuracy:g}"
    if objective == "smallest":
        return show_size(candidate.size_bytes)
    return ""


def _milliseconds(latency_us: float) -> str:
    return f"{latency_us / 1000:.3g} ms" if latency_us < 1e6 else f"{latency_us / 1e6:.3g} s"
