"""Applying documents, and rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub import steering
from skerry.hub.api.configurations import ConfigurationPlan, check_configuration_scope
from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.api.policies import Judged, check_keys, judge_rollouts, require_admin
from skerry.hub.api.relays import check_relays
from skerry.hub.api.scope import Seen
from skerry.hub.api.served import served_by
from skerry.hub.api.sinks import check_sinks
from skerry.hub.joining import check_joined
from skerry.hub.routing import check_routes
from skerry.hub.secret_checks import check_secrets, check_ties
from skerry.hub.services import Hub
from skerry.hub.views import as_json, view_rollout
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Conflict, Denied, Missing, Rejected
from skerry.kit.ids import split_release_name
from skerry.matching.selecting import check_selected
from skerry.ports.configurations import ConfigurationChanges
from skerry.ports.hub_store import Audit, RolloutRecord
from skerry.ports.policies import PolicyRecord
from skerry.ports.sink_store import SinkRecord
from skerry.spec.api import ApplyAnswer, ApplyRequest, Change, RolloutView
from skerry.spec.api_configuration import ConfigurationEffect
from skerry.spec.api_rollout import AbortRequest, ApproveRequest, PauseRequest
from skerry.spec.checks_gates import check_gates_told
from skerry.spec.configuration import Configuration
from skerry.spec.documents import AnyDocument, kind_of
from skerry.spec.parsing import parse_raw
from skerry.spec.policy import Policy
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.relay import Relay
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.sink import Sink
from skerry.spec.site import Site


class _Planned(msgspec.Struct, frozen=True):
    """What applying documents changes."""

    changes: list[Change]
    sites: dict[str, bytes]
    rollouts: list[RolloutRecord]
    policies: list[PolicyRecord]
    sinks: list[SinkRecord]
    relays: dict[str, bytes]
    configurations: ConfigurationChanges
    effects: tuple[ConfigurationEffect, ...]
    problems: list[Problem]


@post("/apply", status_code=200, request_max_body_size=32 << 20)
async def apply_documents(
    data: JSONBody[ApplyRequest], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> ApplyAnswer:
    """Store documents together, all or none; a dry run says what would change.

    A token that is limited to sites changes no others, and its rollouts get those sites alone.
    """
    # One at a time: between the look at a site and its change, nobody may take it out of the caller's scope.
    door = served_by(request).door
    async with door.applying:
        return await _apply(data, hub, seen, request)


async def _apply(data: ApplyRequest, hub: Hub, seen: Seen, request: ApiRequest) -> ApplyAnswer:
    parsed = await asyncio.to_thread(_parse, data)
    if problems := await asyncio.to_thread(_check_scope, hub, parsed, seen):
        await _note_scope(request)
        raise DocumentRejected(problems)
    planned = await asyncio.to_thread(_plan, parsed, hub, seen, request.user.name)
    changes, sites = planned.changes, planned.sites
    judged = await _judge(planned, parsed, data.override_policy.strip(), hub, request)
    if data.dry_run:
        return ApplyAnswer(
            changes=tuple(changes), dry_run=True, warnings=judged.warnings, effects=planned.effects
        )
    audits = [
        audit_of(
            hub, request, f"{change.kind.lower()}.{change.action}", f"{change.kind.lower()}:{change.name}"
        )
        for change in changes
        if change.action != "unchanged"
    ]
    audits += judged.audits
    if audits:
        await asyncio.to_thread(
            hub.store.apply_documents,
            sites=sites,
            rollouts=judged.rollouts,
            audits=audits,
            fleetwide=[*planned.policies, *planned.sinks],
            relays=planned.relays,
            configurations=planned.configurations,
        )
    if planned.relays:
        await hub.backend.relays.reload(planned.relays)
    for name in sites:
        await hub.issuer.issue(name)
    hub.rollouts.wake()
    if planned.sinks:
        hub.sinks.wake()
    return ApplyAnswer(changes=tuple(changes), warnings=judged.warnings, effects=planned.effects)


async def _judge(
    planned: _Planned, parsed: list[AnyDocument], reason: str, hub: Hub, request: ApiRequest
) -> Judged:
    """Hold what is to begin against the policies, and let only admins change or overrule those."""
    if planned.policies:
        await require_admin(request, "change policies")
    if planned.sinks:
        await require_admin(request, "change sinks")
    if reason:
        await require_admin(request, "override a policy")
        begun = [c.name for c in planned.changes if c.kind == "Rollout" and c.action == "unchanged"]
        if begun:
            hint = "start it once more under another name"
            raise Conflict("rollout.immutable", f"rollout {begun[0]} has begun already", hint=hint)
    problems = [*planned.problems, *await asyncio.to_thread(check_keys, parsed)]
    told = {problem.path for problem in problems}
    # Of a release that is not there policies have nothing to say.
    known = [record for record in planned.rollouts if f"Rollout {record.name}: spec.release" not in told]
    judged = await judge_rollouts(hub, known, parsed, who=request.user.name, reason=reason)
    if problems := [*problems, *judged.problems]:
        raise DocumentRejected(problems)
    return judged


@get("/rollouts", sync_to_thread=True)
def list_rollouts(hub: TheHub, seen: TheSeen) -> list[RolloutView]:
    """List rollouts, the oldest first."""
    return [view for record in hub.store.rollouts() if (view := seen.rollout(record)) is not None]


@get("/rollouts/{name:str}", sync_to_thread=True)
def show_rollout(name: FromPath[str], hub: TheHub, seen: TheSeen) -> RolloutView:
    """Show one rollout."""
    record = hub.store.rollout(name)
    view = seen.rollout(record) if record is not None else None
    if view is None:
        raise Missing("rollout.missing", f"there is no rollout {name}", hint="skerry get rollouts lists them")
    return view


@delete("/rollouts/{name:str}")
async def remove_rollout(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> None:
    """Forget a rollout that has ended; what it assigned stays."""
    await _require_whole(hub, seen, name, request)
    audit = audit_of(hub, request, "rollout.remove", f"rollout:{name}")
    await asyncio.to_thread(hub.store.remove_rollout, name, audit)


@post("/rollouts/{name:str}/retry", status_code=200)
async def retry_rollout(
    name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest, *, dry_run: FromQuery[bool] = False
) -> RolloutView:
    """Try a failed or aborted rollout again: hosts that refused the release take it once more."""
    audit, now = await _steering_audit("retry", name, hub, seen, request), hub.clock.now()
    steered = await asyncio.to_thread(steering.retry, hub.store, name, audit, now, dry_run=dry_run)
    return _steered(hub, steered, dry_run=dry_run)


@post("/rollouts/{name:str}/pause", status_code=200)
async def pause_rollout(
    name: FromPath[str],
    data: JSONBody[PauseRequest],
    hub: TheHub,
    seen: TheSeen,
    request: ApiRequest,
    *,
    dry_run: FromQuery[bool] = False,
) -> RolloutView:
    """Offer the release to nobody until the rollout is resumed; what has begun goes on."""
    audit = await _steering_audit("pause", name, hub, seen, request)
    steered = await asyncio.to_thread(steering.pause, hub.store, name, audit, data.why, dry_run=dry_run)
    return _steered(hub, steered, dry_run=dry_run)


@post("/rollouts/{name:str}/resume", status_code=200)
async def resume_rollout(
    name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest, *, dry_run: FromQuery[bool] = False
) -> RolloutView:
    """Go on with a paused rollout; failures that paused it are accepted."""
    audit = await _steering_audit("resume", name, hub, seen, request)
    steered = await asyncio.to_thread(steering.resume, hub.store, name, audit, dry_run=dry_run)
    return _steered(hub, steered, dry_run=dry_run)


@post("/rollouts/{name:str}/approve", status_code=200)
async def approve_rollout(
    name: FromPath[str],
    data: JSONBody[ApproveRequest],
    hub: TheHub,
    seen: TheSeen,
    request: ApiRequest,
    *,
    dry_run: FromQuery[bool] = False,
) -> RolloutView:
    """Let a wave begin that waits for approval."""
    audit = await _steering_audit("approve", name, hub, seen, request)
    steered = await asyncio.to_thread(steering.approve, hub.store, name, audit, data.wave, dry_run=dry_run)
    return _steered(hub, steered, dry_run=dry_run)


@post("/rollouts/{name:str}/abort", status_code=200)
async def abort_rollout(
    name: FromPath[str],
    data: JSONBody[AbortRequest],
    hub: TheHub,
    seen: TheSeen,
    request: ApiRequest,
    *,
    dry_run: FromQuery[bool] = False,
) -> RolloutView:
    """End a rollout: sites keep the release, or it is taken back from them."""
    audit = await _steering_audit("abort", name, hub, seen, request)
    steered = await asyncio.to_thread(steering.abort, hub.store, name, audit, data, dry_run=dry_run)
    return _steered(hub, steered, dry_run=dry_run)


async def _steering_audit(verb: str, name: str, hub: Hub, seen: Seen, request: ApiRequest) -> Audit:
    await _require_whole(hub, seen, name, request)
    return audit_of(hub, request, f"rollout.{verb}", f"rollout:{name}")


def _steered(hub: Hub, record: RolloutRecord, *, dry_run: bool) -> RolloutView:
    if not dry_run:
        hub.rollouts.wake()
    return view_rollout(record)


async def _require_whole(hub: Hub, seen: Seen, name: str, request: ApiRequest) -> None:
    record = await asyncio.to_thread(hub.store.rollout, name)
    if record is None:
        return
    try:
        await asyncio.to_thread(seen.require_whole, record)
    except Denied:
        await _note_scope(request)
        raise


async def _note_scope(request: ApiRequest) -> None:
    door = served_by(request).door
    await door.refusals.note(request.user.name, "refused.scope", f"{request.method} {request.url.path}")


def _plan(parsed: list[AnyDocument], hub: Hub, seen: Seen, who: str) -> _Planned:
    """Check every document against what is there; collect all problems. Nothing is stored yet."""
    documents = [_narrow(document, seen) for document in parsed]
    changes: list[Change] = []
    sites: dict[str, bytes] = {}
    rollouts: list[RolloutRecord] = []
    policies: list[PolicyRecord] = []
    sinks: list[SinkRecord] = []
    relays: dict[str, bytes] = {}
    configuring = ConfigurationPlan(hub, documents, who)
    problems = [*check_relays(hub, documents), *check_sinks(hub, documents)]
    for document in documents:
        before = _stored(hub, document)
        content = encode_canonical(document)
        name = document.metadata.name
        same = before == content
        if isinstance(document, Site) and not same:
            sites[name] = content
        elif isinstance(document, Relay) and not same:
            relays[name] = content
        elif isinstance(document, Policy) and not same:
            policies.append(
                PolicyRecord(name=name, document=content, changed_at=hub.clock.now(), changed_by=who)
            )
        elif isinstance(document, Sink) and not same:
            sinks.append(SinkRecord(name=name, document=content, changed_at=hub.clock.now(), changed_by=who))
        elif isinstance(document, Rollout) and not same:
            if before is not None:
                hint = "a rollout cannot be changed once it has started: give another name"
                raise Conflict("rollout.immutable", f"rollout {name} is there with other content", hint=hint)
            problems += _check_rollout(hub, document, documents)
            problems += _within(document, configuring.check_rollout(document))
            rollouts.append(configuring.pin(_new_rollout(hub, document, content, who)))
        action: Literal["create", "update", "unchanged"]
        action = "unchanged" if same else "create" if before is None else "update"
        changes.append(
            Change(
                kind=kind_of(document),
                name=name,
                action=action,
                before=as_json(before) if before else None,
                after=as_json(content),
            )
        )
    problems += check_ties(hub, [document for document in documents if isinstance(document, Site)])
    found = configuring.check()
    problems += found.problems
    return _Planned(
        changes,
        sites,
        rollouts,
        policies,
        sinks,
        relays,
        configurations=configuring.changes,
        effects=found.effects,
        problems=problems,
    )


def _parse(data: ApplyRequest) -> list[AnyDocument]:
    documents: list[AnyDocument] = []
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for index, raw in enumerate(data.documents):
        try:
            document = parse_raw(raw)
        except DocumentRejected as error:
            problems.extend(
                msgspec.structs.replace(
                    p, path=f"documents[{index}].{p.path}" if p.path else f"documents[{index}]"
                )
                for p in error.problems
            )
            continue
        key = (kind_of(document), document.metadata.name)
        if key in seen:
            problems.append(Problem(f"documents[{index}]", f"{key[0]} {key[1]} is there twice"))
        seen.add(key)
        if not isinstance(document, Site | Rollout | Policy | Relay | Configuration | Sink):
            hint = "applications and models come with a release: skerry release push FILE"
            problems.append(Problem(f"documents[{index}].kind", f"a {key[0]} is not applied", hint))
        documents.append(document)
    if problems:
        raise DocumentRejected(problems)
    return documents


def _narrow(document: AnyDocument, seen: Seen) -> AnyDocument:
    """Limit a rollout to the caller's sites. A selector that is none is left to be found later."""
    if not isinstance(document, Rollout):
        return document
    try:
        sites = seen.scope.narrow(document.spec.sites)
    except Rejected:
        return document
    return msgspec.structs.replace(document, spec=msgspec.structs.replace(document.spec, sites=sites))


def _check_scope(hub: Hub, documents: list[AnyDocument], seen: Seen) -> list[Problem]:
    """A site must be the caller's as it is and as it is to be: labels do not move it in or out."""
    problems: list[Problem] = []
    if not seen.scope.limited:
        return problems
    hint = f"this token is for {seen.scope.text}"
    for document in documents:
        name = document.metadata.name
        if isinstance(document, Policy):
            problems.append(Problem(f"Policy {name}", "a policy is for all sites", hint))
        if isinstance(document, Sink):
            problems.append(Problem(f"Sink {name}", "a sink is for all sites", hint))
        if isinstance(document, Relay):
            problems.append(Problem(f"Relay {name}", "a relay is for all sites", hint))
        if isinstance(document, Configuration):
            problems += check_configuration_scope(hub, document, seen)
        if not isinstance(document, Site):
            continue
        stored = hub.store.site(name)
        if not seen.scope.covers(name, document.metadata.labels):
            what = "the site would not be one of this token's"
            problems.append(Problem(f"Site {name}: metadata.labels", what, hint))
        elif stored is not None and not seen.covers(stored):
            problems.append(
                Problem(f"Site {name}: metadata.name", "the name is not free to this token", hint)
            )
    return problems


def _stored(hub: Hub, document: AnyDocument) -> bytes | None:
    name = document.metadata.name
    if isinstance(document, Policy):
        return next((policy.document for policy in hub.store.policies() if policy.name == name), None)
    if isinstance(document, Sink):
        return next((sink.document for sink in hub.store.sinks() if sink.name == name), None)
    if isinstance(document, Configuration):
        held = (one for one in hub.store.configurations() if one.name == name)
        return next((one.document for one in held), None)
    if isinstance(document, Relay):
        relay = hub.store.relay(name)
        return relay.document if relay else None
    record = hub.store.site(name) if isinstance(document, Site) else hub.store.rollout(name)
    return record.document if record else None


def _check_rollout(hub: Hub, rollout: Rollout, documents: list[AnyDocument]) -> list[Problem]:
    problems: list[Problem] = []
    new_sites = [d for d in documents if isinstance(d, Site)]
    # One that is there already, and is applied again, is among what the sites have.
    beside = [d.spec for d in documents if isinstance(d, Rollout) and _stored(hub, d) is None]
    where = f"Rollout {rollout.metadata.name}: spec"
    release = hub.store.release(rollout.spec.release)
    if release is not None and (why := hub.repository.why_revoked(release)):
        problems.append(Problem(f"{where}.release", why, "hosts take it no more: name another release"))
    if release is None:
        known = ", ".join(release.name for release in hub.store.releases()[-5:]) or "none"
        problems.append(
            Problem(
                f"{where}.release", f"there is no release {rollout.spec.release}", f"the newest here: {known}"
            )
        )
    else:
        application = msgspec.json.decode(release.document, type=Release).application
        problems += _within(rollout, check_gates_told(rollout.spec.gates, application.spec))
        problems += _within(rollout, check_secrets(hub, release, rollout.spec.sites, new_sites))
        problems += _within(rollout, check_routes(hub, release, rollout.spec.sites, new_sites, beside=beside))
        problems += _within(rollout, check_joined(hub, release, rollout.spec.sites, new_sites))
    there = [msgspec.json.decode(site.document, type=Site) for site in hub.store.sites()]
    sites = {site.metadata.name: site.metadata.labels for site in [*there, *new_sites]}
    return [*problems, *_within(rollout, check_selected(rollout.spec, sites))]


def _within(rollout: Rollout, problems: Iterable[Problem]) -> list[Problem]:
    where = f"Rollout {rollout.metadata.name}"
    return [msgspec.structs.replace(found, path=f"{where}: {found.path}") for found in problems]


def _new_rollout(hub: Hub, document: Rollout, content: bytes, who: str) -> RolloutRecord:
    parts = split_release_name(document.spec.release)
    return RolloutRecord(
        name=document.metadata.name,
        document=content,
        release=document.spec.release,
        application=parts[0] if parts else "",
        created_at=hub.clock.now(),
        created_by=who,
        why="not looked at yet",
    )


HANDLERS = [
    apply_documents,
    list_rollouts,
    show_rollout,
    remove_rollout,
    retry_rollout,
    pause_rollout,
    resume_rollout,
    approve_rollout,
    abort_rollout,
]
