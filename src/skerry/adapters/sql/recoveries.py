"""What a hub knows of sites that may be ahead of its database, and the one step in which a restored hub begins."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.operators import put_setting
from skerry.adapters.sql.releases import put_assignments, remove_assignments
from skerry.adapters.sql.schema import (
    assignments,
    deltas,
    join_tokens,
    recoveries,
    relay_tokens,
    sites,
    tokens,
)
from skerry.kit.errors import Conflict
from skerry.ports.hub_store import AssignmentRecord, Audit, RecoveryRecord, Revoked
from skerry.spec.backup import RestoreMark

RESTORED = "restored"


def load_recoveries(connection: sa.Connection) -> Sequence[RecoveryRecord]:
    """Return what is known of all sites, by name."""
    return rows.load_all(connection, sa.select(recoveries).order_by(recoveries.c.site), RecoveryRecord)


def put_recovery(connection: sa.Connection, record: RecoveryRecord, audit: Audit | None) -> None:
    """Store what is known of a site; `Conflict` when the site has gone."""
    if not rows.exists(connection, sa.select(sites.c.name).where(sites.c.name == record.site)):
        raise Conflict("site.gone", f"there is no site {record.site} any more")
    connection.execute(sa.delete(recoveries).where(recoveries.c.site == record.site))
    rows.add(connection, recoveries, record)
    if audit is not None:
        add_audit(connection, audit)


def settle_site(
    connection: sa.Connection,
    record: RecoveryRecord,
    wanted: Sequence[AssignmentRecord] | None,
    audit: Audit,
) -> None:
    """End the hold of a site: store what is known then and, unless None, its assignments in place of all it had."""
    held = (recoveries.c.site == record.site) & recoveries.c.held_since.is_not(None)
    if not rows.exists(connection, sa.select(recoveries.c.site).where(held)):
        raise Conflict("site.not_held", f"site {record.site} is not held")
    if wanted is not None:
        had = sa.select(assignments.c.site, assignments.c.application).where(
            assignments.c.site == record.site
        )
        remove_assignments(connection, [(site, name) for site, name in connection.execute(had)])
        put_assignments(connection, wanted)
    put_recovery(connection, record, audit)


def begin_restored(
    connection: sa.Connection, mark: RestoreMark, *, revoke_tokens: bool, audit: Audit
) -> Revoked:
    """Make a restored database ready to be served: secrets that may have been revoked since are, sites are guarded."""
    once = tokens.c.once if not revoke_tokens else sa.true()
    kept = sa.select(tokens.c.name).where(sa.not_(once)).order_by(tokens.c.name)
    revoked = Revoked(
        join_tokens=rows.changed(connection, sa.delete(join_tokens))
        + rows.changed(connection, sa.delete(relay_tokens)),
        kept=tuple(str(name) for (name,) in connection.execute(kept)),
        tokens=rows.changed(connection, sa.delete(tokens).where(once)),
    )
    connection.execute(sa.delete(deltas))  # their files are not in a backup, and are made again
    connection.execute(sa.delete(recoveries))
    known = connection.execute(sa.select(sites.c.name, sites.c.generation)).all()
    if known:
        connection.execute(
            sa.insert(recoveries),
            [
                {
                    "site": name,
                    "known": generation,
                    "base": max(generation, mark.base),
                    "seen": 0,
                    "host": "",
                    "held_since": None,
                }
                for name, generation in known
            ],
        )
    put_setting(connection, RESTORED, msgspec.json.encode(mark))
    add_audit(connection, audit)
    return revoked
