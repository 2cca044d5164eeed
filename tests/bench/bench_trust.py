"""What one new release costs a host in metadata, by how many releases its publisher has, and signing for many sites.

The host has followed the publisher before and holds what it then needed. Bytes are those of files, without HTTP. The
releases are put there at once, signed as they would be; the new one is published as publishers do. Summaries name no
models and no evidence, which would add their own bytes to each release. Times are CPU time, of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from skerry.spec.desired import DESIRED_STATE_TYPE
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.publishers import MAX_IN_ROLE, bits_for
from tests.bench.core_micro import HOSTS, a_desired_state
from tests.bench.figure import Figure
from tests.unit.trust_world import FollowingHost, World

SITES = 10_000
COUNTS = (10, MAX_IN_ROLE, 100_000)
RUNS = 7


def figures() -> Iterator[Figure]:
    """Measure a publisher with few releases, as many as fit into one role, and very many."""
    for count in COUNTS:
        yield from figures_of(count)
    yield signing_figure()


def signing_figure() -> Figure:
    """Sign a desired state for each of very many sites."""
    key, desired = SigningKey.generate(), a_desired_state()
    begun = time.process_time()
    for number in range(SITES):
        sign_document(msgspec.structs.replace(desired, generation=number + 1), DESIRED_STATE_TYPE, key)
    signing_s = time.process_time() - begun
    return Figure(
        "desired_sign_10k_s", signing_s, "s", f"{SITES:,} sites of {HOSTS} hosts with 20 applications"
    )


def figures_of(count: int) -> Iterator[Figure]:
    """Publish one more release beside `count - 1`, and let a host that knows those look for it."""
    world = World()
    world.add_publisher("acme")
    names = [f"app-{number % 100}@1.{number}.0" for number in range(count - 1)]
    begun = time.process_time()
    world.fill("acme", names, bits=bits_for(count) if count > MAX_IN_ROLE else 0)
    made_s = time.process_time() - begun
    host = FollowingHost(world)
    assert host.find("acme", names[0])
    kept = dict(host.kept)

    begun = time.process_time()
    signed = world.push("acme", "app-0@2.0.0")
    push_ms = (time.process_time() - begun) * 1e3
    best_ms = float("inf")
    for _ in range(RUNS):
        host.kept = dict(kept)
        begun = time.process_time()
        found = host.find("acme", "app-0@2.0.0")
        best_ms = min(best_ms, (time.process_time() - begun) * 1e3)
        assert found
    asked = list(host.asked)
    sizes = {name: len(world.files.get(name, b"")) for name in asked}
    parts = ", ".join(f"{name.removesuffix('.json')} {size:,} B" for name, size in sizes.items() if size)
    host.refresh()
    yield Figure(
        f"new_release_metadata_bytes_{count}",
        sum(sizes.values()),
        "B",
        f"{len(asked)} requests, one for a root that is not there: {parts}; "
        f"{len(host.asked)} requests when nothing has changed",
    )
    yield Figure(
        f"new_release_verify_ms_{count}",
        best_ms,
        "ms",
        f"host, everything from the pinned root on; signing {len(signed)} role and the hub's check {push_ms:.0f} ms; "
        f"all {count:,} releases are made in {made_s:.1f} s",
    )
