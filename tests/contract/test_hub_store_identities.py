"""What every HubStore keeps about who hosts are: sessions, quarantine, keys, and tokens that replace a host."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict, Denied, Missing
from skerry.ports.host_identities import KeysRecord, LineageRecord
from skerry.ports.hub_store import HubStore
from skerry.spec.report import Event
from skerry.trust.cloning import Lineage, Stretch
from tests.contract.hub_records import NOW, audit, host, join_token, populate, report

pytestmark = pytest.mark.trust

EVENT = Event(at=NOW, kind="host.test")
LINEAGE = LineageRecord(
    host="cam-1", lineage=Lineage((Stretch("aaaaaaaa-1", 7), Stretch("bbbbbbbb-2", 9, after=8)))
)
QUARANTINED = msgspec.structs.replace(LINEAGE, quarantined_at=NOW, why="a disk was copied")
KEYS = KeysRecord(host="cam-1", old_key="sign-k1", sign_key="sign-k2", seal_key="seal-k2")


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened)
    yield opened
    opened.close()


def kinds(store: HubStore) -> list[str]:
    return [record.event.kind for record in reversed(store.events(host="cam-1"))]


def test_a_lineage_comes_back_as_it_was_put_last_and_goes_with_its_host(store: HubStore) -> None:
    assert store.lineages() == []
    store.put_lineage(LINEAGE)
    store.put_lineage(QUARANTINED, EVENT, audit("host.quarantine"))
    assert store.lineages() == [QUARANTINED]
    assert kinds(store) == ["host.test"]
    assert store.audits(1)[0].action == "host.quarantine"
    store.remove_host("cam-1", audit())
    assert store.lineages() == []
    with pytest.raises(Missing):
        store.put_lineage(LINEAGE, EVENT, audit("host.quarantine"))
    assert kinds(store) == ["host.test"]


def test_a_quarantine_is_ended_once(store: HubStore) -> None:
    store.put_lineage(LINEAGE)
    with pytest.raises(Conflict, match="not in quarantine"):
        store.readmit_host("cam-1", EVENT, audit())
    assert store.lineages() == [LINEAGE]
    store.put_lineage(QUARANTINED)
    store.readmit_host("cam-1", EVENT, audit("host.readmit"))
    assert store.lineages() == []
    with pytest.raises(Missing):
        store.readmit_host("cam-2", EVENT, audit())
    assert kinds(store) == ["host.test"]


def test_keys_change_only_from_those_that_are_stored(store: HubStore) -> None:
    store.apply_reports([report(5)])
    before = store.host("cam-1")
    assert before is not None
    store.change_keys(KEYS, EVENT, audit("host.change_keys"))
    assert store.host("cam-1") == msgspec.structs.replace(before, sign_key="sign-k2", seal_key="seal-k2")
    with pytest.raises(Conflict, match="changed by somebody else"):
        store.change_keys(KEYS, EVENT, audit("host.change_keys"))
    with pytest.raises(Missing):
        store.change_keys(msgspec.structs.replace(KEYS, host="cam-2"), EVENT, audit())
    assert kinds(store).count("host.test") == 1


def test_of_many_who_change_the_keys_at_a_time_one_succeeds(store: HubStore) -> None:
    def change(number: int) -> bool:
        keys = msgspec.structs.replace(KEYS, sign_key=f"sign-{number}")
        try:
            store.change_keys(keys, EVENT, audit())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(change, range(8)))
    found = store.host("cam-1")
    assert found is not None
    assert [f"sign-{number}" for number, one in enumerate(done) if one] == [found.sign_key]


@pytest.mark.rule("IDENTITY-4")
def test_a_token_that_replaces_a_host_is_for_its_name_and_for_one_use(store: HubStore) -> None:
    token = msgspec.structs.replace(join_token(), hash="replacing", replaces="cam-1")
    store.put_lineage(QUARANTINED)
    store.apply_reports([report(5)])
    store.add_join_token(token, audit())
    store.add_join_token(msgspec.structs.replace(token, hash="another"), audit())
    with pytest.raises(Denied, match="replaces host cam-1"):
        store.enroll_host("replacing", host("cam-2", key="k2"), audit())
    fresh = host(key="k2")
    assert store.enroll_host("replacing", fresh, audit()) == fresh
    assert store.host("cam-1") == fresh
    assert store.lineages() == []
    assert store.enroll_host("replacing", fresh, audit()) == fresh  # again, as after a lost answer
    with pytest.raises(Denied, match="used up"):
        store.enroll_host("replacing", host(key="k3"), audit())
    late = msgspec.structs.replace(host(key="k3"), enrolled_at=NOW + timedelta(days=1))
    with pytest.raises(Denied, match="expired"):
        store.enroll_host("another", late, audit())
    assert store.host("cam-1") == fresh
    assert kinds(store)[-1] == "host.replaced"
