"""The hub behind the carrier API: who is believed, what is taken once, who is told what, and when."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.carrier.notifier import Notifier
from skerry.hub.issuing import RENEW_BEFORE, VALID_FOR, Issuer
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Conflict, Denied, SkerryError, Unauthenticated, Untrusted
from skerry.ports.hub_store import Audit, HostRecord, JoinTokenRecord
from skerry.spec.carrier import TIME_TYPE, EnrollAnswer, EnrollRequest, JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.desired import DesiredState
from skerry.spec.metadata import Metadata
from skerry.spec.report import REPORT_TYPE, Event, Report
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.counted_threads import count_threads
from skerry.testing.hub_parts import memory_hub
from skerry.testing.waiting import eventually
from skerry.trust.desired import verify_desired
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey, new_sealing_key
from skerry.trust.tokens import hash_secret

pytestmark = pytest.mark.trust

LONG_S = 600.0


class Member:
    """A host with its keys, and what it signs."""

    def __init__(self, clock: SimulatedClock, name: str = "edge", site: str = "harbour") -> None:
        self.clock = clock
        self.name = name
        self.site = site
        self.key = SigningKey.generate()
        self.seal_key = new_sealing_key()[1]

    def report(self, sequence: int, **changes: Any) -> Report:
        now = self.clock.now()
        report = Report(host=self.name, site=self.site, sequence=sequence, sent_at=now, clock=now)
        return msgspec.structs.replace(report, **changes)

    def signed(self, sequence: int, **changes: Any) -> JsonEnvelope:
        return sign_document(self.report(sequence, **changes), REPORT_TYPE, self.key)

    def request(self, secret: str, **changes: Any) -> EnrollRequest:
        request = EnrollRequest(
            secret=secret,
            host=self.name,
            sign_key=self.key.public,
            seal_key=self.seal_key,
            proof=self.signed(1),
        )
        return msgspec.structs.replace(request, **changes)


class Harbour:
    """A hub with the sites harbour and airport."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.hub: Hub = memory_hub(folder, self.clock)
        self.backend = self.hub.backend
        self.store = self.hub.store
        self.change("harbour")
        self.change("airport")

    @property
    def notifier(self) -> Notifier:
        return self.backend._notifier

    def audit(self) -> Audit:
        return Audit(at=self.clock.now(), who="ann", action="test", subject="something")

    def change(self, site: str, **variables: str) -> None:
        document = Site(metadata=Metadata(name=site), spec=SiteSpec(variables=variables))
        self.store.apply_documents(sites={site: encode_canonical(document)}, rollouts=(), audits=())

    def token(self, secret: str, *, site: str = "harbour", uses: int = 1, ttl_s: float = 3600.0) -> str:
        now = self.clock.now()
        expires_at = now + timedelta(seconds=ttl_s)
        record = JoinTokenRecord(
            hash=hash_secret(secret), site=site, created_at=now, expires_at=expires_at, uses_left=uses
        )
        self.store.add_join_token(record, self.audit())
        return secret

    async def join(self, name: str = "edge", site: str = "harbour") -> Member:
        member = Member(self.clock, name, site)
        await self.backend.enroll(member.request(self.token(f"secret of {name}", site=site)))
        return member

    async def sync(
        self, *envelopes: JsonEnvelope, wait_s: float = 0.0, want_token: bool = False
    ) -> SyncAnswer:
        return await self.backend.sync(SyncRequest(reports=envelopes, wait_s=wait_s, want_token=want_token))

    async def wait(self, member: Member, sequence: int) -> asyncio.Task[SyncAnswer]:
        """Return a long-poll that waits at the hub for news."""
        count_threads()
        generation = (await self.hub.issuer.issued(member.site)).generation
        envelope = member.signed(sequence, generation=generation)
        task = asyncio.create_task(self.sync(envelope, wait_s=LONG_S))

        async def taken() -> bool:
            return self.sequence(member) == sequence

        await eventually(taken)
        await settle()
        assert not task.done()
        return task

    def sequence(self, member: Member) -> int:
        record = self.store.host(member.name)
        assert record is not None
        return record.sequence

    def read(self, answer: SyncAnswer, site: str = "harbour") -> DesiredState:
        assert answer.desired is not None
        keys = [self.hub.keys.key.verifier]
        return verify_desired(answer.desired, keys, site=site, held_generation=0, now=self.clock.now())


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("SYNC-3")
async def test_a_replayed_report_is_acknowledged_and_learns_and_changes_nothing(harbour: Harbour) -> None:
    edge = await harbour.join()
    event = Event(at=harbour.clock.now(), kind="test.happened")
    envelope = edge.signed(10, events=(event,))
    first = await harbour.sync(envelope)
    assert first.acknowledged == 10
    assert first.desired is not None
    assert first.blob_token
    assert await harbour.sync(envelope, want_token=True, wait_s=LONG_S) == SyncAnswer(acknowledged=10)
    older = edge.signed(9, events=(event,))
    assert await harbour.sync(older, want_token=True) == SyncAnswer(acknowledged=10)
    assert [record.event for record in harbour.store.events()] == [event]


@pytest.mark.rule("SYNC-3")
async def test_a_report_is_applied_once_by_a_hub_that_was_restarted(harbour: Harbour) -> None:
    edge = await harbour.join()
    event = Event(at=harbour.clock.now(), kind="test.happened")
    envelope = edge.signed(10, events=(event,))
    await harbour.sync(envelope)
    harbour.backend.forget_host("edge")  # what is at hand goes, what is stored stays
    assert await harbour.sync(envelope) == SyncAnswer(acknowledged=10)
    both = await harbour.sync(envelope, edge.signed(11))
    assert both.acknowledged == 11
    assert len(harbour.store.events()) == 1


async def test_many_reports_at_once_are_all_applied_in_order_and_drops_are_told(harbour: Harbour) -> None:
    edge = await harbour.join()
    now = harbour.clock.now()
    events = [Event(at=now, kind=f"test.{number}") for number in range(4)]
    batch = [edge.signed(number + 2, events=(event,)) for number, event in enumerate(events)]
    answer = await harbour.sync(*batch, edge.signed(9, dropped_events=7))
    assert answer.acknowledged == 9
    kinds = [record.event.kind for record in reversed(harbour.store.events())]
    assert kinds == [*(event.kind for event in events), "events.dropped"]
    assert "7 older events" in harbour.store.events(limit=1)[0].event.message


def altered(envelope: JsonEnvelope) -> JsonEnvelope:
    payload = base64.b64decode(envelope["payload"])
    assert b'"sequence":5' in payload
    return {
        **envelope,
        "payload": base64.b64encode(payload.replace(b'"sequence":5', b'"sequence":6')).decode(),
    }


def claiming(envelope: JsonEnvelope, member: Member) -> JsonEnvelope:
    """Return an envelope that says that somebody else has signed it."""
    return {**envelope, "signatures": [{**envelope["signatures"][0], "keyid": member.key.key_id}]}


Forgery = Callable[[Member, Member], JsonEnvelope]
FORGERIES: dict[str, tuple[Forgery, str]] = {
    "a changed number": (lambda edge, other: altered(edge.signed(5)), "envelope.bad_signature"),
    "another's key": (lambda edge, other: claiming(other.signed(5), edge), "envelope.bad_signature"),
    "another's name": (lambda edge, other: edge.signed(5, host=other.name), "report.wrong_host"),
    "another site": (lambda edge, other: edge.signed(5, site="airport"), "report.wrong_site"),
    "another type": (
        lambda edge, other: sign_document(edge.report(5), TIME_TYPE, edge.key),
        "envelope.wrong_type",
    ),
    "no signature": (lambda edge, other: {**edge.signed(5), "signatures": []}, "envelope.malformed"),
    "no report": (
        lambda edge, other: sign_document(Metadata(name="edge"), REPORT_TYPE, edge.key),
        "document.malformed",
    ),
    "nothing": (lambda edge, other: {}, "envelope.malformed"),
}


@pytest.mark.parametrize(("forge", "code"), tuple(FORGERIES.values()), ids=tuple(FORGERIES))
async def test_a_forged_report_is_refused_and_nothing_that_came_with_it_is_taken(
    harbour: Harbour, forge: Forgery, code: str
) -> None:
    edge, other = await harbour.join(), await harbour.join("other")
    forged = forge(edge, other)
    for reports in ((forged,), (edge.signed(4), forged)):
        with pytest.raises(Untrusted) as caught:
            await harbour.sync(*reports)
        assert caught.value.code == code
    assert [harbour.sequence(member) for member in (edge, other)] == [0, 0]
    assert (await harbour.sync(edge.signed(4))).acknowledged == 4, "and the host itself is heard as before"


@pytest.mark.parametrize(
    "changes",
    (
        {"sequence": 1 << 63},
        {"sequence": 10, "generation": 1 << 63},
        {"sequence": 10, "generation": -1},
        {"sequence": 10, "dropped_events": -1},
        {"sequence": 10, "sent_at": datetime(2026, 1, 1)},  # noqa: DTZ001 (that is the point)
        {"sequence": 10, "clock": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"sequence": 10, "events": (Event(at=datetime(2026, 1, 1), kind="test.happened"),)},  # noqa: DTZ001
    ),
    ids=["a number", "a generation", "a negative one", "a negative count", "sent", "clock", "event"],
)
async def test_numbers_and_instants_that_nothing_can_store_or_compare_are_refused(
    harbour: Harbour, changes: dict[str, Any]
) -> None:
    edge = await harbour.join()
    with pytest.raises(Untrusted, match="not a Report"):
        await harbour.sync(edge.signed(**changes))
    assert harbour.sequence(edge) == 0


async def test_hosts_that_come_at_the_same_time_after_the_hub_restarted_are_all_known(
    harbour: Harbour,
) -> None:
    members = [await harbour.join(f"edge-{number}") for number in range(5)]
    for member in members:
        harbour.backend.forget_host(member.name)  # what is at hand goes, what is stored stays
    answers = await asyncio.gather(*(harbour.sync(member.signed(2)) for member in members))
    assert [answer.acknowledged for answer in answers] == [2] * 5


async def test_an_unknown_key_is_refused_and_makes_the_hub_read_its_hosts_once_a_second(
    harbour: Harbour,
) -> None:
    stranger = Member(harbour.clock)

    async def refused() -> None:
        with pytest.raises(Unauthenticated, match="no host with this key"):
            await harbour.sync(stranger.signed(2))

    await refused()
    # It is enrolled past this process, as by another replica: that is seen at the next reading, not before.
    record = HostRecord(
        name="edge",
        site="harbour",
        sign_key=stranger.key.public,
        seal_key=stranger.seal_key,
        enrolled_at=harbour.clock.now(),
    )
    harbour.store.enroll_host(hash_secret(harbour.token("s")), record, harbour.audit())
    for _ in range(3):
        harbour.clock.advance(0.3)
        await refused()
    harbour.clock.advance(0.2)
    assert (await harbour.sync(stranger.signed(2))).acknowledged == 2


# ── long-polls ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_long_poll_is_woken_by_a_new_desired_state_of_its_own_site_alone(harbour: Harbour) -> None:
    edge, far = await harbour.join(), await harbour.join("far", "airport")
    waiting, elsewhere = await harbour.wait(edge, 2), await harbour.wait(far, 2)
    harbour.change("harbour", greeting="hello")
    assert await harbour.hub.issuer.issue("harbour")
    answer = await asyncio.wait_for(waiting, 10.0)
    assert answer.acknowledged == 2
    assert harbour.read(answer).variables == {"greeting": "hello"}
    assert answer.blob_token
    await settle()
    assert not elsewhere.done()
    harbour.notifier.close()
    await asyncio.wait_for(elsewhere, 10.0)


async def test_a_hub_that_stops_answers_its_long_polls_at_once(harbour: Harbour) -> None:
    edge = await harbour.join()
    waiting = await harbour.wait(edge, 2)
    harbour.notifier.close()
    assert await asyncio.wait_for(waiting, 10.0) == SyncAnswer(acknowledged=2)
    generation = (await harbour.hub.issuer.issued("harbour")).generation
    later = harbour.sync(edge.signed(3, generation=generation), wait_s=LONG_S)
    assert await asyncio.wait_for(later, 10.0) == SyncAnswer(acknowledged=3)


async def test_a_long_poll_that_learns_nothing_ends_in_time_and_a_wrong_clock_does_not_wait(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    generation = (await harbour.hub.issuer.issued("harbour")).generation
    assert await harbour.sync(edge.signed(2, generation=generation), wait_s=0.01) == SyncAnswer(
        acknowledged=2
    )
    wrong = harbour.clock.now() - timedelta(days=9)
    late = harbour.sync(edge.signed(3, generation=generation, sent_at=wrong), wait_s=LONG_S)
    answer = await asyncio.wait_for(late, 10.0)
    assert answer.time is not None


# ── coming and going ─────────────────────────────────────────────────────────────────────────────────────


async def remove(harbour: Harbour, name: str) -> None:
    """Do what the operator API does."""
    harbour.store.remove_host(name, harbour.audit())
    harbour.backend.forget_host(name)
    await harbour.hub.issuer.issue("harbour")


async def test_a_removed_host_is_refused_also_while_it_waits_and_may_join_again(harbour: Harbour) -> None:
    edge, other = await harbour.join(), await harbour.join("other")
    waiting = await harbour.wait(edge, 5)
    await remove(harbour, "edge")
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(waiting, 10.0)
    with pytest.raises(Unauthenticated):
        await harbour.sync(edge.signed(6))
    answer = await harbour.sync(other.signed(2))
    assert set(harbour.read(answer).hosts) == {"other"}
    await harbour.backend.enroll(edge.request(harbour.token("again")))
    assert (await harbour.sync(edge.signed(2))).acknowledged == 2


async def test_a_host_that_was_removed_behind_this_process_is_refused_at_its_next_report(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    harbour.store.remove_host("edge", harbour.audit())
    for sequence in (2, 3):
        with pytest.raises(Unauthenticated):
            await harbour.sync(edge.signed(sequence))


@pytest.mark.rule("TRUST-1")
async def test_the_same_host_may_enrol_again_and_that_uses_nothing_up_and_changes_nothing(
    harbour: Harbour,
) -> None:
    edge, other = Member(harbour.clock), Member(harbour.clock, "other")
    secret = harbour.token("s", uses=2)
    place = EnrollAnswer(site="harbour", host="edge")
    assert await harbour.backend.enroll(edge.request(secret)) == place
    await harbour.sync(edge.signed(7))
    before = await harbour.hub.issuer.issued("harbour")
    for _ in range(3):
        assert await harbour.backend.enroll(edge.request(secret)) == place
    assert await harbour.hub.issuer.issued("harbour") == before
    assert await harbour.sync(edge.signed(7)) == SyncAnswer(acknowledged=7)
    await harbour.backend.enroll(other.request(secret))


@pytest.mark.rule("TRUST-1")
async def test_hosts_that_come_at_the_same_time_cannot_share_the_last_use_of_a_token(
    harbour: Harbour,
) -> None:
    secret = harbour.token("s", uses=2)
    members = [Member(harbour.clock, f"edge-{number}") for number in range(8)]
    enrolments = [harbour.backend.enroll(member.request(secret)) for member in members]
    found = await asyncio.gather(*enrolments, return_exceptions=True)
    refused = [error for error in found if isinstance(error, SkerryError)]
    assert [error.code for error in refused] == ["join.used_up"] * 6
    assert len(harbour.store.hosts()) == 2


@pytest.mark.rule("TRUST-1")
async def test_a_token_that_is_used_up_expired_or_of_another_site_lets_nobody_in(harbour: Harbour) -> None:
    await harbour.join("first")
    used = "secret of first"
    expired = harbour.token("expired", ttl_s=60.0)
    foreign = harbour.token("foreign", site="airport")
    harbour.clock.advance(60.0)
    wanted = {used: "join.used_up", expired: "join.expired", foreign: "join.unknown", "": "join.unknown"}
    for secret, code in wanted.items():
        with pytest.raises(Denied) as caught:
            await harbour.backend.enroll(Member(harbour.clock).request(secret))
        assert caught.value.code == code
    assert [host.name for host in harbour.store.hosts()] == ["first"]


async def test_an_enrolment_needs_the_proof_of_the_very_key_and_host_it_is_for(harbour: Harbour) -> None:
    edge, thief = Member(harbour.clock), Member(harbour.clock, "thief")
    secret = harbour.token("s", uses=9)
    attacks = {
        "envelope.bad_signature": edge.request(
            secret, proof=sign_document(edge.report(1), REPORT_TYPE, thief.key)
        ),
        "report.wrong_host": edge.request(secret, proof=edge.signed(1, host="thief")),
        "key.malformed": edge.request(secret, sign_key="AAAA"),
        "envelope.wrong_type": edge.request(secret, proof=sign_document(edge.report(1), TIME_TYPE, edge.key)),
    }
    for code, request in attacks.items():
        with pytest.raises(Untrusted) as caught:
            await harbour.backend.enroll(request)
        assert caught.value.code == code
    assert harbour.store.hosts() == []
    assert (await harbour.hub.issuer.issued("harbour")).generation == 0


async def test_a_name_that_is_taken_stays_with_its_host(harbour: Harbour) -> None:
    edge = await harbour.join()
    secret = harbour.token("s", uses=9)
    with pytest.raises(Conflict) as caught:
        await harbour.backend.enroll(Member(harbour.clock).request(secret))
    assert caught.value.code == "host.name_taken"
    # The same signing key with another sealing key would have secrets sealed to somebody else.
    with pytest.raises(Conflict):
        await harbour.backend.enroll(edge.request(secret, seal_key=new_sealing_key()[1]))
    assert (await harbour.sync(edge.signed(2))).acknowledged == 2


# ── desired state ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_site_is_told_of_its_own_hosts_and_variables_alone(harbour: Harbour) -> None:
    harbour.change("harbour", greeting="ahoy")
    harbour.change("airport", greeting="hello")
    edge = await harbour.join()
    await harbour.join("other")
    far = await harbour.join("far", "airport")
    near = harbour.read(await harbour.sync(edge.signed(2)))
    assert (set(near.hosts), near.variables) == ({"edge", "other"}, {"greeting": "ahoy"})
    away = harbour.read(await harbour.sync(far.signed(2)), "airport")
    assert (set(away.hosts), away.variables) == ({"far"}, {"greeting": "hello"})


async def test_a_site_that_has_not_changed_is_not_issued_again_and_one_without_hosts_not_at_all(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    held = await harbour.hub.issuer.issued("harbour")
    assert held.generation == 1
    harbour.clock.advance(3600.0)
    assert not await harbour.hub.issuer.issue("harbour")
    await harbour.hub.issuer.renew_all()
    assert await harbour.hub.issuer.issued("harbour") == held
    assert (await harbour.sync(edge.signed(2, generation=1))).desired is None
    assert not await harbour.hub.issuer.issue("airport")
    assert not await harbour.hub.issuer.issue("nowhere")


async def test_an_ageing_desired_state_is_renewed_under_a_higher_generation_also_after_a_restart(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    old = await harbour.hub.issuer.issued("harbour")
    harbour.clock.advance((VALID_FOR - RENEW_BEFORE).total_seconds() + 1.0)
    issuer = Issuer(harbour.store, harbour.hub.keys.key, harbour.clock, harbour.notifier)
    issuer.additions = harbour.hub.issuer.additions
    assert await issuer.issued("harbour") == old
    await issuer.renew_all()
    renewed = await issuer.issued("harbour")
    assert renewed.generation == old.generation + 1
    assert renewed.expires_at == harbour.clock.now() + VALID_FOR
    # The one that did not make it finds out, takes what is there, and gives the number to nothing else.
    assert not await harbour.hub.issuer.issue("harbour")
    assert await harbour.hub.issuer.issued("harbour") == renewed
    desired = harbour.read(await harbour.sync(edge.signed(2, generation=old.generation)))
    assert desired.generation == renewed.generation
