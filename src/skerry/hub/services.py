"""What the hub's API and loops share."""

from __future__ import annotations

import msgspec

from skerry.hub.backend import HubBackend
from skerry.hub.deltas import DeltaShelf
from skerry.hub.issuing import Issuer
from skerry.hub.judging import Judge
from skerry.hub.keeping import HubKeys
from skerry.hub.loops.deltas import DeltaLoop
from skerry.hub.loops.rollouts import RolloutLoop
from skerry.hub.loops.sinks import SinkLoop
from skerry.hub.pki_issuing import SiteAuthorities
from skerry.hub.repository import Repository
from skerry.hub.secret_keeping import SecretKeeper
from skerry.ports.blobs import Blobs, LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore


class Hub(msgspec.Struct, frozen=True):
    """The hub's parts. `uploads` keeps blobs that are still arriving; `url` is where hosts find the hub."""

    store: HubStore
    blobs: Blobs
    deltas: DeltaShelf
    ahead: DeltaLoop
    uploads: LocalBlobs
    keys: HubKeys
    repository: Repository
    clock: Clock
    issuer: Issuer
    backend: HubBackend
    rollouts: RolloutLoop
    sinks: SinkLoop
    judge: Judge
    secrets: SecretKeeper
    pki: SiteAuthorities
    url: str
