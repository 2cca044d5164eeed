"""The signed metadata of releases: each role's newest versions, and what a publication changes with them."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from skerry.adapters.sql import releases as release_rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import metadata_files as files
from skerry.adapters.sql.schema import releases
from skerry.kit.errors import Conflict
from skerry.ports.hub_store import Audit, Publication

KEEP_VERSIONS = 8
"""Who is in the middle of fetching one state of the repository still finds it after so many newer ones."""


def load(connection: sa.Connection, role: str, version: int | None) -> bytes | None:
    """Return a role's metadata, the newest or that of a version."""
    query = sa.select(files.c.content).where(files.c.role == role)
    if version is None:
        query = query.order_by(files.c.version.desc()).limit(1)
    else:
        query = query.where(files.c.version == version)
    content = connection.execute(query).scalar_one_or_none()
    return None if content is None else bytes(content)


def load_versions(connection: sa.Connection) -> Mapping[str, int]:
    """Return the newest version of each role."""
    query = sa.select(files.c.role, sa.func.max(files.c.version)).group_by(files.c.role)
    return {str(role): int(version) for role, version in connection.execute(query)}


def publish(connection: sa.Connection, publication: Publication, audit: Audit | None) -> bool:
    """Store a publication; tell whether its release is new. See the port."""
    held = load_versions(connection).get("snapshot", 0)
    if held != publication.after:
        hint = "somebody else has published in between: try again"
        raise Conflict("metadata.moved", f"the repository is at snapshot {held}", hint=hint)
    new = False
    if publication.release is not None and audit is not None:
        new = release_rows.add_release(connection, publication.release, audit)
    elif audit is not None:
        add_audit(connection, audit)
    for role, (version, content) in publication.roles.items():
        connection.execute(sa.insert(files), {"role": role, "version": version, "content": content})
        if role != "root":
            old = sa.delete(files).where(files.c.role == role, files.c.version <= version - KEEP_VERSIONS)
            connection.execute(old)
    for name, vouched_at in publication.vouched.items():
        connection.execute(sa.update(releases).where(releases.c.name == name).values(vouched_at=vouched_at))
    return new
