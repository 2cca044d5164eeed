"""What every HubStore keeps of secrets: versions that count up, who they were sealed to, and what was revoked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Conflict, Missing, SkerryError
from skerry.ports.hub_store import HubStore
from skerry.ports.key_encryption import Wrapped
from skerry.ports.secrets import ExposureRecord
from tests.contract.hub_records import HOUR, NOW, audit, secret
from tests.contract.killed import run_and_kill

pytestmark = pytest.mark.secrets


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    yield opened
    opened.close()


def exposure(host: str = "cam-1", name: str = "key", version: int = 1, **more: Any) -> ExposureRecord:
    record = ExposureRecord(
        host=host,
        secret=secret(name, version).id,
        site="berlin",
        name=name,
        version=version,
        sealed_at=NOW,
    )
    return msgspec.structs.replace(record, **more)


def test_versions_come_back_as_they_were_stored_by_name_and_version(store: HubStore) -> None:
    first = secret("key", 1, scope_kind="site", scope_of="berlin", not_before=NOW, expires_at=NOW + HOUR)
    second, other = secret("key", 2, encrypted=bytes(range(256))), secret("door", 1)
    for record in (first, second, other):
        store.add_secret_version(record, audit(record.id))
    assert store.secret_versions() == [other, first, second]
    assert store.secret_versions("key") == [first, second]
    assert store.secret_versions("nothing") == []
    assert [entry.action for entry in store.audits(9)] == [other.id, second.id, first.id]


@pytest.mark.parametrize("version", (1, 3))
def test_a_version_that_is_not_the_next_one_is_refused_and_nothing_is_noted(
    store: HubStore, version: int
) -> None:
    store.add_secret_version(secret("key", 1), audit("first"))
    with pytest.raises(Conflict) as caught:
        store.add_secret_version(secret("key", version, id="f" * 32), audit("other"))
    assert caught.value.code == "secret.moved"
    assert store.secret_versions() == [secret("key", 1)]
    assert [entry.action for entry in store.audits(9)] == ["first"]


def test_of_many_who_store_the_same_version_at_a_time_one_does(store: HubStore) -> None:
    def add(number: int) -> bool:
        try:
            store.add_secret_version(secret("key", 1, id=f"{number:032x}"), audit(str(number)))
        except SkerryError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(16))) == 1
    assert len(store.secret_versions("key")) == len(store.audits(99)) == 1


@pytest.mark.rule("SECRET-4")
def test_a_version_is_revoked_once_and_for_good_and_named_where_it_was_sealed(store: HubStore) -> None:
    for version in (1, 2):
        store.add_secret_version(secret("key", version), audit())
        store.note_exposures([exposure(version=version)])
    store.revoke_secret("key", 1, NOW, audit("revoke"))
    store.revoke_secret("key", 1, NOW + HOUR, audit("again"))
    assert [one.revoked_at for one in store.secret_versions("key")] == [NOW, None]
    assert [entry.action for entry in store.audits(2)] == ["revoke", "test"]
    assert store.revoked_secrets("berlin", 9) == [secret("key", 1).id]
    assert store.revoked_secrets("paris", 9) == []
    with pytest.raises(Missing) as caught:
        store.revoke_secret("key", 3, NOW, audit())
    assert caught.value.code == "secret.missing"


def test_of_what_was_revoked_the_newest_are_named(store: HubStore) -> None:
    for version in range(1, 6):
        store.add_secret_version(secret("key", version), audit())
        store.note_exposures([exposure(version=version), exposure("cam-2", version=version)])
        store.revoke_secret("key", version, NOW + timedelta(hours=version), audit())
    assert store.revoked_secrets("berlin", 2) == sorted(secret("key", version).id for version in (4, 5))


def test_who_could_read_what_is_noted_once_and_outlives_the_secret(store: HubStore) -> None:
    store.add_secret_version(secret("key", 1), audit())
    store.note_exposures([])
    store.note_exposures([exposure(), exposure("cam-2")])
    store.note_exposures([exposure(sealed_at=NOW + HOUR), exposure(name="door")])
    store.remove_secret("key", audit("remove"))
    assert store.exposures("cam-1") == [exposure(name="door"), exposure()]
    assert store.exposures("cam-2") == [exposure("cam-2")]
    assert store.secret_versions() == []
    with pytest.raises(Missing):
        store.remove_secret("key", audit("again"))
    assert [entry.action for entry in store.audits(9)] == ["remove", "test"]


def test_wrapped_keys_are_replaced_and_versions_forgotten_by_id(store: HubStore) -> None:
    for version in (1, 2, 3):
        store.add_secret_version(secret("key", version), audit())
    store.rewrap_secrets({secret("key", 2).id: Wrapped("new", b"again"), "0" * 32: Wrapped("new", b"nobody")})
    store.forget_secret_versions([])
    store.forget_secret_versions([secret("key", 1).id])
    assert store.secret_versions() == [secret("key", 2, key_id="new", wrapped=b"again"), secret("key", 3)]


def test_every_change_has_a_revision_of_its_own_and_reading_has_none(store: HubStore) -> None:
    seen = [store.secrets_revision()]

    def changed() -> bool:
        seen.append(store.secrets_revision())
        return seen[-1] not in seen[:-1]

    for version in (1, 2):
        store.add_secret_version(secret("key", version), audit())
        assert changed()
    store.secret_versions()
    store.note_exposures([exposure()])
    assert not changed()
    store.revoke_secret("key", 1, NOW, audit())
    assert changed()
    store.rewrap_secrets({secret("key", 2).id: Wrapped("new", b"again")})
    assert changed()
    store.forget_secret_versions([secret("key", 1).id])
    assert changed()
    store.remove_secret("key", audit())
    assert changed()


@pytest.mark.parametrize("linger_s", (0.0, 0.1))
def test_a_version_that_was_acknowledged_before_a_kill_is_there_after_it_with_who_could_read_it(
    tmp_path: Path, linger_s: float
) -> None:
    path = tmp_path / "hub.db"
    printed = run_and_kill("secrets", path, lines=20, linger_s=linger_s)
    acknowledged = {what: int(count) for what, count in map(str.split, printed)}
    store = SqlHubStore.open(path)
    versions = store.secret_versions("key")
    assert acknowledged["set"] <= len(versions) <= acknowledged["set"] + 1
    assert versions == [
        secret("key", n, revoked_at=versions[n - 1].revoked_at) for n in range(1, len(versions) + 1)
    ]
    assert len(store.exposures("cam-1")) >= acknowledged["sealed"]
    revoked = [one.version for one in versions if one.revoked_at is not None]
    assert revoked == list(range(1, len(revoked) + 1))
    assert len(revoked) >= acknowledged["revoked"]
    noted = [entry.action for entry in store.audits(1_000_000)]
    assert (noted.count("set"), noted.count("revoke")) == (len(versions), len(revoked))
    store.close()
