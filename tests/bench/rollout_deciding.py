"""How long one decision takes over large fleets: the first, which draws the waves, and one in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import Amount, HostFact, RolloutFact, SiteFact, WavePlan
from tests.bench.figure import Figure

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
WAVES = (
    WavePlan("canary", size=Amount(share=0.01)),
    WavePlan("early", size=Amount(share=0.1), max_in_flight=Amount(share=0.5)),
    WavePlan("rest", max_in_flight=Amount(share=0.25)),
)
REPEATS = 5


def figures() -> Iterator[Figure]:
    """Measure decisions over 10,000 and 100,000 sites of one host each."""
    for name, sites in (("10k", 10_000), ("100k", 100_000)):
        first_s, middle_s = _decide(sites)
        goal = "50" if sites == 10_000 else "1,000"
        note = f"goal {goal}; the first, which draws the waves: {first_s * 1000:.0f} ms"
        yield Figure(f"decide_{name}_sites_ms", middle_s * 1000, "ms", note)


def _decide(sites: int) -> tuple[float, float]:
    """Return CPU seconds of the first decision and the least of some in the middle of the rollout."""
    hosts = [HostFact(f"h-{n}", holds_offer=True, running="reader@1", as_of=NOW) for n in range(sites)]
    fleet = [SiteFact(f"site-{n:06}", (host,), "reader@1", "first") for n, host in enumerate(hosts)]
    rollout = RolloutFact(name="second", release="reader@2", waves=WAVES)
    begun = time.process_time()
    first = decide_rollout(rollout, fleet, now=NOW)
    first_s = time.process_time() - begun
    under_way = msgspec.structs.replace(rollout, sites=first.sites, progress=first.waves)
    offered = {effect.site for effect in first.effects}
    later = [
        msgspec.structs.replace(site, assigned="reader@2", assigned_by="second")
        if site.name in offered
        else site
        for site in fleet
    ]
    middle_s = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        decide_rollout(under_way, later, now=NOW)
        middle_s = min(middle_s, time.process_time() - begun)
    return first_s, middle_s
