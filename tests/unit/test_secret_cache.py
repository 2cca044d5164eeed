"""What a hub keeps in memory of stored secrets: as they are stored now, read once, and never more than its bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.hub import secret_cache
from skerry.hub.secret_cache import SecretCache
from skerry.ports.secrets import SecretRecord
from tests.contract.hub_records import NOW, audit, secret

pytestmark = pytest.mark.secrets


class CountingStore(SqlHubStore):
    """Counts what is read."""

    reads = 0

    def secret_versions(self, name: str = "") -> Sequence[SecretRecord]:
        self.reads += 1
        return super().secret_versions(name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountingStore]:
    opened = CountingStore.open(tmp_path / "hub.db")
    assert isinstance(opened, CountingStore)
    yield opened
    opened.close()


def test_versions_are_read_once_and_given_to_the_sites_they_may_be_for(store: CountingStore) -> None:
    shared = [secret("key", 1), secret("key", 3, scope_kind="selector", scope_of="a=b")]
    own = secret("key", 2, scope_kind="site", scope_of="berlin")
    for record in (shared[0], own, shared[1]):
        store.add_secret_version(record, audit())
    cache = SecretCache(store)
    for _ in range(3):
        assert list(cache.versions(["key"], "berlin")["key"]) == [shared[0], own, shared[1]]
        assert list(cache.versions(["key", "none"], "paris")["key"]) == shared
    assert store.reads == 2


def test_what_another_replica_stores_or_revokes_is_seen_at_once(store: CountingStore, tmp_path: Path) -> None:
    cache, other = SecretCache(store), SqlHubStore.open(tmp_path / "hub.db")
    assert cache.versions(["key"], "berlin")["key"] == ()
    other.add_secret_version(secret("key", 1), audit())
    assert list(cache.versions(["key"], "berlin")["key"]) == [secret("key", 1)]
    other.revoke_secret("key", 1, NOW, audit())
    assert list(cache.versions(["key"], "berlin")["key"]) == [secret("key", 1, revoked_at=NOW)]
    other.close()


def test_no_more_is_kept_than_the_bound(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_cache, "MAX_BYTES", 5000)
    names = [f"key-{number}" for number in range(8)]
    for name in names:
        store.add_secret_version(secret(name, 1, encrypted=bytes(6000 if name == "key-7" else 1000)), audit())
    cache = SecretCache(store)
    for _ in range(2):
        found = cache.versions(names, "berlin")
        assert [list(found[name]) for name in names] == [list(store.secret_versions(name)) for name in names]
        assert cache.size_bytes <= 5000
