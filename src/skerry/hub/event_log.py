"""Merges what hosts told and what was done at the hub into one log that can be gone through page by page.

Rules: a page follows on a cursor, by which nothing is left out and nothing comes twice, however late an event arrives;
what is looked at for one page is bounded, and a page without any entry may still lead on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from skerry.kit.errors import Rejected
from skerry.ports.hub_store import AuditRecord, EventRecord, HubStore
from skerry.spec.api_events import LogEntry, LogPage

LOOK_AT = 2000
"""So many events, and so many entries of the audit, are looked at for one page."""

_cursor_re = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted; what is empty wants all. `kind` takes `release` for all of `release.*` as well.

    `sites` are those that may be seen, None for all; `hub` says whether what was done at the hub may be.
    """

    site: str = ""
    host: str = ""
    application: str = ""
    kind: str = ""
    sites: frozenset[str] | None = None
    hub: bool = False

    def wants(self, entry: LogEntry) -> bool:
        """Tell whether an entry is wanted. Pure."""
        if entry.source == "hub" and not self.hub:
            return False
        if entry.source == "host" and self.sites is not None and entry.site not in self.sites:
            return False
        wanted = (
            (self.site, entry.site),
            (self.host, entry.host),
            (self.application, entry.application),
        )
        if any(asked and asked != found for asked, found in wanted):
            return False
        return not self.kind or entry.kind == self.kind or entry.kind.startswith(f"{self.kind}.")


class Cursor(msgspec.Struct, frozen=True):
    """The newest event and the newest entry of the audit that were looked at."""

    event: int = 0
    audit: int = 0

    def __str__(self) -> str:
        return f"{self.event}.{self.audit}"


def parse_cursor(text: str) -> Cursor:
    """Return a cursor.

    Raises:
        Rejected: it is none (`events.cursor`).
    """
    if not _cursor_re.fullmatch(text):
        hint = "give the cursor of the page before"
        raise Rejected("events.cursor", f"not a cursor: {text[:40]!r}", hint=hint)
    event, _, audit = text.partition(".")
    return Cursor(int(event), int(audit))


def newest_page(store: HubStore, wanted: LogFilter, limit: int) -> LogPage:
    """Return the newest entries, and a cursor from which everything that comes later is found. Blocking."""
    newest = store.events(limit=1)
    at = Cursor(newest[0].id if newest else 0, store.audit_head().number)
    events = store.events(site=wanted.site, host=wanted.host, limit=LOOK_AT)
    found = [event_entry(one) for one in events if one.id <= at.event]
    found += [audit_entry(one) for one in store.audits(LOOK_AT) if one.id <= at.audit]
    chosen = sorted(filter(wanted.wants, found), key=lambda entry: entry.arrived_at)[-limit:]
    return LogPage(entries=_in_order(chosen), cursor=str(at), hub=wanted.hub)


def next_page(store: HubStore, wanted: LogFilter, after: Cursor, limit: int) -> LogPage:
    """Return the entries that follow on a cursor. Blocking."""
    events, audits = store.events_after(after.event, LOOK_AT), store.audits_after(after.audit, LOOK_AT)
    full = LOOK_AT in (len(events), len(audits))
    entries: list[LogEntry] = []
    at, taken, read = after, 0, 0
    while len(entries) < limit and (taken < len(events) or read < len(audits)):
        # Each of the two by its numbers; which of them is next, by when it arrived.
        if read == len(audits) or (taken < len(events) and events[taken].received_at <= audits[read].at):
            entry, at = event_entry(events[taken]), Cursor(events[taken].id, at.audit)
            taken += 1
        else:
            entry, at = audit_entry(audits[read]), Cursor(at.event, audits[read].id)
            read += 1
        if wanted.wants(entry):
            entries.append(entry)
    more = full or taken < len(events) or read < len(audits)
    return LogPage(entries=_in_order(entries), cursor=str(at), more=more, hub=wanted.hub)


def cursor_at(store: HubStore, since: datetime) -> Cursor:
    """Return the cursor of what had arrived before an instant. Blocking."""
    return Cursor(*store.log_position(since))


def event_entry(record: EventRecord) -> LogEntry:
    """Return an event of a host as an entry."""
    event = record.event
    return LogEntry(
        source="host",
        at=event.at,
        arrived_at=record.received_at,
        kind=event.kind,
        message=event.message,
        site=record.site,
        host=record.host,
        application=event.application,
        component=event.component,
        number=event.number,
    )


def audit_entry(record: AuditRecord) -> LogEntry:
    """Return an entry of the audit as one of the log; what its subject names, it is about."""
    named = dict(part.split(":", 1) for part in record.subject.split("/") if ":" in part)
    return LogEntry(
        source="hub",
        at=record.at,
        arrived_at=record.at,
        kind=record.action,
        message=record.why,
        site=named.get("site", ""),
        host=named.get("host", ""),
        application=named.get("application", ""),
        who=record.who,
        subject=record.subject,
        outcome=record.outcome,
        decision=record.decision,
        number=record.id,
    )


def _in_order(entries: Sequence[LogEntry]) -> tuple[LogEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.at))
