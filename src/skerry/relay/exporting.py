"""`skerry relay export-reports`: writes what waits at a relay for its upstream, to be carried to the hub by hand.

Nothing is forgotten by this: the relay hands the same up when it has a link, and the hub ignores what it has. Metrics
are not carried, as they count only for a while.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skerry.carrier.bundle_file import write_reports_of_hosts
from skerry.kit.owning import acting_as_owner
from skerry.ports.relay_store import RelayStore
from skerry.relay.identity import load_identity
from skerry.relay.wiring import open_store_to_read
from skerry.spec.carrier import JsonEnvelope

PAGE_BYTES = 4 << 20


class RelayExportView(msgspec.Struct, frozen=True, kw_only=True):
    """How many reports of how many hosts were written, and how long the file is."""

    relay: str
    hosts: int
    reports: int
    size_bytes: int


class _Counted:
    """Hands reports on and counts them."""

    def __init__(self, store: RelayStore) -> None:
        self._store = store
        self.hosts: set[str] = set()
        self.reports = 0

    def by_host(self) -> Iterator[list[JsonEnvelope]]:
        """Yield what waits, each time some of one host in rising order; a few MiB at a time in memory."""
        key, sequence = "", 0
        while page := self._store.reports_after(key, sequence, PAGE_BYTES):
            for key, of_host in itertools.groupby(page, lambda one: one.key):
                reports = list(of_host)
                sequence = reports[-1].sequence
                self.hosts.add(key)
                self.reports += len(reports)
                yield [msgspec.json.decode(one.envelope, type=JsonEnvelope) for one in reports]


def export_reports(data: Path, target: Path) -> RelayExportView:
    """Write all reports that wait at a relay, whether it runs or not.

    Raises:
        Missing: no relay has joined in this directory.
        Unavailable: what waits cannot be read, or the file cannot be written.
    """
    identity = load_identity(data)
    with acting_as_owner(data):
        store = open_store_to_read(data)
    with contextlib.closing(store):
        counted = _Counted(store)
        size_bytes = write_reports_of_hosts(target, counted.by_host())
    return RelayExportView(
        relay=identity.place.relay,
        hosts=len(counted.hosts),
        reports=counted.reports,
        size_bytes=size_bytes,
    )
