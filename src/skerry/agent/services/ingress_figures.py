"""What clients saw of routes, from two looks at the proxy's counters to what gates can ask for.

For each component with a route: `ingress_errors`, how many answers were of 500 and above or none; `ingress_latency_ms`,
until the answer was complete; `ingress_bytes`, how many of all bytes came from clients. Where a component has several
routes, the same of each as `NAME.ROUTE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from skerry.ports.proxy import Counts, ShadowCounts
from skerry.spec.application import Collected, MetricsEndpoint, RateMetric
from skerry.spec.metrics import Value
from skerry.telemetry.collecting import Look, measure
from skerry.telemetry.exposition import Labels
from skerry.telemetry.keeping import Series

ERRORS, LATENCY, BYTES = "ingress_errors", "ingress_latency_ms", "ingress_bytes"

_ENDPOINT = MetricsEndpoint(
    port="ingress",
    collect=(
        Collected(name=ERRORS, rate=RateMetric(bad="errors", total="requests")),
        Collected(name=LATENCY, histogram="latency"),
        Collected(name=BYTES, rate=RateMetric(bad="received", total="bytes")),
    ),
)

DISAGREEMENT, FAILURES, UNCOMPARED = "shadow_disagreement", "shadow_errors", "shadow_uncompared"
SHADOW_LATENCY = "shadow_latency_ms"

_SHADOW = MetricsEndpoint(
    port="ingress",
    collect=(
        Collected(name=DISAGREEMENT, rate=RateMetric(bad="differing", total="compared")),
        Collected(name=FAILURES, rate=RateMetric(bad="errors", total="compared")),
        Collected(name=UNCOMPARED, rate=RateMetric(bad="uncompared", total="requests")),
        Collected(name=SHADOW_LATENCY, histogram="latency"),
    ),
)
_BESIDE = MetricsEndpoint(port="ingress", collect=(Collected(name=SHADOW_LATENCY, histogram="live_latency"),))

Owner = tuple[str, str, str, str]
"""Application, release, component and route."""


def figures_between(
    before: Mapping[str, Counts], after: Mapping[str, Counts], owners: Mapping[str, Owner]
) -> Iterator[tuple[Series, Value]]:
    """Yield what was measured between two looks. A proxy that began anew counts from nothing."""
    several = _several(owners)
    for key, counts in after.items():
        known = before.get(key)
        if known is None or known.run != counts.run:
            known = Counts(counts.run)
        yield from _of(owners.get(key), several, measure(_ENDPOINT, _look(known), _look(counts)))


def shadows_between(
    before: Mapping[str, ShadowCounts], after: Mapping[str, ShadowCounts], owners: Mapping[str, Owner]
) -> Iterator[tuple[Series, Value]]:
    """Yield what came of copied requests between two looks; what compares and began anew counts from nothing."""
    several = _several(owners)
    for key, counts in after.items():
        known = before.get(key)
        if known is None or known.run != counts.run:
            known = ShadowCounts(counts.run, counts.beside)
        looks = _shadow_look(known), _shadow_look(counts)
        yield from _of(owners.get(key), several, measure(_SHADOW, *looks))
        yield from _of(owners.get(counts.beside), several, measure(_BESIDE, *looks))


def _several(owners: Mapping[str, Owner]) -> Counter[tuple[str, str, str]]:
    """Count the routes of each component of a release."""
    return Counter(owner[:3] for owner in set(owners.values()))


def _of(
    owner: Owner | None, several: Mapping[tuple[str, str, str], int], measured: Mapping[str, Value]
) -> Iterator[tuple[Series, Value]]:
    for metric, value in measured.items() if owner is not None else ():
        assert owner is not None
        application, release, component, route = owner
        yield Series(application, release, component, metric), value
        if several.get(owner[:3], 0) > 1:
            yield Series(application, release, component, f"{metric}.{route}"), value


def _look(counts: Counts) -> Look:
    plain = {
        "errors": counts.errors,
        "requests": counts.requests,
        "received": counts.received_bytes,
        "bytes": counts.received_bytes + counts.sent_bytes,
    }
    return _counted(plain, {"latency": counts.latency_ms})


def _shadow_look(counts: ShadowCounts) -> Look:
    plain = {
        "requests": counts.requests,
        "uncompared": counts.uncompared,
        "compared": counts.compared,
        "differing": counts.differing,
        "errors": counts.errors,
    }
    return _counted(plain, {"latency": counts.latency_ms, "live_latency": counts.live_latency_ms})


def _counted(plain: Mapping[str, int], times: Mapping[str, Mapping[float, int]]) -> Look:
    counters: dict[tuple[str, Labels], float] = {(name, ()): float(count) for name, count in plain.items()}
    for name, buckets in times.items():
        for bound, count in buckets.items():
            le = f"{bound:g}".replace("inf", "+Inf")
            counters[f"{name}_bucket", (("le", le),)] = float(count)
    return Look(counters)
