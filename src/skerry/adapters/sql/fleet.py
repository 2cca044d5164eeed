"""Sites, join tokens and hosts, and what hosts report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import authorities, rows
from skerry.adapters.sql.audit_log import add_audit, events_chain, load_head, put_head
from skerry.adapters.sql.identities import add_replacement, note_event
from skerry.adapters.sql.schema import (
    Instant,
    chains,
    events,
    host_states,
    hosts,
    join_replacements,
    join_tokens,
    sites,
)
from skerry.kit.errors import Bug, Conflict, Denied, Missing
from skerry.ports.hub_store import AppliedReport, Audit, EventRecord, HostRecord, JoinTokenRecord, SiteRecord
from skerry.spec.report import Event
from skerry.trust.chain import follow_events

_without_desired = [column for column in sites.c if column.name != "desired"]
_state_columns = ("observed_at", "observed", "facts")
_hosts_with_states = sa.select(
    hosts, host_states.c.observed_at, host_states.c.observed, host_states.c.facts
).outerjoin_from(hosts, host_states)

_join_token = sa.select(
    join_tokens, sa.func.coalesce(join_replacements.c.host, "").label("replaces")
).outerjoin_from(join_tokens, join_replacements)

# Built once: these run for each report of each host.
_advance_host = (
    sa.update(hosts)
    .where(hosts.c.name == sa.bindparam("host"), hosts.c.sequence < sa.bindparam("reported"))
    .values(
        sequence=sa.bindparam("reported"),
        last_seen_at=sa.bindparam("seen_at"),
        generation_held=sa.bindparam("generation"),
        clock_offset_s=sa.bindparam("offset_s"),
    )
)
_note_seen = (
    sa.update(hosts)
    .where(
        hosts.c.name == sa.bindparam("host"),
        hosts.c.last_seen_at.is_(None) | (hosts.c.last_seen_at < sa.bindparam("seen_at", type_=Instant)),
    )
    .values(last_seen_at=sa.bindparam("seen_at", type_=Instant))
)
_of_host = host_states.c.host == sa.bindparam("of")
_put_observed = (
    sa.update(host_states)
    .where(_of_host)
    .values(observed=sa.bindparam("new_observed"), observed_at=sa.bindparam("new_observed_at"))
)
_put_facts = sa.update(host_states).where(_of_host).values(facts=sa.bindparam("new_facts"))
_add_events = sa.insert(events)


class IssuedState(msgspec.Struct, frozen=True):
    """A signed DesiredState to be stored."""

    generation: int
    desired: bytes
    expires_at: datetime


def put_sites(connection: sa.Connection, documents: Mapping[str, bytes]) -> None:
    """Store site documents; an existing site keeps its generation and desired state."""
    for name, document in documents.items():
        if (
            rows.changed(connection, sa.update(sites).where(sites.c.name == name).values(document=document))
            == 0
        ):
            connection.execute(sa.insert(sites), {"name": name, "generation": 0, "document": document})


def load_site(connection: sa.Connection, name: str) -> SiteRecord | None:
    """Return a site."""
    return rows.load_one(connection, sa.select(sites).where(sites.c.name == name), SiteRecord)


def load_sites(connection: sa.Connection) -> Sequence[SiteRecord]:
    """Return all sites by name, without their desired states."""
    return rows.load_all(connection, sa.select(*_without_desired).order_by(sites.c.name), SiteRecord)


def remove_site(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a site; its join tokens and assignments go with it by their foreign keys."""
    if rows.exists(connection, sa.select(hosts.c.name).where(hosts.c.site == name)):
        raise Conflict("site.has_hosts", f"site {name} has hosts", hint="remove its hosts first")
    if rows.changed(connection, sa.delete(sites).where(sites.c.name == name)) == 0:
        raise _unknown_site(name)
    add_audit(connection, audit)


def issue_desired(connection: sa.Connection, site: str, issued: IssuedState, *, after: int) -> None:
    """Store a site's DesiredState if the one before has the generation `after`, which is lower."""
    generation = issued.generation
    if generation <= after:
        raise Bug("desired.not_above", f"generation {generation} is not above {after}")
    issue = sa.update(sites).where(sites.c.name == site, sites.c.generation == after)
    values = {
        "generation": generation,
        "desired": issued.desired,
        "desired_expires_at": issued.expires_at,
    }
    if rows.changed(connection, issue.values(values)) == 0:
        stored = connection.execute(
            sa.select(sites.c.generation).where(sites.c.name == site)
        ).scalar_one_or_none()
        if stored is None:
            raise _unknown_site(site)
        message = f"site {site} is at generation {stored}, so {generation} is not the next"
        raise Conflict("site.generation_moved", message, site=site, stored=stored)


def add_join_token(connection: sa.Connection, token: JoinTokenRecord, audit: Audit) -> None:
    """Store a join token of a known site."""
    if not rows.exists(connection, sa.select(sites.c.name).where(sites.c.name == token.site)):
        raise _unknown_site(token.site)
    values = msgspec.structs.asdict(token)
    replaces = values.pop("replaces")
    connection.execute(sa.insert(join_tokens), values)
    if replaces:
        add_replacement(connection, token.hash, replaces)
    add_audit(connection, audit)


def enroll_host(connection: sa.Connection, join_hash: str, host: HostRecord, audit: Audit) -> HostRecord:
    """Use a join token once and store the host, or return the very same host that is there."""
    token = rows.load_one(connection, _join_token.where(join_tokens.c.hash == join_hash), JoinTokenRecord)
    if token is None or token.site != host.site:
        raise Denied("join.unknown", f"there is no such join token for site {host.site}")
    known = load_host(connection, host.name)
    if known is not None and _identity(known) == _identity(host):
        return known  # the first answer was lost on its way
    if token.uses_left < 1:
        raise Denied("join.used_up", "the join token is used up", hint="ask for a new one")
    if token.expires_at <= host.enrolled_at:
        raise Denied(
            "join.expired", f"the join token expired at {token.expires_at}", hint="ask for a new one"
        )
    if token.replaces and token.replaces != host.name:
        raise Denied("join.other_host", f"the join token replaces host {token.replaces}, and no other")
    if known is not None:
        if known.site != host.site or not token.replaces:
            hint = f"if this one replaces it: skerry site token {known.site} --replace {host.name}"
            raise Conflict("host.name_taken", f"another host is named {host.name}", hint=hint)
        connection.execute(sa.delete(hosts).where(hosts.c.name == host.name))
        authorities.revoke(connection, host.name, host.enrolled_at)
    use = sa.update(join_tokens).where(join_tokens.c.hash == join_hash)
    connection.execute(use.values(uses_left=join_tokens.c.uses_left - 1))
    _insert_host(connection, host)
    if known is not None:
        message = "another machine or new keys took the place of this host; its old keys are refused"
        note_event(connection, host.name, Event(at=host.enrolled_at, kind="host.replaced", message=message))
        audit = msgspec.structs.replace(audit, action="host.replace")
    add_audit(connection, audit)
    return host


def load_host(connection: sa.Connection, name: str) -> HostRecord | None:
    """Return a host."""
    found = _load_hosts(connection, _hosts_with_states.where(hosts.c.name == name))
    return found[0] if found else None


def load_hosts(connection: sa.Connection, site: str | None) -> Sequence[HostRecord]:
    """Return all hosts, or those of a site, by name."""
    query = _hosts_with_states.order_by(hosts.c.name)
    return _load_hosts(connection, query if site is None else query.where(hosts.c.site == site))


def remove_host(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a host; its events stay until they are trimmed, and its intermediates are revoked."""
    if rows.changed(connection, sa.delete(hosts).where(hosts.c.name == name)) == 0:
        raise _unknown_host(name)
    authorities.revoke(connection, name, audit.at)
    add_audit(connection, audit)


def apply_reports(connection: sa.Connection, reports: Sequence[AppliedReport]) -> int:
    """Apply one host's reports, each once; return the sequence then stored."""
    if not reports:
        raise Bug("reports.none", "there must be a report to apply")
    applied = 0
    for report in reports:
        advance = {
            "host": report.host,
            "reported": report.sequence,
            "seen_at": report.seen_at,
            "generation": report.generation,
            "offset_s": report.clock_offset_s,
        }
        # The condition and the change are one statement: that is what makes "once" hold.
        if connection.execute(_advance_host, advance).rowcount == 1:
            _apply_contents(connection, report)
            applied = report.sequence
    return applied or _stored_sequence(connection, reports[0].host)


def note_seen(connection: sa.Connection, seen: Mapping[str, datetime]) -> None:
    """Note when hosts were last there, unless something later is stored."""
    if seen:
        connection.execute(_note_seen, [{"host": host, "seen_at": at} for host, at in seen.items()])


def load_events(connection: sa.Connection, site: str, host: str, limit: int) -> Sequence[EventRecord]:
    """Return the newest events, newest first."""
    query = sa.select(events).order_by(events.c.id.desc()).limit(limit)
    if site:
        query = query.where(events.c.site == site)
    if host:
        query = query.where(events.c.host == host)
    return rows.load_all(connection, query, EventRecord)


def _stored_sequence(connection: sa.Connection, host: str) -> int:
    sequence = connection.execute(
        sa.select(hosts.c.sequence).where(hosts.c.name == host)
    ).scalar_one_or_none()
    if sequence is None:
        raise _unknown_host(host)
    return int(sequence)


def _apply_contents(connection: sa.Connection, report: AppliedReport) -> None:
    """Store what a report carries beyond being alive."""
    if report.observed is not None:
        seen = {"of": report.host, "new_observed": report.observed, "new_observed_at": report.sent_at}
        connection.execute(_put_observed, seen)
    if report.facts is not None:
        connection.execute(_put_facts, {"of": report.host, "new_facts": report.facts})
    if report.events:
        origin = {"host": report.host, "site": report.site, "received_at": report.seen_at}
        told = (*_breaks(connection, report), *report.events)
        connection.execute(_add_events, [{**origin, "event": event} for event in told])


def _breaks(connection: sa.Connection, report: AppliedReport) -> Sequence[Event]:
    """Follow the chain of a host's events, and return what is to be told of it."""
    if not any(event.number for event in report.events):
        return ()
    chain = events_chain(report.host)
    head, breaks = follow_events(load_head(connection, chain), report.events)
    put_head(connection, chain, head)
    return [Event(at=report.sent_at, kind=one.kind, message=one.message) for one in breaks]


def _insert_host(connection: sa.Connection, host: HostRecord) -> None:
    values = msgspec.structs.asdict(host)
    state = {name: values.pop(name) for name in _state_columns}
    connection.execute(sa.insert(hosts), values)
    connection.execute(sa.insert(host_states), {"host": host.name, **state})
    # Another machine, or one that begins anew, counts from 1.
    connection.execute(sa.delete(chains).where(chains.c.name == events_chain(host.name)))


def _load_hosts(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> Sequence[HostRecord]:
    return rows.load_all(connection, query, HostRecord)


def _identity(host: HostRecord) -> tuple[str, str, str, str]:
    return host.name, host.site, host.sign_key, host.seal_key


def _unknown_site(name: str) -> Missing:
    return Missing("site.unknown", f"there is no site {name}")


def _unknown_host(name: str) -> Missing:
    return Missing("host.unknown", f"there is no host {name}")
