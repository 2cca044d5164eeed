"""What every HubStore keeps: policies by name, the evidence of releases, and the overrides of rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.snapshot import look_at
from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Missing
from skerry.ports.hub_store import HubStore
from skerry.ports.policies import PolicyRecord
from skerry.spec.evidence import Evidence
from skerry.spec.overriding import Failure, Override
from tests.contract.hub_records import HOUR, NOW, audit, populate, release, rollout
from tests.unit.matching_world import release as application_release

pytestmark = pytest.mark.trust

SBOM = Evidence(
    kind="sbom", format="spdx-2.3", digest=digest_of(b"sbom"), size_bytes=4, summary={"components": 3}
)
CARD = Evidence(kind="model-card", format="markdown", digest=digest_of(b"card"), size_bytes=5)
OVERRIDE = Override(
    who="ann", at=NOW, reason="urgent", failures=(Failure(policy="p", requirement="sbom", why="none"),)
)


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, hosts=())
    yield opened
    opened.close()


def policy(name: str = "production", document: bytes = b"{}") -> PolicyRecord:
    return PolicyRecord(name=name, document=document, changed_at=NOW, changed_by="ann")


def test_policies_are_stored_replaced_and_removed(store: HubStore) -> None:
    store.apply_documents(sites={}, rollouts=(), audits=(), fleetwide=[policy("b"), policy("a")])
    changed = msgspec.structs.replace(policy("b", b'{"x":1}'), changed_at=NOW + HOUR)
    store.apply_documents(sites={}, rollouts=(), audits=[audit("policy.update")], fleetwide=[changed])
    assert store.policies() == [policy("a"), changed]
    store.remove_policy("a", audit("policy.remove"))
    assert store.policies() == [changed]
    with pytest.raises(Missing) as caught:
        store.remove_policy("a", audit("again"))
    assert caught.value.code == "policy.unknown"
    assert [entry.action for entry in store.audits(9)] == ["policy.remove", "policy.update"]


def test_policies_are_stored_with_all_else_or_not_at_all(store: HubStore) -> None:
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    with pytest.raises(Conflict):
        store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=(), fleetwide=[policy()])
    assert store.policies() == []


def test_a_release_has_its_evidence_in_order_and_takes_it_along(store: HubStore) -> None:
    first = msgspec.structs.replace(release("1"), evidence=(SBOM, CARD))
    assert store.add_release(first, audit("added"))
    assert store.add_release(release("2", content=b"2"), audit("added"))
    assert store.release("meter@1") == first
    assert [found.evidence for found in store.releases()] == [(SBOM, CARD), ()]
    store.remove_release("meter@1", audit("removed"))
    assert store.add_release(release("1"), audit("added"))
    assert store.releases()[0].evidence == ()


def test_evidence_that_comes_later_takes_the_place_of_what_was(store: HubStore) -> None:
    store.add_release(msgspec.structs.replace(release("1"), evidence=(SBOM,)), audit("added"))
    again = msgspec.structs.replace(release("1"), evidence=(SBOM, CARD), created_by="bob")
    assert not store.add_release(again, audit("added"))
    assert not store.add_release(again, audit("added"))
    stored = store.release("meter@1")
    assert stored is not None
    assert (stored.evidence, stored.created_by) == ((SBOM, CARD), "ann")
    assert [entry.action for entry in store.audits(9)] == ["release.evidence", "added"]


def test_an_override_stays_with_its_rollout(store: HubStore) -> None:
    began = msgspec.structs.replace(rollout("r1"), override=OVERRIDE)
    store.apply_documents(sites={}, rollouts=[began, rollout("r2")], audits=())
    assert [found.override for found in store.rollouts()] == [OVERRIDE, None]
    store.advance_rollout(msgspec.structs.replace(began, state="succeeded", ended_at=NOW))
    ended = store.rollout("r1")
    assert ended is not None
    assert (ended.state, ended.override) == ("succeeded", OVERRIDE)
    store.remove_rollout("r1", audit())
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    assert [found.override for found in store.rollouts(running_only=True)] == [None, None]


def test_a_look_at_the_database_counts_the_files_of_evidence(tmp_path: Path) -> None:
    store = SqlHubStore.open(tmp_path / "hub.db")
    made = application_release()
    found = msgspec.structs.replace(release("1", content=encode_canonical(made)), evidence=(SBOM,))
    store.add_release(found, audit())
    store.close()
    assert look_at(tmp_path / "hub.db").files == {
        SBOM.digest: 4,
        **{str(file.digest): file.size_bytes for file in made.files()},
    }
