"""The hub's relays: who enrols as one, who is believed to stand behind it, and what it is told to be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from skerry.hub.relays import LATE
from skerry.hub.relays_issuing import RENEW_BEFORE, VALID_FOR, RelayIssuer
from skerry.hub.relays_ways import FORGET_AFTER
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unauthenticated, Untrusted
from skerry.spec.carrier import TIME_TYPE
from skerry.spec.carrying import CarryAnswer
from skerry.spec.metadata import Metadata
from skerry.spec.relay import RELAY_REPORT_TYPE, RelaySpec, RelayView
from skerry.trust.certificates import is_of_key
from skerry.trust.certificates import port_key as read_port_key
from skerry.trust.envelope import sign_document
from skerry.trust.relay import verify_relay_state
from tests.unit.carry_world import Gateway, carried, port_key
from tests.unit.test_hub_backend import Harbour

pytestmark = pytest.mark.trust


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


# ── enrolment ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_relay_enrols_and_gets_its_certificate_and_again_the_same(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    secret = gate.token("secret")
    answer = await harbour.backend.enroll_relay(gate.request(secret))
    state = gate.take(answer.state)
    assert (answer.relay, state.generation, state.spec.addresses[0]) == ("gate", 1, "gate.plant.example:8443")
    certificate = x509.load_pem_x509_certificate(state.certificate_pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["gate.plant.example", "fd00::7"]
    assert is_of_key(state.certificate_pem.encode(), read_port_key(gate.tls_key))
    again = await harbour.backend.enroll_relay(gate.request(secret))
    assert again == answer, "an answer that was lost comes again"
    assert [entry.action for entry in harbour.store.audits(9)].count("relay.enroll") == 1


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown secret": ({"secret": "guessed"}, "join.unknown"),
    "another relay": ({"relay": "other"}, "relay_report.wrong_relay"),
    "no proof": ({"proof": {}}, "envelope.malformed"),
}


@pytest.mark.parametrize(("changes", "code"), tuple(REFUSALS.values()), ids=tuple(REFUSALS))
async def test_who_is_not_the_relay_that_a_token_names_does_not_enrol(
    harbour: Harbour, changes: dict[str, Any], code: str
) -> None:
    gate = Gateway(harbour, "gate")
    secret = gate.token("secret")
    with pytest.raises(SkerryError) as caught:
        await harbour.backend.enroll_relay(gate.request(secret, **changes))
    assert caught.value.code == code
    record = harbour.store.relay("gate")
    assert record is not None
    assert not record.sign_key


async def test_a_proof_of_another_relay_or_without_a_key_of_a_port_is_refused(harbour: Harbour) -> None:
    gate, other = Gateway(harbour, "gate"), Gateway(harbour, "other")
    secret = gate.token("secret")
    stolen = gate.request(secret, relay="other", proof=other.signed(), sign_key=other.key.public)
    with pytest.raises(Denied) as denied:
        await harbour.backend.enroll_relay(stolen)
    assert denied.value.code == "join.unknown"
    bare = gate.request(secret, proof=gate.signed(tls_key=""))
    with pytest.raises(Rejected, match="P-256"):
        await harbour.backend.enroll_relay(bare)


async def test_an_expired_or_used_token_and_one_that_does_not_replace_give_no_relay_away(
    harbour: Harbour,
) -> None:
    gate, thief = Gateway(harbour, "gate"), Gateway(harbour, "gate")
    late = thief.token("late", ttl_s=-1.0)
    with pytest.raises(Denied, match="expired"):
        await harbour.backend.enroll_relay(thief.request(late))
    secret = gate.token("secret")
    await harbour.backend.enroll_relay(gate.request(secret))
    with pytest.raises(Denied, match="used up"):
        await harbour.backend.enroll_relay(thief.request(secret))
    with pytest.raises(Conflict) as caught:
        await harbour.backend.enroll_relay(thief.request(thief.token("second")))
    assert caught.value.code == "relay.enrolled"
    assert harbour.backend.relays.key_of("gate") == gate.key.public


async def test_new_keys_take_the_place_of_old_ones_which_are_refused_from_then_on(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    new = Gateway(harbour, "gate")
    new.generation = gate.generation
    await new.enroll()
    with pytest.raises(Unauthenticated, match="no relay with this key"):
        await gate.carry()
    assert (await new.carry()).acknowledged == new.sequence


async def test_a_relay_that_was_deleted_is_refused_with_its_blob_token(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    token = (await gate.carry(want_token=True)).blob_token
    assert harbour.backend.check_blob_token(token) == "relay:gate"
    harbour.store.remove_relay("gate", harbour.audit())
    harbour.backend.relays.forget("gate")
    with pytest.raises(Denied, match="not enrolled any more"):
        harbour.backend.check_blob_token(token)
    with pytest.raises(Unauthenticated):
        await gate.carry()


# ── who stands behind ────────────────────────────────────────────────────────────────────────────────────


async def test_a_site_is_behind_the_relay_that_its_hosts_signed_word_came_by(harbour: Harbour) -> None:
    gate, other = Gateway(harbour, "gate"), Gateway(harbour, "other")
    await gate.enroll()
    await other.enroll()
    edge = await harbour.join()
    assert (await gate.fresh_state()).sites == {}
    await gate.carry(carried(edge, 5))
    assert (await gate.fresh_state()).sites == {"harbour": {"edge": edge.key.public}}
    assert (await other.fresh_state()).sites == {}
    second = await harbour.join("second")
    assert (await gate.fresh_state()).sites["harbour"]["second"] == second.key.public


async def test_a_recorded_report_draws_nobody_behind_the_relay_that_repeats_it(harbour: Harbour) -> None:
    gate, rogue = Gateway(harbour, "gate"), Gateway(harbour, "rogue")
    await gate.enroll()
    await rogue.enroll()
    edge = await harbour.join()
    recorded = carried(edge, 5)
    await gate.carry(recorded)
    answer = await rogue.carry(recorded, held={"harbour": 0})
    assert (answer.hosts[0].acknowledged, answer.desired) == (5, ())
    assert (await rogue.fresh_state()).sites == {}


async def test_a_relay_below_has_only_who_comes_by_the_relay_above_it(harbour: Harbour) -> None:
    gate, cell = Gateway(harbour, "gate"), Gateway(harbour, "cell")
    await gate.enroll()
    await cell.enroll()
    near, far = await harbour.join("near"), await harbour.join("far", "airport")
    lists = RelayView(hosts={"near": 3, "far": 3, "nobody": 1})
    await gate.carry(carried(near, 5), below=(cell.next(view=lists),))
    assert set((await cell.fresh_state()).sites) == {"harbour"}, "what it claims alone counts for nothing"
    state = await gate.fresh_state()
    assert state.relays == {"cell": cell.key.public}
    assert set(state.sites) == {"harbour"}
    await gate.carry(carried(far, 5))
    assert set((await cell.fresh_state()).sites) == {"airport", "harbour"}


async def test_a_relay_between_has_all_that_the_relay_below_it_has(harbour: Harbour) -> None:
    gate, floor, cell = (Gateway(harbour, name) for name in ("gate", "floor", "cell"))
    for one in (gate, floor, cell):
        await one.enroll()
    edge = await harbour.join()
    below = (
        floor.next(view=RelayView(relays={"cell": 2})),
        cell.next(view=RelayView(hosts={"edge": 1})),
    )
    await gate.carry(carried(edge, 5), below=below)
    for one in (gate, floor, cell):
        assert set((await one.fresh_state()).sites) == {"harbour"}, one.name
    assert set((await gate.fresh_state()).relays) == {"cell", "floor"}
    assert set((await floor.fresh_state()).relays) == {"cell"}
    assert (await cell.fresh_state()).relays == {}


async def test_what_may_come_by_a_second_upstream_is_issued_to_it_beforehand(harbour: Harbour) -> None:
    first, second = Gateway(harbour, "first"), Gateway(harbour, "second")
    cell = Gateway(harbour, "cell", "first", "second")
    for one in (first, second, cell):
        await one.enroll()
    edge = await harbour.join()
    await first.carry(carried(edge, 5), below=(cell.next(view=RelayView(hosts={"edge": 1})),))
    state = await second.fresh_state()
    assert set(state.sites) == {"harbour"}
    assert state.relays == {"cell": cell.key.public}


async def test_ways_survive_a_restart_and_are_forgotten_after_a_month(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    edge = await harbour.join()
    await gate.carry(carried(edge, 5))
    assert [(way.relay, way.name, way.site) for way in harbour.store.host_ways()] == [
        ("gate", "edge", "harbour")
    ]
    fresh = type(harbour.backend.relays.ways)(harbour.store)
    assert fresh.sites(["gate"], harbour.clock.now()) == {"harbour"}
    harbour.clock.advance((FORGET_AFTER - timedelta(hours=2)).total_seconds())
    harbour.backend.relays.ways.trim(harbour.clock.now())
    assert harbour.backend.relays.sites_behind("gate") == {"harbour"}
    harbour.clock.advance(timedelta(hours=4).total_seconds())
    assert harbour.backend.relays.sites_behind("gate") == frozenset()
    harbour.backend.relays.ways.trim(harbour.clock.now())
    assert harbour.store.host_ways() == []


async def test_a_host_that_was_removed_draws_no_site_behind_a_relay(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    edge = await harbour.join()
    await gate.carry(carried(edge, 5))
    harbour.store.remove_host("edge", harbour.audit())
    harbour.backend.forget_host("edge")
    assert (await gate.fresh_state()).sites == {}
    assert harbour.store.host_ways() == []


# ── what a relay says ────────────────────────────────────────────────────────────────────────────────────


async def test_a_report_that_is_repeated_or_forged_is_told_nothing(harbour: Harbour) -> None:
    gate, other = Gateway(harbour, "gate"), Gateway(harbour, "other")
    await gate.enroll()
    await other.enroll()
    edge = await harbour.join()
    await gate.carry(carried(edge, 5))
    gate.sequence -= 1
    again = await gate.carry(held={"harbour": 0}, states={"gate": 0}, want_token=True)
    assert again == CarryAnswer(acknowledged=gate.sequence)
    for envelope, code in (
        (other.next(relay="gate"), "relay_report.wrong_relay"),
        (sign_document(Metadata(name="gate"), RELAY_REPORT_TYPE, gate.key), "document.malformed"),
        (sign_document(gate.report(sequence=99), TIME_TYPE, gate.key), "envelope.wrong_type"),
        ({}, "envelope.malformed"),
    ):
        with pytest.raises(Untrusted) as caught:
            await gate.carry(relay=envelope)
        assert caught.value.code == code


async def test_requests_that_overtook_one_another_are_all_taken_once(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    gate.sequence = 10
    await gate.carry()
    assert gate.sequence == 11
    for number, new in ((9, True), (9, False), (11, False), (8, True)):
        answer = await gate.carry(relay=gate.signed(sequence=number), want_token=True)
        assert (answer.acknowledged, bool(answer.blob_token)) == (11, new), number
    gate.sequence = 11 + LATE
    await gate.carry()
    assert not (await gate.carry(relay=gate.signed(sequence=7), want_token=True)).blob_token


async def test_a_recording_is_told_nothing_by_a_hub_that_was_restarted(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    await gate.carry()
    recorded = gate.next()
    await gate.carry()
    relays = harbour.backend.relays
    relays._by_key.clear()
    answer = await gate.carry(relay=recorded, want_token=True)
    assert answer == CarryAnswer(acknowledged=gate.sequence)


async def test_what_a_relay_says_of_itself_is_stored_with_its_time(harbour: Harbour) -> None:
    gate, cell = Gateway(harbour, "gate"), Gateway(harbour, "cell")
    await gate.enroll()
    await cell.enroll()
    told_at = harbour.clock.now()
    answer = await gate.carry(
        view=RelayView(version="1.2"), below=(cell.next(view=RelayView(trouble="no disk")), {}, gate.signed())
    )
    assert answer.below == {"cell": cell.sequence}
    harbour.clock.advance(60.0)
    await gate.carry()
    record, lower = harbour.store.relay("gate"), harbour.store.relay("cell")
    assert record is not None
    assert lower is not None
    assert (record.view, record.view_at) == (RelayView(version="1.2"), told_at)
    assert record.last_seen_at == harbour.clock.now()
    assert (lower.view, lower.last_seen_at) == (RelayView(trouble="no disk"), told_at)


# ── what a relay shall be ────────────────────────────────────────────────────────────────────────────────


async def test_a_state_is_issued_when_something_changed_and_renewed_before_it_expires(
    harbour: Harbour,
) -> None:
    gate = Gateway(harbour, "gate")
    first = await gate.enroll()
    issuing = harbour.backend.relays.issuing
    assert not await issuing.issue("gate")
    gate.write(RelaySpec(addresses=("moved.plant.example:8443",)))
    await harbour.backend.relays.reload(["gate"])
    moved = await gate.fresh_state()
    assert moved.generation == first.generation + 1
    assert moved.certificate_pem != first.certificate_pem
    gate.tls_key = port_key()
    await gate.carry()
    rekeyed = await gate.fresh_state()
    assert is_of_key(rekeyed.certificate_pem.encode(), read_port_key(gate.tls_key))
    harbour.clock.advance((VALID_FOR - RENEW_BEFORE).total_seconds() - 60.0)
    await issuing.renew_all()
    assert await gate.fresh_state() == rekeyed
    harbour.clock.advance(120.0)
    await issuing.renew_all()
    renewed = await gate.fresh_state()
    assert renewed.generation == rekeyed.generation + 1
    assert renewed.certificate_pem == rekeyed.certificate_pem


@pytest.mark.rule("RELAY-4")
async def test_generations_rise_over_a_restart_a_lost_database_and_what_a_relay_holds(
    harbour: Harbour,
) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    gate.generation = 700  # as of a time that this database does not know
    await gate.carry()
    ahead = await gate.fresh_state()
    assert ahead.generation == 701
    relays = harbour.backend.relays
    relays.issuing = RelayIssuer(
        harbour.store,
        harbour.clock,
        harbour.hub.keys,
        notifier=harbour.notifier,
        topology=relays,
        quarantined=lambda _: False,
    )
    assert not await relays.issuing.issue("gate")
    gate.generation = 1 << 61  # nonsense: it would use up the numbers
    await gate.carry(states={"gate": 701})
    await relays.issuing.issue_marked()
    assert (await relays.issuing.issued("gate")).generation == 701


async def test_hosts_in_quarantine_are_left_out_of_what_a_relay_knows(harbour: Harbour) -> None:
    gate = Gateway(harbour, "gate")
    await gate.enroll()
    edge, other = await harbour.join(), await harbour.join("other")
    await gate.carry(carried(edge, 5), carried(other, 5))
    assert set((await gate.fresh_state()).sites["harbour"]) == {"edge", "other"}
    for number, session, heard in (
        (6, "aaaaaaaa-1", ""),
        (7, "bbbbbbbb-2", ""),
        (8, "aaaaaaaa-1", "bbbbbbbb-2.7"),
        (9, "bbbbbbbb-2", "aaaaaaaa-1.8"),
    ):
        report = edge.signed(number, session=session, heard=heard)
        await gate.carry(carried(edge, reports=(report,)))
    assert harbour.backend.identities.quarantine("edge") is not None
    assert set((await gate.fresh_state()).sites["harbour"]) == {"other"}
    await harbour.backend.readmit("edge", harbour.audit())
    assert set((await gate.fresh_state()).sites["harbour"]) == {"edge", "other"}


@pytest.mark.parametrize(
    ("changes", "code"),
    (
        ({"relay": "other"}, "relay_state.wrong_relay"),
        ({"held_generation": 1}, "relay_state.not_newer"),
        ({"later_s": 61 * 86400.0}, "relay_state.expired"),
        ({"later_s": -600.0}, "relay_state.from_the_future"),
        ({"keys": ()}, "envelope.bad_signature"),
    ),
    ids=lambda value: str(value)[:30],
)
@pytest.mark.rule("RELAY-4")
async def test_a_state_that_is_not_this_relays_newer_and_of_now_is_refused(
    harbour: Harbour, changes: dict[str, Any], code: str
) -> None:
    gate = Gateway(harbour, "gate")
    envelope = (await harbour.backend.enroll_relay(gate.request(gate.token("secret")))).state
    now = harbour.clock.now() + timedelta(seconds=changes.pop("later_s", 0.0))
    asked: dict[str, Any] = {"relay": "gate", "held_generation": 0, "now": now, **changes}
    keys = asked.pop("keys", (harbour.hub.keys.key.verifier,))
    with pytest.raises(Untrusted) as caught:
        verify_relay_state(envelope, keys, **asked)
    assert caught.value.code == code
    assert msgspec.json.encode(envelope)
