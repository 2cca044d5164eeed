"""The small figures of the core: one pure function each, in CPU time, the best of several runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.reconcile.plan import plan_host
from skerry.reconcile.records import ApplicationRecord, InstanceFact, Memory, ReleaseFact, Seen, Target
from skerry.spec.application import Component
from skerry.spec.desired import DESIRED_STATE_TYPE, Assignment, DesiredState, ReleaseRef
from skerry.spec.report import REPORT_TYPE, Report
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.report import verify_report
from tests.bench.figure import Figure

APPLICATIONS = 20
HOSTS = 10


def cpu_us(call: Callable[[], object], *, loops: int = 300, runs: int = 7) -> float:
    """Return the CPU microseconds of one call."""
    best = float("inf")
    for _ in range(runs):
        begun = time.process_time()
        for _ in range(loops):
            call()
        best = min(best, time.process_time() - begun)
    return best / loops * 1e6


def micro_figures() -> Iterator[Figure]:
    """Measure signing, planning and checking."""
    bare = Ed25519PrivateKey.generate()
    message = b"x" * 300
    signature = bare.sign(message)
    public = bare.public_key()
    sign_us, verify_us = cpu_us(lambda: bare.sign(message)), cpu_us(lambda: public.verify(signature, message))

    key = SigningKey.generate()
    desired = a_desired_state()
    value = 1e6 / cpu_us(lambda: sign_document(desired, DESIRED_STATE_TYPE, key))
    of = f"{HOSTS} hosts with {APPLICATIONS} applications each"
    yield Figure("desired_sign_per_s", value, "1/s", f"{of}; bare Ed25519 signature {1e6 / sign_us:,.0f}/s")

    now = datetime.now(UTC)
    report = Report(host="edge-1", site="harbour", sequence=7, sent_at=now, clock=now, generation=3)
    envelope = sign_document(report, REPORT_TYPE, key)
    value = cpu_us(lambda: verify_report(envelope, key.verifier, host="edge-1", site="harbour"))
    yield Figure("report_verify_us", value, "us", f"bare Ed25519 check {verify_us:.0f} us")

    targets, records, seen = a_busy_host()
    memory = plan_host(targets, records, seen, Memory(), now=1.0).memory
    plan = plan_host(targets, records, seen, memory, now=2.0)
    assert not plan.actions
    value = cpu_us(lambda: plan_host(targets, records, seen, memory, now=2.0))
    yield Figure("reconcile_plan_us", value, "us", f"{APPLICATIONS} applications that run, nothing to do")


def a_desired_state() -> DesiredState:
    """Return what a site of some size shall be."""
    now = datetime.now(UTC)
    releases = {
        f"app-{number}@1.0.0": ReleaseRef(digest=digest(number), size_bytes=900) for number in range(20)
    }
    assignments = tuple(
        Assignment(application=name.partition("@")[0], release=name, rollout="first") for name in releases
    )
    return DesiredState(
        site="harbour",
        generation=7,
        issued_at=now,
        expires_at=now + timedelta(days=60),
        hosts={f"edge-{number}": assignments for number in range(HOSTS)},
        releases=releases,
    )


def a_busy_host() -> tuple[dict[str, Target], dict[str, ApplicationRecord], Seen]:
    """Return a host whose applications all run the release they shall run."""
    targets: dict[str, Target] = {}
    records: dict[str, ApplicationRecord] = {}
    releases: dict[str, ReleaseFact] = {}
    instances: dict[str, InstanceFact] = {}
    for number in range(APPLICATIONS):
        name, release = f"app-{number}", f"app-{number}@1.0.0"
        component = Component(name="main", command=("./run",))
        fact = ReleaseFact(release, digest(number), (component,), prepared=True)
        targets[name] = Target(name, release, fact.digest)
        records[name] = ApplicationRecord(name, good=fact.digest)
        releases[fact.digest] = fact
        instances[fact.instance_id(name, "main")] = InstanceFact(
            "running", name, "main", fact.digest, run="100@5", started=True, ready=True
        )
    return targets, records, Seen(instances, releases, frozenset(releases))


def digest(number: int) -> str:
    """Return a digest as text."""
    return f"sha256:{number:064x}"
