"""The stored versions of secrets, kept in memory as they are stored: a fleet's sites ask for the same ones.

Every use asks the store first whether anything has changed since, so that what another replica stores is seen at
once. What is kept is as encrypted as in the database, and bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

import msgspec

from skerry.ports.secrets import SecretRecord, Secrets

MAX_BYTES = 64 << 20
_ROW_BYTES = 1024
"""What a row takes in memory beside its ciphertexts, with room to spare."""


class _Versions(msgspec.Struct, frozen=True):
    """The versions of one name: those for any site, and those for one site alone."""

    shared: tuple[SecretRecord, ...]
    own: Mapping[str, tuple[SecretRecord, ...]]
    size_bytes: int

    def at(self, site: str) -> tuple[SecretRecord, ...]:
        """Return those that may be for a site, by version."""
        own = self.own.get(site)
        return tuple(sorted((*self.shared, *own), key=attrgetter("version"))) if own else self.shared


class SecretCache:
    """Usable from any number of threads."""

    def __init__(self, store: Secrets) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._revision = ""
        self._held: dict[str, _Versions] = {}
        self.size_bytes = 0

    def versions(self, names: Collection[str], site: str) -> dict[str, Sequence[SecretRecord]]:
        """Return the versions of these secrets, by name, without those that are for another site alone."""
        # Read before the rows: rows that are newer than it are read once more, and older ones never kept.
        revision = self._store.secrets_revision()
        found: dict[str, Sequence[SecretRecord]] = {}
        for name in names:
            with self._lock:
                if revision != self._revision:
                    self._revision, self._held, self.size_bytes = revision, {}, 0
                held = self._held.get(name)
            if held is None:
                held = _sorted(self._store.secret_versions(name))
                self._keep(name, held, revision)
            found[name] = held.at(site)
        return found

    def _keep(self, name: str, held: _Versions, revision: str) -> None:
        with self._lock:
            if revision != self._revision:
                return
            if self.size_bytes + held.size_bytes > MAX_BYTES:
                self._held, self.size_bytes = {}, 0
            if name not in self._held and held.size_bytes <= MAX_BYTES:
                self._held[name] = held
                self.size_bytes += held.size_bytes


def _sorted(records: Sequence[SecretRecord]) -> _Versions:
    own: dict[str, list[SecretRecord]] = {}
    for one in records:
        if one.scope_kind == "site":
            own.setdefault(one.scope_of, []).append(one)
    size = sum(_ROW_BYTES + len(one.wrapped) + len(one.encrypted) for one in records)
    shared = tuple(one for one in records if one.scope_kind != "site")
    return _Versions(shared, {site: tuple(found) for site, found in own.items()}, size)
