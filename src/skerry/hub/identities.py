"""The sessions of hosts' reports, and hosts in quarantine because two machines use their identity.

- What decides is `skerry.trust.cloning`. A proof is stored before the report that gave it is answered, and nothing of
  that report is applied.
- Nothing is taken from a host in quarantine and nothing is given to it. What it runs is left alone: it goes on by
  what it holds. A person ends it: the host is readmitted, or one of the machines takes its place with new keys.
- All of this is in the store; what is at hand here mirrors it. A report of a session that goes on costs one lookup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from skerry.kit.errors import Denied
from skerry.ports.clock import Clock
from skerry.ports.host_identities import Audit, LineageRecord
from skerry.ports.hub_store import HubStore
from skerry.spec.report import Event, Report
from skerry.trust.cloning import Forked, Lineage, decide_lineage

_log = structlog.get_logger()


class Identities:
    """What the hub knows of hosts' sessions."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changing = asyncio.Lock()
        self._records = {record.host: record for record in store.lineages()}

    def quarantine(self, host: str) -> LineageRecord | None:
        """Return why a host is in quarantine, None when it is not. Usable from any thread."""
        record = self._records.get(host)
        return record if record is not None and record.quarantined_at is not None else None

    def refuse(self, host: str) -> None:
        """Raise when a host is in quarantine.

        Raises:
            Denied: it is (`host.quarantined`).
        """
        record = self.quarantine(host)
        if record is not None:
            hint = "see the hub's `skerry describe host`; what runs here runs on"
            raise Denied("host.quarantined", f"host {host} is in quarantine: {record.why}", hint=hint)

    def news_for(self, report: Report) -> str:
        """Return the name of the newest stretch of a host's reports when it is another session's, else nothing."""
        record = self._records.get(report.host)
        newest = record.lineage.newest if record is not None else None
        return newest.name if newest is not None and report.session not in ("", newest.session) else ""

    def newest(self, host: str) -> str:
        """Return the name of the newest stretch of a host's reports; empty when there is none."""
        record = self._records.get(host)
        newest = record.lineage.newest if record is not None else None
        return newest.name if newest is not None else ""

    async def look(self, reports: Sequence[Report]) -> bool:
        """Take note of the sessions of one host's new reports; True when another session has begun.

        Raises:
            Denied: they prove that two machines use its identity; the host is in quarantine now.
            Missing: the host is unknown.
        """
        if all(self._goes_on(report) for report in reports):
            return False
        host = reports[0].host
        async with self._changing:
            self.refuse(host)
            record = self._records.get(host) or LineageRecord(host=host, lineage=Lineage())
            lineage = record.lineage
            for report in reports:
                decided = decide_lineage(lineage, report.session, report.sequence, report.heard)
                if isinstance(decided, Forked):
                    await self._isolate(record, report, decided)
                    self.refuse(host)
                else:
                    lineage = decided
            if lineage == record.lineage:
                return False
            await self._keep(msgspec.structs.replace(record, lineage=lineage))
            newest = lineage.newest
            if newest is not None and newest.after:
                _log.warning("host.session_back", host=host, session=newest.session)
        return True

    async def readmit(self, name: str, audit: Audit) -> None:
        """End a host's quarantine; its sessions begin anew.

        Raises:
            Missing: the host is unknown.
            Conflict: it is not in quarantine (`host.not_quarantined`).
        """
        async with self._changing:
            event = Event(at=audit.at, kind="host.readmitted", message=f"by {audit.who}")
            await asyncio.to_thread(self._store.readmit_host, name, event, audit)
            self._records.pop(name, None)
        _log.info("host.readmitted", host=name, by=audit.who)

    async def reload(self) -> None:
        """Read everything anew, as after a host was put in the place of another."""
        async with self._changing:
            found = await asyncio.to_thread(self._store.lineages)
            self._records = {record.host: record for record in found}

    def forget(self, host: str) -> None:
        """Drop what is at hand of a removed host."""
        self._records.pop(host, None)

    def _goes_on(self, report: Report) -> bool:
        if not report.session:
            return True
        record = self._records.get(report.host)
        newest = record.lineage.newest if record is not None else None
        return newest is not None and newest.session == report.session

    async def _isolate(self, record: LineageRecord, report: Report, forked: Forked) -> None:
        now = self._clock.now()
        await self._keep(
            msgspec.structs.replace(record, quarantined_at=now, why=forked.why),
            Event(at=now, kind="host.quarantined", message=forked.why),
            Audit(
                at=now,
                who=f"host:{report.host}",
                action="host.quarantine",
                subject=f"host:{report.host}",
                outcome=f"in quarantine: {forked.why}",
            ),
        )
        _log.warning(
            "host.quarantined", host=report.host, session=forked.session, other=forked.other, why=forked.why
        )

    async def _keep(
        self, record: LineageRecord, event: Event | None = None, audit: Audit | None = None
    ) -> None:
        await asyncio.to_thread(self._store.put_lineage, record, event, audit)
        self._records[record.host] = record
