"""The relay's own reports: numbered so that no number is used twice, also after a kill, and signed.

Numbers are reserved in blocks, so that a report costs no write. A new database begins at random, because the one
before it may have been lost; when the hub knows a higher number still, it goes on above that.
"""

from __future__ import annotations

import secrets
import threading
from datetime import datetime

from skerry.ports.kept_documents import KeptDocuments
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.relay import RELAY_REPORT_TYPE, RelayReport, RelayView
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey

RESERVE = 1000
_SPARE = 1_000_000


class Numbering:
    """Makes RelayReports. Safe to call from several threads."""

    def __init__(self, relay: str, key: SigningKey, tls_key: str, store: KeptDocuments) -> None:
        self._relay = relay
        self._key = key
        self._tls_key = tls_key
        self._store = store
        self._session = secrets.token_hex(8)
        self._turn = threading.Lock()
        reserved = store.load("sequence")
        self._sequence = secrets.randbelow(1 << 30) * _SPARE if reserved is None else int(reserved)
        self._block_end = self._sequence

    def report(
        self, *, sent_at: datetime, clock: datetime, generation: int, view: RelayView | None
    ) -> tuple[JsonEnvelope, int]:
        """Return a fresh report's envelope, and its sequence.

        Raises:
            Unavailable: the disk is too full to reserve numbers.
        """
        report = RelayReport(
            relay=self._relay,
            sequence=self._next(),
            sent_at=sent_at,
            clock=clock,
            generation=generation,
            session=self._session,
            tls_key=self._tls_key,
            view=view,
        )
        return sign_document(report, RELAY_REPORT_TYPE, self._key), report.sequence

    @property
    def newest(self) -> int:
        """The newest number that was used."""
        return self._sequence

    def heard(self, acknowledged: int) -> None:
        """Go on above what the hub has."""
        with self._turn:
            if self._sequence < acknowledged < 1 << 60:
                self._sequence = self._block_end = acknowledged

    def _next(self) -> int:
        with self._turn:
            if self._sequence >= self._block_end:
                self._store.save({"sequence": str(self._sequence + RESERVE).encode()})
                self._block_end = self._sequence + RESERVE
            self._sequence += 1
            return self._sequence
