"""What every HubStore keeps of configurations, and of the revisions that rollouts name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict, Missing
from skerry.ports.configurations import ConfigurationChanges, ConfigurationRecord, RevisionRecord
from skerry.ports.hub_store import AssignmentRecord, HubStore
from tests.contract.hub_records import HOUR, NOW, audit, populate, release, rollout

pytestmark = pytest.mark.rollout


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, hosts=())
    yield opened
    opened.close()


def record(name: str, application: str = "camera", document: bytes = b"{}") -> ConfigurationRecord:
    return ConfigurationRecord(
        name=name, application=application, document=document, changed_at=NOW, changed_by="ann"
    )


def revision(name: str, application: str = "camera") -> RevisionRecord:
    return RevisionRecord(application=application, revision=name, documents=b"[]", made_at=NOW)


def put(store: HubStore, **changes: object) -> None:
    store.apply_documents(
        sites={}, rollouts=(), audits=(), configurations=msgspec.convert(changes, ConfigurationChanges)
    )


def test_configurations_are_stored_replaced_and_removed(store: HubStore) -> None:
    put(store, documents=[record("b"), record("a"), record("c", "other")])
    changed = msgspec.structs.replace(record("b", document=b'{"x":1}'), changed_at=NOW + HOUR)
    put(store, documents=[changed])
    assert store.configurations("camera") == [record("a"), changed]
    store.remove_configuration("a", audit("configuration.remove"))
    assert store.configurations() == [changed, record("c", "other")]
    with pytest.raises(Missing) as caught:
        store.remove_configuration("a", audit("again"))
    assert caught.value.code == "configuration.unknown"


def test_configurations_are_stored_with_all_else_or_not_at_all(store: HubStore) -> None:
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    with pytest.raises(Conflict):
        store.apply_documents(
            sites={},
            rollouts=[rollout("r1")],
            audits=(),
            configurations=ConfigurationChanges(documents=[record("a")], revisions=[revision("1")]),
        )
    assert not store.configurations()
    assert store.revision("camera", "1") is None


def test_a_revision_never_changes_and_goes_when_nothing_names_it(store: HubStore) -> None:
    named = rollout("r1")
    application = named.application
    put(store, revisions=[revision("1", application)])
    other = msgspec.structs.replace(revision("1", application), documents=b"[1]")
    put(store, revisions=[other])
    assert store.revision(application, "1") == revision("1", application)
    named = msgspec.structs.replace(named, release=f"{application}@1#2")
    store.apply_documents(
        sites={},
        rollouts=[named],
        audits=(),
        configurations=ConfigurationChanges(revisions=[revision("2", application)]),
    )
    put(store, revisions=[revision("3", application)])
    assert store.revision(application, "1") is None, "nothing named it"
    assert store.revision(application, "2") is not None
    put(store, revisions=[revision("1", "another")])
    assert store.revision(application, "3") is not None, "another application's is no reason"


def test_a_release_is_found_by_the_names_of_its_editions_and_kept_for_them(store: HubStore) -> None:
    made = release()
    store.add_release(made, audit("release.create"))
    assert store.release(f"{made.name}#0123456789ab") == store.release(made.name)
    run = rollout("r1")
    store.apply_documents(sites={}, rollouts=[run], audits=())
    site = store.sites()[0].name
    edition = AssignmentRecord(
        site=site, application=made.application, release=f"{made.name}#0123456789ab", rollout=run.name
    )
    store.advance_rollout(msgspec.structs.replace(run, state="succeeded"), assign=[edition])
    with pytest.raises(Conflict) as caught:
        store.remove_release(made.name, audit("release.remove"))
    assert caught.value.code == "release.in_use"
