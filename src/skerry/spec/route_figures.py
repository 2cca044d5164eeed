"""What is measured of routes with no word from the application: the metrics by name, and the kind of gate for each."""

from __future__ import annotations

from collections.abc import Mapping

from skerry.spec.metrics import Quality

ROUTE_FIGURES: Mapping[str, Quality] = {
    "ingress_errors": "rate",
    "ingress_latency_ms": "quantile",
    "ingress_bytes": "rate",
}
"""What is measured of every route, with the kind of gate that can ask for it."""
SHADOW_FIGURES: Mapping[str, Quality] = {
    "shadow_disagreement": "rate",
    "shadow_errors": "rate",
    "shadow_uncompared": "rate",
    "shadow_latency_ms": "quantile",
}
"""What is measured of a route with `shadow` while a release is on trial."""
