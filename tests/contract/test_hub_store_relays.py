"""What every HubStore keeps of relays: documents, keys, states, and who comes by whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Bug, Conflict, Denied, Missing
from skerry.ports.hub_store import HubStore
from skerry.ports.relay_records import RelayKeys, RelayRecord, RelaySeen, RelayTokenRecord, Way
from skerry.spec.backup import RestoreMark
from skerry.spec.relay import RelayView
from tests.contract.hub_records import HOUR, NOW, audit, populate

pytestmark = pytest.mark.trust


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened)
    opened.apply_documents(sites={}, rollouts=(), audits=(), relays={"gate": b"{}", "cell": b"{}"})
    yield opened
    opened.close()


def token(name: str = "gate", *, replaces: bool = False) -> RelayTokenRecord:
    suffix = "-new" if replaces else ""
    return RelayTokenRecord(
        hash=f"hash-{name}{suffix}", relay=name, created_at=NOW, expires_at=NOW + HOUR, replaces=replaces
    )


def keys(name: str = "gate", key: str = "k1") -> RelayKeys:
    return RelayKeys(relay=name, sign_key=f"{name}-{key}", tls_key="tls", enrolled_at=NOW)


def enrolled(store: HubStore, name: str = "gate") -> RelayRecord:
    store.add_relay_token(token(name), audit("relay.token"))
    return store.enroll_relay(f"hash-{name}", keys(name), audit("relay.enroll"))


def seen(sequence: int, view: RelayView | None = None) -> RelaySeen:
    return RelaySeen(
        relay="gate",
        sequence=sequence,
        seen_at=NOW + timedelta(seconds=sequence),
        clock_offset_s=1.5,
        generation=3,
        tls_key="",
        view=view,
    )


def test_a_document_is_replaced_and_leaves_what_is_known_of_the_relay(store: HubStore) -> None:
    record = enrolled(store)
    store.issue_relay_state("gate", 1, b"state", NOW, after=0)
    store.apply_documents(sites={}, rollouts=(), audits=(), relays={"gate": b'{"x":1}'})
    changed = msgspec.structs.replace(record, document=b'{"x":1}', generation=1, state_expires_at=NOW)
    assert store.relay("gate") == changed
    assert store.relays() == [RelayRecord(name="cell", document=b"{}"), changed]
    assert store.relay("nobody") is None


def test_a_token_is_used_once_and_by_its_relay_alone(store: HubStore) -> None:
    with pytest.raises(Missing):
        store.add_relay_token(token("nobody"), audit())
    store.add_relay_token(token("cell"), audit())
    for secret, wanted in (("guess", keys()), ("hash-cell", keys())):
        with pytest.raises(Denied) as denied:
            store.enroll_relay(secret, wanted, audit())
        assert denied.value.code == "join.unknown"
    first = enrolled(store)
    assert (first.sign_key, first.sequence, first.view) == ("gate-k1", 0, None)
    assert store.enroll_relay("hash-gate", keys(), audit("again")) == first
    with pytest.raises(Denied, match="used up"):
        store.enroll_relay("hash-gate", keys(key="k2"), audit())
    stolen = msgspec.structs.replace(keys("cell"), sign_key="gate-k1")
    with pytest.raises(Conflict, match="another relay"):
        store.enroll_relay("hash-cell", stolen, audit())
    late = msgspec.structs.replace(keys("cell"), enrolled_at=NOW + 2 * HOUR)
    with pytest.raises(Denied, match="expired"):
        store.enroll_relay("hash-cell", late, audit())
    assert [entry.action for entry in store.audits(9)].count("relay.enroll") == 1


def test_new_keys_take_the_place_of_old_ones_where_the_token_says_so(store: HubStore) -> None:
    enrolled(store)
    store.apply_relay_report(seen(7))
    store.add_relay_token(msgspec.structs.replace(token(), hash="plain"), audit())
    with pytest.raises(Conflict, match="other keys"):
        store.enroll_relay("plain", keys(key="k2"), audit())
    store.add_relay_token(token(replaces=True), audit())
    record = store.enroll_relay("hash-gate-new", keys(key="k2"), audit("relay.enroll"))
    assert (record.sign_key, record.sequence, record.last_seen_at) == ("gate-k2", 0, None)
    assert store.audits(1)[0].action == "relay.replace"


def test_a_report_counts_once_and_an_older_one_not_at_all(store: HubStore) -> None:
    with pytest.raises(Missing):
        store.apply_relay_report(seen(1))
    enrolled(store)
    assert store.apply_relay_report(seen(5, RelayView(version="1"))) == 5
    assert store.apply_relay_report(seen(4, RelayView(version="0"))) == 5
    assert store.apply_relay_report(seen(6)) == 6
    record = store.relay("gate")
    assert record is not None
    assert record.view == RelayView(version="1")
    assert record.view_at == NOW + timedelta(seconds=5)
    assert record.last_seen_at == NOW + timedelta(seconds=6)
    assert (record.tls_key, record.generation_held, record.clock_offset_s) == ("tls", 3, 1.5)


@pytest.mark.rule("RELAY-4")
def test_a_state_follows_on_the_one_before_and_on_no_other(store: HubStore) -> None:
    store.issue_relay_state("gate", 5, b"five", NOW, after=0)
    with pytest.raises(Conflict):
        store.issue_relay_state("gate", 6, b"six", NOW, after=4)
    with pytest.raises(Bug):
        store.issue_relay_state("gate", 5, b"six", NOW, after=5)
    with pytest.raises(Missing):
        store.issue_relay_state("nobody", 1, b"one", NOW, after=0)
    assert store.relay_state("gate") == b"five"
    assert store.relay_state("cell") is None


def test_ways_are_stored_once_raised_and_go_with_who_they_are_of(store: HubStore) -> None:
    host = store.hosts()[0]
    ways = [Way("gate", host.name, NOW), Way("gate", "nobody", NOW), Way("nobody", host.name, NOW)]
    store.put_ways(hosts=ways, relays=[Way("gate", "cell", NOW), Way("gate", "nobody", NOW)])
    store.put_ways(hosts=[Way("gate", host.name, NOW + HOUR)])
    assert store.host_ways() == [Way("gate", host.name, NOW + HOUR, host.site)]
    assert store.relay_ways() == [Way("gate", "cell", NOW)]
    store.trim_ways(NOW + HOUR)
    assert (len(store.host_ways()), store.relay_ways()) == (1, [])
    store.put_ways(relays=[Way("gate", "cell", NOW)])
    store.remove_host(host.name, audit())
    store.remove_relay("cell", audit("relay.remove"))
    assert (store.host_ways(), store.relay_ways()) == ([], [])
    assert [relay.name for relay in store.relays()] == ["gate"]
    with pytest.raises(Missing):
        store.remove_relay("cell", audit())


def test_tokens_of_relays_are_revoked_by_a_restore(store: HubStore) -> None:
    store.add_relay_token(token(), audit())
    mark = RestoreMark(restored_at=NOW, made_at=NOW, base=1)
    before = store.begin_restored(mark, audit(), revoke_tokens=False).join_tokens
    assert before >= 1
    with pytest.raises(Denied):
        store.enroll_relay("hash-gate", keys(), audit())
