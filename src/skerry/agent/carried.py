"""What a running agent takes of bundles, and gives to be carried back; by files in the directory `carried`.

`skerry agent import` puts the blobs of a bundle among the host's, then what is left of it here: `<id>.bundle` has its
manifest, metadata and desired state. The agent judges that anew, takes it as if its upstream had answered so, and
leaves `<id>.answer`. Before it has the release it is for, `spared.json` says what must not be tidied away.
`reports.request` asks for all that the hub has not acknowledged, which the agent writes as `reports.out`.

Rules: metadata is kept before the desired state that needs it is taken; nothing is gone from here before it was taken;
every step may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.agent.identity import Identity
from skerry.carrier.bundle_file import BundleFile, open_bundle, write_reports
from skerry.carrier.bundle_taking import look_forever, take_waiting
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.ports.clock import Clock
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DesiredState
from skerry.trust.bundle import Judged, Taker, judge_bundle

MAX_SPARED_BYTES = 16 << 20


class Spared(msgspec.Struct, frozen=True):
    """Blobs that came in a bundle, and the releases, by digest, that they are for."""

    generation: int = 0
    blobs: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()


class CarriedParts(msgspec.Struct, frozen=True):
    """What the agent does with what is carried, and what there is to be carried back.

    `take` is given a DesiredState and up to which sequence the hub has this host's reports; `reports` are those that
    it has not acknowledged, a fresh one last.
    """

    identity: Identity
    clock: Clock
    now: Callable[[], datetime]
    desired: Callable[[], DesiredState | None]
    take: Callable[[JsonEnvelope, int], None]
    reports: Callable[[], Sequence[JsonEnvelope]]
    note: Callable[[str, str], None]


class Carried:
    """Takes what was put into the directory, for ever."""

    def __init__(self, data: Path, parts: CarriedParts) -> None:
        self._folder = carried_folder(data)
        self._parts = parts

    async def run_forever(self) -> None:
        """Look for what was carried here, and for who asks for reports, about twice a second."""
        await look_forever(self._parts.clock, self.step)

    async def step(self) -> None:
        """Take what is there.

        Raises:
            Unavailable: the disk is full; what was not taken is tried again.
        """
        await take_waiting(self._folder, self._take)
        request = self._folder / "reports.request"
        if request.exists():
            write_reports(self._folder / "reports.out", self._parts.reports())
            request.unlink(missing_ok=True)

    async def _take(self, file: Path) -> int:
        judged = await asyncio.to_thread(self._judge, file)
        await asyncio.to_thread(self._keep, judged)
        found = judged.manifest.sites[self._parts.identity.place.site]
        host = found.hosts.get(self._parts.identity.place.host)
        self._parts.take(judged.envelope, host.acknowledged if host else 0)
        if judged.fresh:
            self._parts.note("bundle.taken", f"generation {judged.desired.generation} came in a bundle")
        return judged.desired.generation

    def _judge(self, file: Path) -> Judged:
        desired = self._parts.desired()
        with open_bundle(file, prefix=True) as bundle:
            return judge_carried(
                bundle,
                self._parts.identity,
                held_generation=desired.generation if desired else 0,
                now=self._parts.now(),
            )

    def _keep(self, judged: Judged) -> None:
        trust = self._parts.identity.trust
        for keep in judged.keep:
            trust.answer_kept(keep)
        trust.note_root(judged.trusted.root)


def judge_carried(bundle: BundleFile, who: Identity, *, held_generation: int, now: datetime) -> Judged:
    """Return what a host may take of a bundle.

    Raises:
        Untrusted: as `skerry.trust.bundle.judge_bundle`.
    """
    taker = Taker(
        hub=who.trust_root.hub,
        site=who.place.site,
        host=who.place.host,
        pinned=who.trust.pinned,
        kept=who.trust.answer_kept,
        held_generation=held_generation,
        now=now,
    )
    return judge_bundle(bundle.head, bundle.small(), taker)


def carried_folder(data: Path) -> Path:
    """Return the directory of what is carried, below a data directory."""
    return data / "carried"


def spare(data: Path, spared: Spared) -> None:
    """Let these blobs not be tidied away before their releases are known here, with others of the same generation.

    Raises:
        Unavailable: it cannot be written.
    """
    before = _load_spared(data)
    if before.generation == spared.generation:
        spared = Spared(spared.generation, spared.blobs | before.blobs, spared.releases | before.releases)
    write_file(carried_folder(data) / "spared.json", msgspec.json.encode(spared))


def spared_blobs(data: Path, settled: AbstractSet[str]) -> frozenset[str]:
    """Return what came in a bundle and nobody names yet; nothing once all its releases are `settled`."""
    spared = _load_spared(data)
    return frozenset() if spared.releases <= settled else spared.blobs


def _load_spared(data: Path) -> Spared:
    with contextlib.suppress(OSError, *UNREADABLE), (carried_folder(data) / "spared.json").open("rb") as file:
        return msgspec.json.decode(file.read(MAX_SPARED_BYTES), type=Spared)
    return Spared()
