"""Takes all stored secrets from one key to the next. A power cut may come between any two steps; run again, it goes on.

First the new key is beside the old one, then every version is wrapped under it, and only when none is left that needs
another is the old one forgotten.
"""

from __future__ import annotations

from typing import Protocol

from skerry.hub.secret_keeping import key_context
from skerry.ports.hub_store import Audit, HubStore
from skerry.ports.key_encryption import KeyEncryption, Wrapped

BATCH = 100


class ChangingKeys(KeyEncryption, Protocol):
    """A `KeyEncryption` whose keys can be changed from here if they are its `own`."""

    own: bool

    @property
    def several(self) -> bool:
        """Tell whether there are older keys beside the newest."""
        ...

    def add(self) -> None:
        """Put a fresh key before the others."""
        ...

    def drop_older(self) -> None:
        """Keep the newest key alone."""
        ...


def rekey(store: HubStore, keys: ChangingKeys, audit: Audit) -> int:
    """Wrap every version under a new key, and return how many that were.

    Where the keys are somebody else's, the first of them is the new one, and the others may be taken away afterwards.
    A key that an earlier attempt made is used now.

    Raises:
        Unavailable: a key cannot be read, or what wraps a version is not there any more (`secrets.key_away`).
    """
    if keys.own and not keys.several:
        keys.add()
    newest = keys.newest()
    there = (record for record in store.secret_versions() if not record.at_site)
    old = [record for record in there if record.key_id != newest]
    for start in range(0, len(old), BATCH):
        wrapped: dict[str, Wrapped] = {}
        for record in old[start : start + BATCH]:
            context = key_context(record.id)
            key = keys.unwrap(Wrapped(record.key_id, record.wrapped), context)
            wrapped[record.id] = keys.wrap(key, context)
        store.rewrap_secrets(wrapped)
    store.add_audit(audit)
    if keys.own:
        keys.drop_older()
    return len(old)
