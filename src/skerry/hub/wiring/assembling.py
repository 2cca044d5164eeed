"""Puts a hub together."""

from __future__ import annotations

import os
from pathlib import Path

from skerry.adapters.delta_workers import DeltaWorkers
from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.key_file import KeyFile
from skerry.adapters.object_blobs import ObjectBlobs
from skerry.adapters.re2_patterns import Re2Patterns
from skerry.adapters.sink_targets import SinkTargets
from skerry.adapters.system_clock import SystemClock
from skerry.carrier.notifier import Notifier
from skerry.hub.adding import site_additions
from skerry.hub.backend import HubBackend
from skerry.hub.deltas import DeltaLimits, DeltaShelf
from skerry.hub.issuing import Issuer
from skerry.hub.judging import Judge
from skerry.hub.keeping import HubKeys
from skerry.hub.leasing import Leases, replica_name
from skerry.hub.loops.deltas import DeltaLoop
from skerry.hub.loops.rollouts import RolloutLoop
from skerry.hub.loops.sinks import SinkLoop
from skerry.hub.pki_issuing import SiteAuthorities
from skerry.hub.pki_keeping import PkiFile
from skerry.hub.recording import DecisionFiles
from skerry.hub.repository import Repository
from skerry.hub.secret_keeping import SecretKeeper
from skerry.hub.services import Hub
from skerry.ports.hub_store import HubStore

RECORDINGS = "SKERRY_RECORD_DECISIONS"
"""Names a directory into which decisions about rollouts are written, with all that goes into them."""


class Opened:
    """What was opened before the loop began."""

    def __init__(
        self, keys: HubKeys, store: HubStore, clock: SystemClock, deltas: DeltaLimits, *, domain: str
    ) -> None:
        self.domain = domain
        self.keys = keys
        self.store = store
        self.clock = clock
        self.deltas = deltas


def assemble(data: Path, url: str, opened: Opened, notifier: Notifier) -> Hub:
    """Return the parts of a hub, none of which does anything yet."""
    blobs = ObjectBlobs.in_directory(data / "blobs")
    deltas = DeltaShelf(
        opened.store,
        blobs,
        ObjectBlobs.in_directory(data / "deltas"),
        DeltaWorkers(blobs, data / "deltas" / "making"),
        opened.clock,
    )
    deltas.limits = opened.deltas
    issuer = Issuer(opened.store, opened.keys.key, opened.clock, notifier)
    repository = Repository(opened.store, opened.keys, opened.clock)
    backend = HubBackend(opened.store, deltas, repository, opened.clock, issuer=issuer, notifier=notifier)
    keeper = SecretKeeper(opened.store, KeyFile.find(data, os.environ), opened.clock)
    file = PkiFile(data, opened.keys.trust_root.hub, opened.clock.now())
    pki = SiteAuthorities(opened.store, file, opened.clock, domain=opened.domain)
    backend.questions.check_pattern = Re2Patterns().compile
    issuer.additions = site_additions(
        opened.store,
        opened.clock,
        keeper=keeper,
        identities=backend.identities,
        pki=pki,
        questions=backend.questions,
    )
    judge = Judge(opened.store, blobs)
    replica = replica_name(data)
    leases = Leases(opened.store, opened.clock, replica)
    rollouts = RolloutLoop(opened.store, issuer, opened.clock, judge, leases)
    rollouts.fresh = backend.presence.fresh
    if recordings := os.environ.get(RECORDINGS):
        rollouts.recorder = DecisionFiles(Path(recordings))
    rollouts.revoked = repository.why_revoked
    backend.on_news = rollouts.wake
    ahead = DeltaLoop(opened.store, deltas)
    rollouts.on_running = ahead.follow
    make_target = SinkTargets(data / "sinks", opened.clock).make
    sinks = SinkLoop(opened.store, opened.clock, replica, make=make_target, news=backend.wait_for_topics)
    return Hub(
        store=opened.store,
        blobs=blobs,
        deltas=deltas,
        ahead=ahead,
        uploads=DirectoryBlobs(data / "uploads"),
        keys=opened.keys,
        repository=repository,
        clock=opened.clock,
        issuer=issuer,
        backend=backend,
        rollouts=rollouts,
        sinks=sinks,
        judge=judge,
        secrets=keeper,
        pki=pki,
        url=url,
    )
