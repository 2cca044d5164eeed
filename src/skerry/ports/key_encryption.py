"""KeyEncryption: wraps the keys of stored secrets under a key that is kept elsewhere than they are.

A hub's file is one adapter; a key management service is another. What every adapter promises:
- What `wrap` returned opens with `unwrap` for as long as its key is kept, in any process, with the same context alone.
- `newest` names the key that `wrap` uses. An adapter that has several opens what any of them wrapped, so that
  `skerry hub rekey` can go from one to the next.
- The key itself is in no error, log or answer. Every call has a time limit. Blocking; call it in a thread.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Wrapped(msgspec.Struct, frozen=True):
    """A wrapped key, and the id of the key that opens it."""

    key_id: str
    wrapped: bytes


class KeyEncryption(Protocol):
    """Keeps the key that opens all others."""

    def newest(self) -> str:
        """Return the id of the key that `wrap` uses.

        Raises:
            Unavailable: it cannot be read or reached now (`secrets.key_away`).
        """
        ...

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """Return a key of 32 bytes, wrapped and bound to what it is for; raises as `newest`."""
        ...

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        """Return the key.

        Raises:
            Unavailable: the key that opens it cannot be reached, or is not there any more (`secrets.key_away`).
            Untrusted: it was altered, or is for something else (`secret.damaged`).
        """
        ...
