"""What every HubStore keeps of wipes: a count per site and application that only ever rises."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from skerry.adapters.sql import migrations
from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Missing
from skerry.ports.hub_store import AssignmentRecord, HubStore
from tests.contract.hub_records import audit, populate, rollout
from tests.contract.killed import run_and_kill


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, sites=("berlin", "paris"), hosts=())
    opened.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    opened.advance_rollout(rollout("r1"), assign=[assign("berlin"), assign("paris"), assign("berlin", "tap")])
    yield opened
    opened.close()


def assign(site: str = "berlin", application: str = "meter", version: str = "1") -> AssignmentRecord:
    return AssignmentRecord(
        site=site, application=application, release=f"{application}@{version}", rollout="r1"
    )


def test_each_wipe_raises_the_count_of_one_application_at_one_site_by_one(store: HubStore) -> None:
    assert store.wipes("berlin") == {}
    assert [store.wipe_volumes("berlin", "meter", audit(f"wipe {n}")) for n in (1, 2, 3)] == [1, 2, 3]
    assert store.wipe_volumes("paris", "meter", audit("elsewhere")) == 1
    assert store.wipes("berlin") == {"meter": 3}
    assert store.wipes("paris") == {"meter": 1}
    assert store.wipes("atlantis") == {}
    assert [entry.action for entry in store.audits(9)] == ["elsewhere", "wipe 3", "wipe 2", "wipe 1"]


@pytest.mark.parametrize(
    ("site", "application", "code"),
    (("atlantis", "meter", "site.unknown"), ("paris", "tap", "assignment.unknown")),
)
def test_what_is_not_assigned_is_not_wiped_and_nothing_is_noted(
    store: HubStore, site: str, application: str, code: str
) -> None:
    with pytest.raises(Missing) as caught:
        store.wipe_volumes(site, application, audit("early"))
    assert caught.value.code == code
    assert store.wipes(site) == {}
    assert store.audits(9) == []


def test_a_count_outlives_new_rollouts_the_end_of_the_assignment_and_its_site(store: HubStore) -> None:
    store.wipe_volumes("berlin", "meter", audit())
    store.wipe_volumes("berlin", "meter", audit())
    store.advance_rollout(
        msgspec.structs.replace(rollout("r1"), version=1), assign=[assign("berlin", version="2")]
    )
    assert store.wipes("berlin") == {"meter": 2}
    store.advance_rollout(msgspec.structs.replace(rollout("r1"), version=2), unassign=[("berlin", "meter")])
    with pytest.raises(Missing):
        store.wipe_volumes("berlin", "meter", audit())
    assert store.wipes("berlin") == {"meter": 2}
    store.advance_rollout(msgspec.structs.replace(rollout("r1"), version=3), assign=[assign("berlin")])
    assert store.wipe_volumes("berlin", "meter", audit()) == 3

    store.remove_site("berlin", audit())
    populate(store, hosts=())
    store.advance_rollout(msgspec.structs.replace(rollout("r1"), version=4), assign=[assign("berlin")])
    assert store.wipe_volumes("berlin", "meter", audit()) == 4, "hosts remember, so it never begins anew"


def test_of_many_who_wipe_at_a_time_each_gets_a_count_of_its_own(store: HubStore) -> None:
    def wipe(number: int) -> int:
        return store.wipe_volumes("berlin", "meter", audit(str(number)))

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(wipe, range(24)))
    assert sorted(counts) == list(range(1, 25))


@pytest.mark.parametrize("linger_s", (0.0, 0.1))
def test_a_wipe_that_was_acknowledged_before_a_kill_is_counted_and_noted_after_it(
    tmp_path: Path, linger_s: float
) -> None:
    path = tmp_path / "hub.db"
    acknowledged: dict[str, int] = defaultdict(int)
    for line in run_and_kill("wipes", path, lines=20, linger_s=linger_s):
        application, count = line.split()
        acknowledged[application] = int(count)
    store = SqlHubStore.open(path)
    stored = store.wipes("berlin")
    for application, told in acknowledged.items():
        assert told <= stored[application] <= told + 1
    noted = [entry for entry in store.audits(1_000_000) if entry.action == "wipe"]
    assert len(noted) == sum(stored.values()), "a wipe and its audit entry go together"
    store.close()


def test_a_database_of_the_first_version_is_taken_over_with_everything_in_it(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    engine = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=StaticPool
    )
    with engine.begin() as connection:
        migrations.take_steps(connection, "0001")
    engine.dispose()
    old = sqlite3.connect(path)
    old.execute("INSERT INTO sites (name, generation, document) VALUES ('berlin', 7, x'7b7d')")
    old.execute("INSERT INTO assignments VALUES ('berlin', 'meter', 'meter@1', 'r1', 2)")
    old.execute(
        "INSERT INTO audits (at, who, action, subject, outcome) VALUES (1, 'ann', 'old', 's', 'done')"
    )
    old.commit()
    assert old.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    old.close()

    for count in (1, 2):  # the second opening finds the newest version
        store = SqlHubStore.open(path)
        found = store.site("berlin")
        assert found is not None
        assert (found.generation, found.document) == (7, b"{}")
        assert store.assignments() == [msgspec.structs.replace(assign(), attempt=2)]
        assert store.wipe_volumes("berlin", "meter", audit("wiped")) == count
        assert [entry.action for entry in store.audits(9)] == ["wiped"] * count + ["old"]
        store.close()
