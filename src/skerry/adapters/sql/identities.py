"""Who hosts are: the sessions of their reports, their quarantine, and changes of their keys."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import events, host_lineages, hosts, join_replacements
from skerry.kit.errors import Conflict, Missing
from skerry.ports.host_identities import Audit, KeysRecord, LineageRecord
from skerry.spec.report import Event


def load_lineages(connection: sa.Connection) -> Sequence[LineageRecord]:
    """Return what is known of all hosts' sessions, by name."""
    return rows.load_all(connection, sa.select(host_lineages).order_by(host_lineages.c.host), LineageRecord)


def put_lineage(
    connection: sa.Connection, record: LineageRecord, event: Event | None, audit: Audit | None
) -> None:
    """Store what is known of a host's sessions, in the place of what was."""
    site = _site_of(connection, record.host)
    connection.execute(sa.delete(host_lineages).where(host_lineages.c.host == record.host))
    rows.add(connection, host_lineages, record)
    _note(connection, record.host, site, event)
    if audit is not None:
        add_audit(connection, audit)


def readmit_host(connection: sa.Connection, name: str, event: Event, audit: Audit) -> None:
    """End a host's quarantine and forget its sessions."""
    site = _site_of(connection, name)
    held = (host_lineages.c.host == name) & host_lineages.c.quarantined_at.is_not(None)
    if rows.changed(connection, sa.delete(host_lineages).where(held)) == 0:
        raise Conflict("host.not_quarantined", f"host {name} is not in quarantine: it goes on as usual")
    _note(connection, name, site, event)
    add_audit(connection, audit)


def change_keys(connection: sa.Connection, keys: KeysRecord, event: Event, audit: Audit) -> None:
    """Put a host's new keys in the place of the old ones."""
    site = _site_of(connection, keys.host)
    change = sa.update(hosts).where(hosts.c.name == keys.host, hosts.c.sign_key == keys.old_key)
    if rows.changed(connection, change.values(sign_key=keys.sign_key, seal_key=keys.seal_key)) == 0:
        raise Conflict("host.keys_moved", f"the keys of host {keys.host} were changed by somebody else")
    _note(connection, keys.host, site, event)
    add_audit(connection, audit)


def note_event(connection: sa.Connection, host: str, event: Event) -> None:
    """Store an event about a host that is not from it."""
    _note(connection, host, _site_of(connection, host), event)


def add_replacement(connection: sa.Connection, hash: str, host: str) -> None:
    """Note which host a join token replaces."""
    connection.execute(sa.insert(join_replacements), {"hash": hash, "host": host})


def _note(connection: sa.Connection, host: str, site: str, event: Event | None) -> None:
    if event is not None:
        values = {"host": host, "site": site, "received_at": event.at, "event": event}
        connection.execute(sa.insert(events), values)


def _site_of(connection: sa.Connection, host: str) -> str:
    site = connection.execute(sa.select(hosts.c.site).where(hosts.c.name == host)).scalar_one_or_none()
    if site is None:
        raise Missing("host.unknown", f"there is no host {host}")
    return str(site)
