"""Policies, what they say of releases, the evidence that they go by, and rollouts that begin in spite of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from litestar import delete, get
from litestar.params import FromPath
from litestar.response import Stream

from skerry.hub.api.operators import ApiRequest, TheHub, audit_of
from skerry.hub.api.served import served_by
from skerry.hub.judging import told, uncovered
from skerry.hub.services import Hub
from skerry.hub.views import view_policy
from skerry.kit.errors import Denied, Missing
from skerry.ports.hub_store import Audit, ReleaseRecord, RolloutRecord
from skerry.spec.api_policy import PolicyDecision, PolicyView
from skerry.spec.documents import AnyDocument
from skerry.spec.overriding import Override
from skerry.spec.policy import Policy
from skerry.spec.problems import Problem
from skerry.trust.policy import check_policy_keys


class Judged(msgspec.Struct, frozen=True):
    """Rollouts that may begin, with their overrides; what is to be audited and said; what is wrong."""

    rollouts: Sequence[RolloutRecord]
    audits: Sequence[Audit]
    warnings: tuple[str, ...]
    problems: Sequence[Problem]


@get("/policies", sync_to_thread=True)
def list_policies(hub: TheHub) -> list[PolicyView]:
    """List policies, by name."""
    return [view_policy(record) for record in hub.store.policies()]


@get("/policies/{name:str}", sync_to_thread=True)
def show_policy(name: FromPath[str], hub: TheHub) -> PolicyView:
    """Show one policy."""
    for record in hub.store.policies():
        if record.name == name:
            return view_policy(record)
    raise Missing("policy.missing", f"there is no policy {name}", hint="skerry get policies lists them")


@delete("/policies/{name:str}")
async def remove_policy(name: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Forget a policy: releases need no longer satisfy it."""
    audit = audit_of(hub, request, "policy.remove", f"policy:{name}")
    await asyncio.to_thread(hub.store.remove_policy, name, audit)
    hub.rollouts.wake()


@get("/releases/{name:str}/policies")
async def explain_policies(name: FromPath[str], hub: TheHub) -> PolicyDecision:
    """Say what each policy says of a release, requirement by requirement."""
    return await hub.judge.decide(await _release(hub, name))


@get("/releases/{name:str}/evidence/{digest:str}", media_type="application/octet-stream")
async def download_evidence(name: FromPath[str], digest: FromPath[str], hub: TheHub) -> Stream:
    """Give the file of a release's evidence."""
    release = await _release(hub, name)
    found = next((one for one in release.evidence if one.digest == digest), None)
    if found is None or await hub.blobs.size(found.digest) != found.size_bytes:
        raise Missing("evidence.missing", f"{name} has no evidence {digest}")
    headers = {"content-length": str(found.size_bytes)}
    return Stream(hub.blobs.read(found.digest), media_type="application/octet-stream", headers=headers)


async def require_admin(request: ApiRequest, what: str) -> None:
    """Let admins alone do what overrules or changes policies.

    Raises:
        Denied: the caller is none (`policy.admin`); that is audited.
    """
    if request.user.role != "admin":
        door = served_by(request).door
        await door.refusals.note(request.user.name, "refused", f"{request.method} {request.url.path}")
        raise Denied("policy.admin", f"only an admin may {what}", hint="ask one, or use an admin's token")


async def judge_rollouts(
    hub: Hub,
    rollouts: Sequence[RolloutRecord],
    documents: Sequence[AnyDocument],
    *,
    who: str,
    reason: str,
) -> Judged:
    """Hold new rollouts against the policies, those that are stored with them included."""
    changed = [document for document in documents if isinstance(document, Policy)]
    allowed: list[RolloutRecord] = []
    audits: list[Audit] = []
    warnings: list[str] = []
    problems: list[Problem] = []
    for rollout in rollouts:
        release = await asyncio.to_thread(hub.store.release, rollout.release)
        if release is None:  # it was there a moment ago
            where = f"Rollout {rollout.name}: spec.release"
            problems.append(Problem(where, f"there is no release {rollout.release} any more"))
            continue
        decision = await hub.judge.decide(release, changed)
        warnings += [
            f"policy {one.policy} wants {one.requirement}: {one.why}" for one in decision.failures("warn")
        ]
        lacking = uncovered(decision, None)
        if lacking and reason:
            now = hub.clock.now()
            override = Override(who=who, at=now, reason=reason, failures=tuple(lacking))
            rollout = msgspec.structs.replace(rollout, override=override)
            outcome = f"{reason} ({told(lacking, release.name)})"
            subject = f"rollout:{rollout.name}"
            audits.append(Audit(at=now, who=who, action="policy.override", subject=subject, outcome=outcome))
        elif lacking:
            where = f"Rollout {rollout.name}: spec.release"
            hint = f"skerry explain policy {release.name}; an admin can use --override-policy REASON"
            problems += [
                Problem(where, f"policy {one.policy} requires {one.requirement}: {one.why}", hint)
                for one in lacking
            ]
        elif reason:
            warnings.append(f"{release.name} satisfies every policy that blocks: nothing was overridden")
        allowed.append(rollout)
    return Judged(allowed, audits, tuple(warnings), problems)


def check_keys(documents: Sequence[AnyDocument]) -> list[Problem]:
    """Return the keys of policies with which nothing can be verified."""
    return [
        msgspec.structs.replace(problem, path=f"Policy {document.metadata.name}: {problem.path}")
        for document in documents
        if isinstance(document, Policy)
        for problem in check_policy_keys(document)
    ]


async def _release(hub: Hub, name: str) -> ReleaseRecord:
    record = await asyncio.to_thread(hub.store.release, name)
    if record is None:
        raise Missing("release.missing", f"there is no release {name}", hint="skerry get releases lists them")
    return record


HANDLERS = [list_policies, show_policy, remove_policy, explain_policies, download_evidence]
