"""What a host serves to its neighbours: blobs that are here, and those that come from above, while they come.

Rules: only hosts that the desired state names are admitted, by tokens that their keys signed. The last byte of a blob
that is still coming is held back until the whole has been verified, so that nobody takes what is wrong for complete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from securesystemslib.signer import Key

from skerry.agent.sharing import Sharing
from skerry.kit.errors import Denied, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.sharing import Served
from skerry.spec.desired import Neighbour
from skerry.spec.sharing import SharingAnswer, SharingQuestion
from skerry.trust.keys import SigningKey, public_key
from skerry.trust.tokens import issue_blob_token, verify_blob_token

TOKEN_LASTS = timedelta(hours=1)
CHUNK_BYTES = 128 << 10
LOOK_S = 0.05
GROWS_WITHIN_S = 6.0
"""Longer than the pauses that a download makes for the link's rate."""


class Passes:
    """The tokens of a site: this host's own, and whose those of others are. `now` is the corrected time."""

    def __init__(self, host: str, site: str, key: SigningKey, now: Callable[[], datetime]) -> None:
        self._host, self._site, self._now = host, site, now
        self._keys = [key]
        self._neighbours: Mapping[str, Neighbour] = {}
        self._holders: Mapping[str, str] = {}
        self._verifiers: Mapping[str, Key] = {}
        self._own: tuple[SigningKey, datetime, str] | None = None

    def take_key(self, key: SigningKey) -> None:
        """Sign with another key as soon as the desired state names it for this host."""
        self._keys = [key, self._keys[0]]

    def follow(self, neighbours: Mapping[str, Neighbour]) -> None:
        """Take the hosts of the site and their keys, this host's among them."""
        holders: dict[str, str] = {}
        verifiers: dict[str, Key] = {}
        for host, neighbour in neighbours.items():
            try:
                key = public_key(neighbour.sign_key)
            except Untrusted:
                continue
            if host != self._host:
                holders[key.keyid], verifiers[key.keyid] = host, key
        self._neighbours, self._holders, self._verifiers = neighbours, holders, verifiers

    def own(self) -> str:
        """Return a token that shows neighbours who asks."""
        now, named = self._now(), self._neighbours.get(self._host)
        key = next((one for one in self._keys if named and one.public == named.sign_key), self._keys[0])
        held = self._own
        if held is None or held[0] is not key or not now <= held[1] <= now + TOKEN_LASTS:
            token = issue_blob_token(self._host, self._site, now + TOKEN_LASTS, key)
            held = self._own = (key, now + TOKEN_LASTS / 2, token)
        return held[2]

    def admit(self, token: str) -> str:
        """Return which neighbour signed a token.

        Raises:
            Denied: none did, or it is too old.
        """
        claims = verify_blob_token(token, self._verifiers, self._now())
        if (claims.site, claims.host) != (self._site, self._holders[claims.key]):
            raise Denied("blob_token.invalid", "this token was signed for another host or site")
        return claims.host


class Shelf(Served):
    """What the door serves."""

    def __init__(
        self,
        sharing: Sharing,
        passes: Passes,
        blobs: LocalBlobs,
        clock: Clock,
        *,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """`pause` waits in the thread of who reads."""
        self._sharing, self._passes, self._blobs, self._clock = sharing, passes, blobs, clock
        self._pause = pause or threading.Event().wait

    def admit(self, token: str) -> str:
        """As `Served.admit`."""
        return self._passes.admit(token)

    def answer(self, host: str, question: SharingQuestion) -> SharingAnswer:
        """As `Served.answer`."""
        return self._sharing.answer(host, question)

    def size(self, digest: str) -> int | None:
        """As `Served.size`."""
        coming = self._sharing.coming(digest)
        if coming is not None:
            return coming
        try:
            return self._blobs.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def chunks(self, digest: str, *, start: int, end: int) -> Iterator[bytes]:
        """As `Served.chunks`."""
        offset, since = start, self._clock.monotonic()
        while offset < end:
            # In this order: what is complete is never taken for abandoned.
            coming = self._sharing.coming(digest)
            whole = self._blobs.has(digest)
            if coming is None and not whole:
                return
            until = end if whole else min(end, (coming or 0) - 1)
            chunk = self._read(digest, offset, until)
            if chunk:
                offset, since = offset + len(chunk), self._clock.monotonic()
                yield chunk
            elif whole or self._clock.monotonic() - since > GROWS_WITHIN_S:
                return
            else:
                self._pause(LOOK_S)

    def _read(self, digest: str, offset: int, until: int) -> bytes:
        if offset >= until:
            return b""
        return self._blobs.read_part(digest, offset, min(CHUNK_BYTES, until - offset))
