"""A hub without a network: every part real, the database and the whole blobs in memory."""

from __future__ import annotations

from pathlib import Path

from skerry.adapters.delta_workers import DeltaWorkers
from skerry.adapters.key_file import KeyFile
from skerry.adapters.re2_patterns import Re2Patterns
from skerry.adapters.sql.store import SqlHubStore
from skerry.carrier.notifier import Notifier
from skerry.hub.adding import site_additions
from skerry.hub.backend import HubBackend
from skerry.hub.deltas import DeltaShelf
from skerry.hub.issuing import Issuer
from skerry.hub.judging import Judge
from skerry.hub.keeping import HubKeys, open_keys
from skerry.hub.leasing import Leases
from skerry.hub.loops.deltas import DeltaLoop
from skerry.hub.loops.rollouts import RolloutLoop
from skerry.hub.loops.sinks import SinkLoop
from skerry.hub.pki_issuing import SiteAuthorities
from skerry.hub.pki_keeping import PkiFile
from skerry.hub.repository import Repository
from skerry.hub.secret_keeping import SecretKeeper
from skerry.hub.services import Hub
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryBlobs, MemoryLocalBlobs
from skerry.testing.memory_sink import MemorySinks


def memory_hub(
    folder: Path,
    clock: Clock | None = None,
    *,
    keys: HubKeys | None = None,
    store: HubStore | None = None,
    replica: str = "hub",
) -> Hub:
    """Return the parts of a hub; must be called where an event loop runs if its loops are to be run.

    Hubs with the same `keys` on one `store` are replicas of each other, if they have different names.
    """
    clock = clock or SimulatedClock()
    keys = keys or open_keys(folder / "keys", clock.now())
    store = store or SqlHubStore.open(None)
    notifier, blobs = Notifier(), MemoryBlobs()
    deltas = DeltaShelf(store, blobs, MemoryBlobs(), DeltaWorkers(blobs, folder / "making", level=1), clock)
    issuer = Issuer(store, keys.key, clock, notifier)
    repository = Repository(store, keys, clock)
    backend = HubBackend(store, deltas, repository, clock, issuer=issuer, notifier=notifier)
    keeper = SecretKeeper(store, KeyFile.find(folder / "keys", {}), clock)
    pki = SiteAuthorities(store, PkiFile(keys.data, keys.trust_root.hub, clock.now()), clock)
    backend.questions.check_pattern = Re2Patterns().compile
    issuer.additions = site_additions(
        store, clock, keeper=keeper, identities=backend.identities, pki=pki, questions=backend.questions
    )
    judge = Judge(store, blobs)
    rollouts = RolloutLoop(store, issuer, clock, judge, Leases(store, clock, replica))
    rollouts.fresh = backend.presence.fresh
    rollouts.revoked = repository.why_revoked
    backend.on_news = rollouts.wake
    ahead = DeltaLoop(store, deltas)
    rollouts.on_running = ahead.follow
    sinks = SinkLoop(store, clock, replica, make=MemorySinks().make, news=backend.wait_for_topics)
    return Hub(
        store=store,
        blobs=blobs,
        deltas=deltas,
        ahead=ahead,
        uploads=MemoryLocalBlobs(folder / "uploads"),
        keys=keys,
        repository=repository,
        clock=clock,
        issuer=issuer,
        backend=backend,
        rollouts=rollouts,
        sinks=sinks,
        judge=judge,
        secrets=keeper,
        pki=pki,
        url="https://hub.example:8443",
    )
