"""A hub, relays and hosts in one process: all of them real, but for the network, the clock and the loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.carrier_backend import CarrierBackend
from skerry.ports.clock import Clock
from skerry.ports.relay_store import RelayStore
from skerry.relay.identity import Place, load_identity, make_keys, save_place
from skerry.relay.wiring import Relay as RelayProcess
from skerry.relay.wiring import assemble
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.carrying import RelayEnrollRequest
from skerry.spec.desired import DesiredState
from skerry.spec.relay import RELAY_REPORT_TYPE, RelayReport, RelaySpec
from skerry.spec.report import Event
from skerry.testing.backend_link import BackendLink
from skerry.testing.memory_relay import MemoryRelayStore
from skerry.trust.envelope import sign_document
from tests.unit.carry_world import Gateway
from tests.unit.test_hub_backend import Harbour, Member


class Segment:
    """A relay and its way up. It can be ended and begun again, with or without its disk."""

    def __init__(
        self, harbour: Harbour, folder: Path, name: str, above: CarrierBackend, *upstreams: str
    ) -> None:
        self.harbour = harbour
        self.name = name
        self.data = folder / name
        self.above = above
        self.gateway = Gateway(harbour, name, *upstreams)
        self.store: RelayStore = MemoryRelayStore()
        self.link = BackendLink(above)
        self.clock: Clock = harbour.clock
        self.process: RelayProcess

    def write(self, **spec: Any) -> None:
        """Change the relay's document."""
        self.gateway.write(RelaySpec(addresses=("127.0.0.1:8443",), **spec))

    async def enroll(self) -> None:
        """Enrol the relay at the hub, and begin."""
        self.data.mkdir(parents=True)
        key, tls_key = make_keys(self.data)
        self.gateway.key, self.gateway.tls_key = key, tls_key
        await self.harbour.backend.relays.reload()
        secret = self.gateway.token(f"secret of {self.name}")
        now = self.harbour.clock.now()
        proof = RelayReport(relay=self.name, sequence=1, sent_at=now, clock=now, tls_key=tls_key)
        await self.harbour.backend.enroll_relay(
            RelayEnrollRequest(
                secret=secret,
                relay=self.name,
                sign_key=key.public,
                proof=sign_document(proof, RELAY_REPORT_TYPE, key),
            )
        )
        raw = self.harbour.hub.repository.trust_root("")
        save_place(self.data, Place(self.name, "https://hub.example:8443", digest_of(raw)), raw)
        self.begin()

    def begin(self) -> None:
        """Begin with what is on disk."""
        self.link = BackendLink(self.above)
        self.process = assemble(self.data, load_identity(self.data), self.store, self.link, clock=self.clock)
        self.process.cache.load()

    async def end(self) -> None:
        """End it as a kill does: what is on disk stays."""
        self.link.away = True
        await self.process.cache.close()
        self.process.notifier.close()
        self.process.upward.close()

    @property
    def backend(self) -> CarrierBackend:
        """What hosts and relays below dial."""
        return self.process.backend

    async def poll(self) -> None:
        """Ask for news until there is none."""
        while True:
            before = len(self.link.carries)
            try:
                await self.process.upward.poll(0.0)
            except Unavailable as error:
                if error.code != "relay.old_number":
                    raise
                continue
            _, answer = self.link.carries[before]
            if not (answer.states or answer.desired or answer.more):
                return

    async def hand_up(self) -> None:
        """Hand up all that waits."""
        while True:
            try:
                if not await self.process.upward.hand_up():
                    return
            except Unavailable as error:
                if error.code != "relay.old_number":
                    raise


class World:
    """A hub with a relay, and hosts of the sites harbour and airport that come by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.harbour = Harbour(folder / "hub")
        self.relays: list[Segment] = []

    async def add_relay(self, name: str, above: Segment | None = None) -> Segment:
        """Add a relay below another, or below the hub."""
        upstream = above.backend if above is not None else self.harbour.backend
        names = (above.name,) if above is not None else ()
        segment = Segment(self.harbour, self.folder, name, upstream, *names)
        await segment.enroll()
        self.relays.append(segment)
        return segment

    async def join(self, name: str, segment: Segment, site: str = "harbour") -> Host:
        """Let a host join by a relay, and let all know of it."""
        member = await self.harbour.join(name, site)
        host = Host(member, segment)
        await host.sync()
        await self.settle()
        return host

    async def settle(self) -> None:
        """Let the hub issue what is due, and the relays hear of it, from above downwards, and once more."""
        for _ in range(2):
            for relay in reversed(self.relays):
                await relay.hand_up()
            await self.harbour.backend.relays.issuing.issue_marked()
            for relay in self.relays:
                await relay.poll()

    def events(self, host: str = "") -> list[tuple[str, str]]:
        """Return (host, kind) of all events that the hub has, the oldest first."""
        records = self.harbour.store.events(limit=10_000)
        return [(one.host, one.event.kind) for one in reversed(records) if host in ("", one.host)]

    async def close(self) -> None:
        """End all."""
        for relay in self.relays:
            await relay.end()
        self.harbour.store.close()


class Host:
    """A host that dials a relay, and keeps what it has told until the hub acknowledges it, as hosts do."""

    def __init__(self, member: Member, segment: Segment) -> None:
        self.member = member
        self.segment = segment
        self.sequence = 1
        self.generation = 0
        self.kept: dict[int, JsonEnvelope] = {}
        self.held = 0
        self.keeper = ""
        self.answer = SyncAnswer(acknowledged=0)

    @property
    def name(self) -> str:
        """Its name."""
        return self.member.name

    @property
    def key(self) -> str:
        """The id of the key it signs with."""
        return self.member.key.key_id

    def tell(self, kind: str) -> None:
        """Queue a report with an event."""
        event = Event(at=self.member.clock.now(), kind=kind)
        envelope = self.report(events=(event,))
        self.kept[self.sequence] = envelope

    def report(self, **changes: Any) -> JsonEnvelope:
        """Return a new report; without changes, a heartbeat."""
        after = max(self.kept, default=0)
        self.sequence += 1
        return self.member.signed(self.sequence, **{"generation": self.generation, "after": after, **changes})

    async def sync(self, *fresh: JsonEnvelope, **changes: Any) -> SyncAnswer:
        """Hand over what the keeper does not hold and a fresh report, a heartbeat if none is given; take the answer."""
        queued = [envelope for sequence, envelope in self.kept.items() if sequence > self.held]
        request = SyncRequest(reports=(*queued, *(fresh or (self.report(),))), **changes)
        answer = self.answer = await self.segment.backend.sync(request)
        if answer.desired is not None:
            self.generation = self.read(answer).generation
        for sequence in [one for one in self.kept if one <= answer.acknowledged]:
            del self.kept[sequence]
        self.held = answer.held if answer.keeper == self.keeper and not answer.tell_all else 0
        self.keeper = answer.keeper
        return answer

    def read(self, answer: SyncAnswer) -> DesiredState:
        """Return the verified state of an answer."""
        return self.segment.harbour.read(answer, self.member.site)
