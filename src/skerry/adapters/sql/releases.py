"""Releases, rollouts, what they assign to sites, and how often its data there was to be emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.policies import add_override, put_evidence
from skerry.adapters.sql.schema import assignments, evidence, overrides, releases, rollouts, sites, wipes
from skerry.kit.editions import plain_release
from skerry.kit.errors import Conflict, Missing
from skerry.ports.hub_store import AssignmentRecord, Audit, ReleaseRecord, RolloutRecord

_running = rollouts.c.state.in_(("running", "paused", "reverting"))
_release = sa.select(releases, evidence.c.evidence).join_from(releases, evidence)
_rollout = sa.select(rollouts, overrides.c.override).outerjoin_from(rollouts, overrides)
_unassign = sa.delete(assignments).where(
    assignments.c.site == sa.bindparam("at_site"), assignments.c.application == sa.bindparam("of")
)


def add_release(connection: sa.Connection, release: ReleaseRecord, audit: Audit) -> bool:
    """Store a release once and for all; False when the very same is there."""
    stored = load_release(connection, release.name)
    if stored is None:
        values = msgspec.structs.asdict(release)
        attached = values.pop("evidence")
        connection.execute(sa.insert(releases), values)
        put_evidence(connection, release.name, attached)
        add_audit(connection, audit)
        return True
    if (stored.digest, stored.document) == (release.digest, release.document):
        if stored.evidence != release.evidence:
            put_evidence(connection, release.name, release.evidence)
            add_audit(connection, msgspec.structs.replace(audit, action="release.evidence"))
        return False
    hint = "a release never changes: give the new content a new version"
    raise Conflict(
        "release.immutable", f"{release.name} is there with other content", hint=hint, stored=stored.digest
    )


def load_release(connection: sa.Connection, name: str) -> ReleaseRecord | None:
    """Return a release."""
    return rows.load_one(connection, _release.where(releases.c.name == plain_release(name)), ReleaseRecord)


def load_releases(connection: sa.Connection) -> Sequence[ReleaseRecord]:
    """Return all releases by application, oldest first."""
    order = (releases.c.application, releases.c.created_at, releases.c.name)
    return rows.load_all(connection, _release.order_by(*order), ReleaseRecord)


def remove_release(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a release that nothing names, nor would go back to."""
    edition = assignments.c.release.startswith(f"{name}#", autoescape=True)
    assigned = sa.select(assignments.c.site).where((assignments.c.release == name) | edition)
    site = connection.execute(assigned.limit(1)).scalar_one_or_none()
    if site is not None:
        raise Conflict(
            "release.in_use", f"{name} is assigned to site {site}", hint="roll another release out first"
        )
    for rollout in load_rollouts(connection, running_only=True):
        named = {rollout.release, *(progress.previous for progress in rollout.sites.values())}
        if name in map(plain_release, named):
            raise Conflict("release.in_use", f"{name} is needed by the running rollout {rollout.name}")
    if rows.changed(connection, sa.delete(releases).where(releases.c.name == name)) == 0:
        raise Missing("release.unknown", f"there is no release {name}")
    add_audit(connection, audit)


def add_rollouts(connection: sa.Connection, new: Sequence[RolloutRecord]) -> None:
    """Store new rollouts."""
    for rollout in new:
        if load_rollout(connection, rollout.name) is not None:
            hint = "a rollout cannot be changed: give the new one another name"
            raise Conflict("rollout.name_taken", f"there is a rollout named {rollout.name}", hint=hint)
        values = msgspec.structs.asdict(rollout)
        override = values.pop("override")
        connection.execute(sa.insert(rollouts), values)
        if override is not None:
            add_override(connection, rollout.name, override)


def load_rollout(connection: sa.Connection, name: str) -> RolloutRecord | None:
    """Return a rollout."""
    return rows.load_one(connection, _rollout.where(rollouts.c.name == name), RolloutRecord)


def load_rollouts(connection: sa.Connection, *, running_only: bool) -> Sequence[RolloutRecord]:
    """Return rollouts, oldest first."""
    query = _rollout.order_by(rollouts.c.created_at, rollouts.c.name)
    return rows.load_all(connection, query.where(_running) if running_only else query, RolloutRecord)


def advance_rollout(connection: sa.Connection, rollout: RolloutRecord) -> None:
    """Store where a rollout is, if nobody else moved it; what it was started with stays."""
    same = sa.update(rollouts).where(rollouts.c.name == rollout.name, rollouts.c.version == rollout.version)
    values = {
        "state": rollout.state,
        "why": rollout.why,
        "ended_at": rollout.ended_at,
        "sites": rollout.sites,
        "attempt": rollout.attempt,
        "steering": rollout.steering,
        "version": rollout.version + 1,
    }
    if rows.changed(connection, same.values(values)) == 0:
        if load_rollout(connection, rollout.name) is None:
            raise _unknown_rollout(rollout.name)
        raise Conflict("rollout.moved", f"rollout {rollout.name} is no longer at version {rollout.version}")


def put_assignments(connection: sa.Connection, wanted: Sequence[AssignmentRecord]) -> None:
    """Set assignments; `Conflict` when a site has gone meanwhile."""
    newest = {(assignment.site, assignment.application): assignment for assignment in wanted}
    remove_assignments(connection, list(newest))
    try:
        if newest:
            connection.execute(
                sa.insert(assignments), [msgspec.structs.asdict(one) for one in newest.values()]
            )
    except exc.IntegrityError as error:
        raise Conflict("assignment.site_unknown", "a site to assign to is not there any more") from error


def remove_assignments(connection: sa.Connection, pairs: Sequence[tuple[str, str]]) -> None:
    """Forget assignments by site and application; unknown ones are fine."""
    if pairs:
        connection.execute(_unassign, [{"at_site": site, "of": application} for site, application in pairs])


def load_assignments(connection: sa.Connection, site: str | None) -> Sequence[AssignmentRecord]:
    """Return all assignments, or those of a site, by site and application."""
    query = sa.select(assignments).order_by(assignments.c.site, assignments.c.application)
    query = query if site is None else query.where(assignments.c.site == site)
    return rows.load_all(connection, query, AssignmentRecord)


def wipe_volumes(connection: sa.Connection, site: str, application: str, audit: Audit) -> int:
    """Raise the count of an assigned application's wipes and return it."""
    if not rows.exists(connection, sa.select(sites.c.name).where(sites.c.name == site)):
        raise Missing("site.unknown", f"there is no site {site}")
    assigned = (assignments.c.site == site) & (assignments.c.application == application)
    if not rows.exists(connection, sa.select(assignments.c.release).where(assigned)):
        hint = "skerry volume list shows the applications of sites"
        raise Missing("assignment.unknown", f"{application} is not assigned to site {site}", hint=hint)
    of = (wipes.c.site == site) & (wipes.c.application == application)
    asked = {"asked_at": audit.at, "asked_by": audit.who}
    if rows.changed(connection, sa.update(wipes).where(of).values(count=wipes.c.count + 1, **asked)) == 0:
        connection.execute(sa.insert(wipes), {"site": site, "application": application, "count": 1, **asked})
    add_audit(connection, audit)
    return int(connection.execute(sa.select(wipes.c.count).where(of)).scalar_one())


def load_wipes(connection: sa.Connection, site: str) -> Mapping[str, int]:
    """Return how often the volumes of a site's applications were to be emptied."""
    found = connection.execute(sa.select(wipes.c.application, wipes.c.count).where(wipes.c.site == site))
    return {str(application): int(count) for application, count in found}


def remove_rollout(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a rollout that has ended."""
    if rows.changed(connection, sa.delete(rollouts).where(rollouts.c.name == name, sa.not_(_running))) == 0:
        if load_rollout(connection, name) is None:
            raise _unknown_rollout(name)
        raise Conflict(
            "rollout.running", f"rollout {name} is running", hint="wait for its end, or supersede it"
        )
    add_audit(connection, audit)


def _unknown_rollout(name: str) -> Missing:
    return Missing("rollout.unknown", f"there is no rollout {name}")
