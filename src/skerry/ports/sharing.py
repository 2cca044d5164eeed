"""Sharing: the way to and from the blobs of the other hosts of a site. Blocking, used from several threads.

Neither side is believed more than it has shown: who answers has the key that was pinned, who asks brings a token
that its own key signed, and bytes are verified by digest when all are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from skerry.kit.errors import SkerryError
from skerry.spec.sharing import SharingAnswer, SharingQuestion


class NearPlace(msgspec.Struct, frozen=True):
    """Where a host shares: `host:port`, and the SHA-256 of its certificate in hexadecimal."""

    address: str
    pin: str


class Near(Protocol):
    """The way to the other hosts. What a call raises about one of them has a code that begins with `near.`."""

    def ask(
        self, places: Mapping[str, NearPlace], question: SharingQuestion, *, token: str
    ) -> Mapping[str, SharingAnswer | SkerryError]:
        """Ask several hosts at once and return what each answered, or why it did not; takes some seconds at most."""
        ...

    def blob(
        self, place: NearPlace, digest: str, *, offset: int, size: int, token: str
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob of `size` bytes from a byte on, also while it still grows there; nothing is verified.

        Raises:
            Unavailable: it cannot be reached (`near.unreachable`), sends nothing for too long (`near.stalled`), or
                ends too early (`near.cut`); these come from the iterator, too.
            Missing: it has nothing of it (`near.missing`).
            Denied: it refuses this host (`near.refused`).
            Untrusted: it is not the one that was pinned, or its blob has another size (`near.strange`).
        """
        ...

    def close(self) -> None:
        """Cut all connections."""
        ...


class Served(Protocol):
    """What a host serves to the others."""

    def admit(self, token: str) -> str:
        """Return which host asks.

        Raises:
            Denied: no host of the site has signed this, or it is too old.
        """
        ...

    def answer(self, host: str, question: SharingQuestion) -> SharingAnswer:
        """Answer a question of a host."""
        ...

    def size(self, digest: str) -> int | None:
        """Return the length that a blob has or will have; None when it is neither here nor coming from above."""
        ...

    def chunks(self, digest: str, *, start: int, end: int) -> Iterator[bytes]:
        """Yield bytes from `start` up to `end`, waiting for those that still come; ends early when none do."""
        ...


class Door(Protocol):
    """The listening side. Nothing listens before `open` and after `close`."""

    def open(self, host: str, port: int, served: Served) -> NearPlace:
        """Serve at this address alone and return the place; where the port is taken, at a free one.

        Raises:
            Unavailable: the address is not this machine's (`lan.unavailable`).
        """
        ...

    def close(self) -> None:
        """Stop listening and cut those who read."""
        ...
