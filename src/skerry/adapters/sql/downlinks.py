"""Messages for applications at sites, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema_topics import downlinks
from skerry.kit.errors import Conflict
from skerry.ports.downlink_store import DownlinkRecord, DownlinkStore
from skerry.ports.host_identities import Audit


class SqlDownlinks(DownlinkStore):
    """The part of the hub's store that is about messages to sites."""

    _database: Database

    def add_downlinks(self, records: Sequence[DownlinkRecord], audit: Audit, *, most: int) -> None:
        self._database.write(lambda connection: add(connection, records, audit, most))

    def downlinks(self, site: str = "") -> Sequence[DownlinkRecord]:
        query = sa.select(downlinks).order_by(downlinks.c.created_at, downlinks.c.id, downlinks.c.site)
        if site:
            query = query.where(downlinks.c.site == site)
        return self._database.read(lambda connection: rows.load_all(connection, query, DownlinkRecord))

    def forget_downlinks(self, before: datetime) -> None:
        statement = sa.delete(downlinks).where(downlinks.c.expires_at < before)
        self._database.write(lambda connection: connection.execute(statement))


def add(connection: sa.Connection, records: Sequence[DownlinkRecord], audit: Audit, most: int) -> None:
    """Store messages where there is room for them."""
    for record in records:
        lasting = sa.select(sa.func.count()).where(
            downlinks.c.site == record.site, downlinks.c.expires_at > record.created_at
        )
        if int(connection.execute(lasting).scalar_one()) >= most:
            hint = "let some of them expire first"
            raise Conflict("downlink.full", f"{most} messages wait for site {record.site}", hint=hint)
        rows.add(connection, downlinks, record)
    add_audit(connection, audit)
