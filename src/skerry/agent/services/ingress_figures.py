"""What clients saw of routes, from two looks at the proxy's counters to what gates can ask for.

For each component with a route: `ingress_errors`, how many answers were of 500 and above or none; `ingress_latency_ms`,
until the answer was complete; `ingress_bytes`, how many of all bytes came from clients. Where a component has several
routes, the same of each as `NAME.ROUTE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from skerry.ports.proxy import Counts
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

Owner = tuple[str, str, str, str]
"""Application, release, component and route."""


def figures_between(
    before: Mapping[str, Counts], after: Mapping[str, Counts], owners: Mapping[str, Owner]
) -> Iterator[tuple[Series, Value]]:
    """Yield what was measured between two looks. A proxy that began anew counts from nothing."""
    several = Counter(
        (application, release, component) for application, release, component, _ in owners.values()
    )
    for key, counts in after.items():
        if key not in owners:
            continue
        application, release, component, route = owners[key]
        known = before.get(key)
        if known is None or known.run != counts.run:
            known = Counts(counts.run)
        for metric, value in measure(_ENDPOINT, _look(known), _look(counts)).items():
            yield Series(application, release, component, metric), value
            if several[application, release, component] > 1:
                yield Series(application, release, component, f"{metric}.{route}"), value


def _look(counts: Counts) -> Look:
    plain = {
        "errors": counts.errors,
        "requests": counts.requests,
        "received": counts.received_bytes,
        "bytes": counts.received_bytes + counts.sent_bytes,
    }
    counters: dict[tuple[str, Labels], float] = {(name, ()): float(count) for name, count in plain.items()}
    latency: dict[tuple[str, Labels], float] = {
        ("latency_bucket", (("le", f"{bound:g}".replace("inf", "+Inf")),)): float(count)
        for bound, count in counts.latency_ms.items()
    }
    return Look(counters | latency)
