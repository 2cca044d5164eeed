"""What every HubStore keeps: operators, sites, join tokens, hosts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict, Denied, Missing
from skerry.ports.hub_store import HostRecord, HubStore, JoinTokenRecord, TokenRecord
from skerry.spec.facts import Fact
from tests.contract.hub_records import (
    HOUR,
    NOW,
    audit,
    host,
    join_token,
    observed,
    populate,
    report,
    rollout,
    token,
)


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    yield opened
    opened.close()


def actions(store: HubStore) -> list[str]:
    return [entry.action for entry in reversed(store.audits(1000))]


def test_a_setting_is_none_until_it_is_put_and_can_be_replaced(store: HubStore) -> None:
    assert store.setting("key") is None
    store.put_setting("key", b"one")
    store.put_setting("key", b"\x00two")
    assert store.setting("key") == b"\x00two"


def test_tokens_come_back_as_they_were_stored(store: HubStore) -> None:
    first, second = token("ann", expires_at=NOW + HOUR), token("bob", once=True)
    store.add_token(second, audit("bob's"))
    store.add_token(first, audit("ann's"))
    assert store.tokens() == [first, second]
    assert store.token_by_hash("hash-bob") == second
    assert store.token_by_hash("hash-eve") is None
    assert actions(store) == ["bob's", "ann's"]


def test_a_valid_token_keeps_its_name_and_an_expired_one_gives_it_up(store: HubStore) -> None:
    store.add_token(token("ann", expires_at=NOW + HOUR), audit())
    with pytest.raises(Conflict) as caught:
        store.add_token(
            token("ann", suffix="-2"), audit("too early", at=NOW + HOUR - timedelta(microseconds=1))
        )
    assert caught.value.code == "token.name_taken"
    store.add_token(token("ann", suffix="-3"), audit(at=NOW + HOUR))
    assert [stored.id for stored in store.tokens()] == ["id-ann-3"]
    assert "too early" not in actions(store)


def test_a_removed_token_is_gone_and_an_unknown_one_is_missing(store: HubStore) -> None:
    store.add_token(token("ann"), audit())
    store.remove_token("id-ann", audit("removed"))
    assert store.token_by_hash("hash-ann") is None
    with pytest.raises(Missing):
        store.remove_token("id-ann", audit("again"))
    assert actions(store) == ["test", "removed"]


def test_a_one_time_token_is_exchanged_once(store: HubStore) -> None:
    store.add_token(token("login", once=True), audit())
    session = token("session")
    assert store.exchange_token("hash-login", session, audit("login"))
    assert not store.exchange_token("hash-login", token("session", suffix="-2"), audit("again"))
    assert store.tokens() == [session]
    assert actions(store) == ["test", "login"]


def test_a_lasting_or_expired_or_unknown_token_is_not_exchanged(store: HubStore) -> None:
    stored: list[TokenRecord] = [token("lasting"), token("old", once=True, expires_at=NOW)]
    for one in stored:
        store.add_token(one, audit(at=NOW - HOUR))
    for name in ("lasting", "old", "nobody"):
        assert not store.exchange_token(f"hash-{name}", token("session"), audit())
    assert store.tokens() == stored


def test_one_time_tokens_are_exchanged_once_also_by_many_at_a_time(store: HubStore) -> None:
    store.add_token(token("login", once=True), audit())

    def exchange(number: int) -> bool:
        return store.exchange_token("hash-login", token("session", suffix=str(number)), audit())

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(exchange, range(8))) == 1


def test_the_use_of_a_token_is_noted(store: HubStore) -> None:
    store.add_token(token("ann"), audit())
    store.touch_token("id-ann", NOW + HOUR)
    store.touch_token("id-nobody", NOW)
    assert [stored.last_used_at for stored in store.tokens()] == [NOW + HOUR]


def test_audits_come_newest_first_and_are_trimmed_at_the_old_end(store: HubStore) -> None:
    for number in range(5):
        store.add_audit(msgspec.structs.replace(audit(str(number)), outcome="denied"))
    assert [(entry.action, entry.outcome) for entry in store.audits(2)] == [("4", "denied"), ("3", "denied")]
    store.trim(keep_events=0, keep_audits=3)
    assert actions(store) == ["3", "4", "audit.trim"], "and that is an entry as well"
    store.trim(keep_events=0, keep_audits=0)
    store.add_audit(audit("next"))
    assert [(entry.id, entry.action) for entry in store.audits(9)] == [(8, "next"), (7, "audit.trim")]


def test_documents_are_stored_together_or_not_at_all(store: HubStore) -> None:
    store.apply_documents(
        sites={"a": b"1", "b": b"2"}, rollouts=[rollout("r1")], audits=[audit("x"), audit("y")]
    )
    with pytest.raises(Conflict) as caught:
        store.apply_documents(sites={"a": b"9", "c": b"3"}, rollouts=[rollout("r1")], audits=[audit("z")])
    assert caught.value.code == "rollout.name_taken"
    assert {site.name: site.document for site in store.sites()} == {"a": b"1", "b": b"2"}
    assert actions(store) == ["x", "y"]


def test_a_site_that_is_applied_again_keeps_its_generation_and_desired_state(store: HubStore) -> None:
    populate(store, hosts=())
    store.issue_desired("berlin", 1, b"envelope", NOW + HOUR)
    store.apply_documents(sites={"berlin": b'{"new":1}'}, rollouts=(), audits=())
    site = store.site("berlin")
    assert site is not None
    assert (site.document, site.generation, site.desired) == (b'{"new":1}', 1, b"envelope")
    assert site.desired_expires_at == NOW + HOUR
    assert store.sites() == [msgspec.structs.replace(site, desired=None)]
    assert store.site("nowhere") is None


def test_generations_follow_one_another_without_gaps(store: HubStore) -> None:
    populate(store, hosts=())
    store.issue_desired("berlin", 1, b"one", NOW)
    for wrong in (0, 1, 3):
        with pytest.raises(Conflict):
            store.issue_desired("berlin", wrong, b"wrong", NOW)
    store.issue_desired("berlin", 2, b"two", NOW)
    with pytest.raises(Missing):
        store.issue_desired("nowhere", 1, b"", NOW)
    site = store.site("berlin")
    assert site is not None
    assert (site.generation, site.desired) == (2, b"two")


def test_of_many_who_issue_the_same_generation_one_succeeds(store: HubStore) -> None:
    populate(store, hosts=())

    def issue(number: int) -> bool:
        try:
            store.issue_desired("berlin", 1, b"%d" % number, NOW)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(issue, range(8)))
    site = store.site("berlin")
    assert site is not None
    assert [number for number, mine in enumerate(won) if mine] == [int(site.desired or b"-1")]


def test_a_site_with_hosts_stays_and_one_without_takes_its_tokens_along(store: HubStore) -> None:
    populate(store)
    with pytest.raises(Conflict) as caught:
        store.remove_site("berlin", audit("early"))
    assert caught.value.code == "site.has_hosts"
    store.remove_host("cam-1", audit("host"))
    store.remove_site("berlin", audit("site"))
    with pytest.raises(Missing):
        store.remove_site("berlin", audit("again"))
    store.apply_documents(sites={"berlin": b"{}"}, rollouts=(), audits=())
    with pytest.raises(Denied):
        store.enroll_host("join-berlin", host(), audit())
    assert actions(store)[-2:] == ["host", "site"]


def test_a_join_token_needs_a_site(store: HubStore) -> None:
    with pytest.raises(Missing):
        store.add_join_token(join_token("nowhere"), audit())
    assert actions(store) == []


@pytest.mark.rule("TRUST-1")
def test_a_join_token_enrols_as_many_hosts_as_it_has_uses(store: HubStore) -> None:
    populate(store, hosts=())
    store.add_join_token(join_token(uses=2), audit("token"))
    assert store.enroll_host("join-berlin", host("a"), audit("a")) == host("a")
    store.enroll_host("join-berlin", host("b"), audit("b"))
    with pytest.raises(Denied) as caught:
        store.enroll_host("join-berlin", host("c"), audit("c"))
    assert caught.value.code == "join.used_up"
    assert [stored.name for stored in store.hosts()] == ["a", "b"]
    assert actions(store) == ["token", "a", "b"]


def test_of_many_who_use_a_join_token_at_a_time_only_its_uses_succeed(store: HubStore) -> None:
    populate(store, hosts=())
    store.add_join_token(join_token(uses=3), audit())

    def enrol(number: int) -> bool:
        try:
            store.enroll_host("join-berlin", host(f"h{number}"), audit())
        except Denied:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enrol, range(8))) == 3


@pytest.mark.parametrize(
    ("tokens", "code"),
    (
        ((), "join.unknown"),
        ((join_token("paris"),), "join.unknown"),
        ((join_token(expires_at=NOW),), "join.expired"),
    ),
)
def test_a_join_token_that_does_not_hold_is_denied(
    store: HubStore, tokens: tuple[JoinTokenRecord, ...], code: str
) -> None:
    populate(store, sites=("berlin", "paris"), hosts=())
    for one in tokens:
        store.add_join_token(one, audit())
    with pytest.raises(Denied) as caught:
        store.enroll_host(tokens[0].hash if tokens else "join-guess", host(), audit())
    assert caught.value.code == code
    assert store.hosts() == []


def test_enrolling_the_same_host_again_changes_nothing(store: HubStore) -> None:
    populate(store)  # the token is used up now
    store.apply_reports([report(7)])
    before = store.host("cam-1")
    assert store.enroll_host("join-berlin", host(), audit("again")) == before
    assert store.host("cam-1") == before
    assert "again" not in actions(store)


def test_a_name_belongs_to_the_keys_that_enrolled_with_it(store: HubStore) -> None:
    populate(store, hosts=())
    store.add_join_token(join_token(uses=9), audit())
    store.enroll_host("join-berlin", host(key="k1"), audit())
    with pytest.raises(Conflict) as caught:
        store.enroll_host("join-berlin", host(key="k2"), audit())
    assert caught.value.code == "host.name_taken"
    assert store.host("cam-1") == host(key="k1")


def test_hosts_are_found_by_name_and_by_site(store: HubStore) -> None:
    populate(store, sites=("berlin", "paris"), hosts=("b", "a"))
    store.add_join_token(join_token("paris"), audit())
    full: HostRecord = msgspec.structs.replace(
        host("p", "paris"),
        last_seen_at=NOW,
        generation_held=3,
        clock_offset_s=-0.25,
        observed=observed(3),
        observed_at=NOW - HOUR,
        facts={
            "arch": Fact(value="x86_64", source="uname"),
            "flags": Fact(value=("a", "b"), source="cpuinfo"),
        },
    )
    store.enroll_host("join-paris", full, audit())
    assert store.host("p") == full
    assert store.host("nobody") is None
    assert [stored.name for stored in store.hosts()] == ["a", "b", "p"]
    assert store.hosts("paris") == [full]
    assert store.hosts("nowhere") == []
    with pytest.raises(Missing):
        store.remove_host("nobody", audit())
