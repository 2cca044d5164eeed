"""KeyGuard: keeps a small secret so that it can be used on this machine alone. Blocking; call it in a thread."""

from __future__ import annotations

from typing import Protocol


class KeyGuard(Protocol):
    """What is sealed can be stored anywhere: only this machine opens it. Every call has a time limit."""

    def seal(self, secret: bytes) -> bytes:
        """Return what opens to `secret`, 128 bytes at the most, on this machine; `Unavailable` when that fails."""
        ...

    def unseal(self, sealed: bytes) -> bytes:
        """Return the secret.

        Raises:
            Untrusted: this machine does not open it, now or ever (`key.foreign`).
            Unavailable: it may later (`key.guard_away`).
        """
        ...
