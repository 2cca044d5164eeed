"""What every HubStore keeps about hosts' intermediates: revoked with their host, known after it has gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.ports.authorities import AuthorityRecord
from skerry.ports.hub_store import HubStore
from tests.contract.hub_records import NOW, audit, host, join_token, populate

pytestmark = pytest.mark.trust

ONE = AuthorityRecord(
    serial="01",
    host="cam-1",
    site="berlin",
    key="ab" * 32,
    issuer="cd" * 32,
    chain="chain",
    issued_at=NOW,
    not_after=NOW + timedelta(days=360),
)
LATER = msgspec.structs.replace(ONE, serial="00", issued_at=NOW + timedelta(days=1))
ELSEWHERE = msgspec.structs.replace(ONE, serial="02", host="cam-9", site="paris")


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened)
    yield opened
    opened.close()


def test_intermediates_come_back_by_host_and_age_and_each_is_stored_once(store: HubStore) -> None:
    for record in (LATER, ELSEWHERE, ONE, msgspec.structs.replace(ONE, host="cam-9")):
        store.add_authority(record)
    assert store.authorities() == [ONE, LATER, ELSEWHERE]
    assert store.authorities("berlin") == [ONE, LATER]
    store.forget_authorities(ONE.not_after)
    assert len(store.authorities()) == 3
    store.forget_authorities(ONE.not_after + timedelta(microseconds=1))
    assert store.authorities() == []


@pytest.mark.rule("PKI-3")
def test_they_are_revoked_in_the_transaction_that_removes_or_replaces_their_host(store: HubStore) -> None:
    for record in (ONE, ELSEWHERE):
        store.add_authority(record)
    removed = NOW + timedelta(hours=1)
    store.remove_host("cam-1", audit(at=removed))
    assert [one.revoked_at for one in store.authorities()] == [removed, None]
    store.add_join_token(msgspec.structs.replace(join_token(), hash="again"), audit())
    store.enroll_host("again", host("cam-1"), audit())
    store.add_authority(LATER)
    token = msgspec.structs.replace(join_token(), hash="other", replaces="cam-1")
    store.add_join_token(token, audit())
    machine = msgspec.structs.replace(host("cam-1"), sign_key="another", seal_key="another")
    store.enroll_host("other", machine, audit())
    assert [one.revoked_at for one in store.authorities("berlin")] == [removed, machine.enrolled_at]
