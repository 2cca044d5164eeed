"""Checks of a rollout's gates against its release: figures that nothing of the release tells could never be judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from skerry.spec.application import ApplicationSpec, Collected
from skerry.spec.gates import GateSpec
from skerry.spec.metrics import Quality
from skerry.spec.problems import Problem
from skerry.spec.route_figures import ROUTE_FIGURES, SHADOW_FIGURES

_FIELDS: Mapping[Quality, str] = {"rate": "rate", "mean": "mean", "quantile": "histogram"}


def check_gates_told(gates: Sequence[GateSpec], application: ApplicationSpec) -> Iterator[Problem]:
    """Yield the gates that would wait for ever: no component of the application tells their figure.

    One that passes without data (`no_data: pass`) waits for nothing.
    """
    told = [
        (component.name, metric)
        for component in application.components
        if component.metrics
        for metric in component.metrics.collect
    ]
    routed = list(_of_routes(application))
    for number, gate in enumerate(gates):
        if gate.no_data == "pass":
            continue
        where = f"spec.gates[{number}]"
        there = [metric for name, metric in told if gate.component in (None, name)]
        named = [metric for metric in there if metric.name == gate.metric]
        kind = next((k for c, m, k in routed if m == gate.metric and gate.component in (None, c)), None)
        if kind == gate.kind:
            continue
        if kind is not None and not named:
            yield Problem(f"{where}.kind", f"{gate.metric} is of kind: {kind}, not {gate.kind}", "write that")
        elif not named:
            known = ", ".join(sorted({metric.name for metric in there})) or "none"
            whose = f"component {gate.component}" if gate.component else "component"
            what = f"no {whose} of the release tells a metric {gate.metric}"
            yield Problem(f"{where}.metric", what, f"metrics it collects: {known}")
        elif not any(_tells(metric, gate.kind) for metric in named):
            hint = f"collect it as a {_FIELDS[gate.kind]}, or write the kind that it has"
            yield Problem(f"{where}.kind", f"{gate.metric} is not collected for kind: {gate.kind}", hint)


def _of_routes(application: ApplicationSpec) -> Iterator[tuple[str, str, Quality]]:
    """Yield component, metric and kind of what is measured of routes."""
    for route in application.ingress:
        figures = chain(ROUTE_FIGURES.items(), SHADOW_FIGURES.items() if route.shadow else ())
        for metric, kind in figures:
            yield route.component, metric, kind
            # Where a component has several routes, each has figures of its own beside those of all.
            yield route.component, f"{metric}.{route.name}", kind


def _tells(metric: Collected, kind: Quality) -> bool:
    return getattr(metric, _FIELDS[kind]) is not None
