"""What clients saw of routes, and what came of copied requests: from two looks at counters to figures for gates."""

from __future__ import annotations

from skerry.agent.services.ingress_figures import figures_between, shadows_between
from skerry.ports.proxy import SHADOWED, Counts, ShadowCounts
from skerry.spec.metrics import Histogram, Rate


def test_what_happened_between_two_looks_goes_to_the_release_that_answered() -> None:
    owners = {"k": ("reader", "reader@1", "web", "main")}
    before = {"k": Counts("1", 10, 1, 100, 1000, {5.0: 9, float("inf"): 10})}
    after = {"k": Counts("1", 14, 2, 150, 1500, {5.0: 12, float("inf"): 14}), "stranger": Counts("1", 5)}
    found = dict(figures_between(before, after, owners))
    assert {series.metric for series in found} == {"ingress_errors", "ingress_latency_ms", "ingress_bytes"}
    assert {series.release for series in found} == {"reader@1"}
    values = {series.metric: value for series, value in found.items()}
    assert values["ingress_errors"] == Rate(bad=1, total=4)
    assert values["ingress_bytes"] == Rate(bad=50, total=550)
    latency = values["ingress_latency_ms"]
    assert isinstance(latency, Histogram)
    assert sum(latency.counts) == 4


def test_a_proxy_that_began_anew_counts_from_nothing() -> None:
    owners = {"k": ("reader", "reader@1", "web", "main")}
    found = {s.metric: v for s, v in figures_between({"k": Counts("1", 10)}, {"k": Counts("2", 3)}, owners)}
    assert found["ingress_errors"] == Rate(bad=0, total=3)


def test_routes_of_one_component_are_told_together_and_each_for_itself() -> None:
    owners = {"a": ("reader", "reader@1", "web", "main"), "b": ("reader", "reader@1", "web", "deep")}
    found = list(figures_between({}, {"a": Counts("1", 2), "b": Counts("1", 3)}, owners))
    errors = sorted((s.metric, v.total) for s, v in found if isinstance(v, Rate) and "errors" in s.metric)
    assert errors == [
        ("ingress_errors", 2), ("ingress_errors", 3), ("ingress_errors.deep", 3), ("ingress_errors.main", 2),
    ]  # fmt: skip


def test_what_came_of_copies_goes_to_the_release_on_trial_and_its_latency_to_both() -> None:
    owners = {f"k{number}": ("reader", f"reader@{number}", "web", "main") for number in (1, 2)}
    owners[f"k1{SHADOWED}"] = owners["k1"]
    before = {"k2": ShadowCounts("r", "k1", 10, 0, 10, 1, 0, {float("inf"): 10}, {float("inf"): 10})}
    after = {
        "k2": ShadowCounts("r", "k1", 20, 2, 18, 4, 1, {5.0: 7, float("inf"): 17}, {float("inf"): 18}),
        "stranger": ShadowCounts("r", "k9", 5, 5),
    }
    found = {(s.release, s.metric): v for s, v in shadows_between(before, after, owners)}
    assert found["reader@2", "shadow_disagreement"] == Rate(bad=3, total=8)
    assert found["reader@2", "shadow_errors"] == Rate(bad=1, total=8)
    assert found["reader@2", "shadow_uncompared"] == Rate(bad=2, total=10)
    latencies = [found[f"reader@{number}", "shadow_latency_ms"] for number in (1, 2)]
    assert [one.total for one in latencies if isinstance(one, Histogram)] == [8, 7]
    assert len(found) == 5
    # What compares and began anew counts from nothing; so does another pair of the same release.
    anew = {"k2": ShadowCounts("s", "k1", 3, 0, 3, 1)}
    again = {s.metric: v for s, v in shadows_between(after, anew, owners)}
    assert again["shadow_disagreement"] == Rate(bad=1, total=3)
