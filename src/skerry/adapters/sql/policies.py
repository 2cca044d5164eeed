"""Policies, the evidence of releases, and rollouts that began in spite of a policy."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import evidence, overrides, policies
from skerry.kit.errors import Missing
from skerry.ports.host_identities import Audit
from skerry.ports.policies import PolicyRecord
from skerry.spec.evidence import Evidence
from skerry.spec.overriding import Override


def put_policies(connection: sa.Connection, new: Sequence[PolicyRecord]) -> None:
    """Store policies, each in the place of what had its name."""
    for policy in new:
        connection.execute(sa.delete(policies).where(policies.c.name == policy.name))
        rows.add(connection, policies, policy)


def load_policies(connection: sa.Connection) -> Sequence[PolicyRecord]:
    """Return all policies, by name."""
    return rows.load_all(connection, sa.select(policies).order_by(policies.c.name), PolicyRecord)


def remove_policy(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a policy."""
    if rows.changed(connection, sa.delete(policies).where(policies.c.name == name)) == 0:
        raise Missing("policy.unknown", f"there is no policy {name}")
    add_audit(connection, audit)


def put_evidence(connection: sa.Connection, release: str, attached: tuple[Evidence, ...]) -> None:
    """Store the evidence of a release that is stored, in the place of what it had."""
    connection.execute(sa.delete(evidence).where(evidence.c.release == release))
    connection.execute(sa.insert(evidence), {"release": release, "evidence": attached})


def add_override(connection: sa.Connection, rollout: str, override: Override) -> None:
    """Note who let a rollout begin that is stored."""
    connection.execute(sa.insert(overrides), {"rollout": rollout, "override": override})
