"""Holds releases against the policies: loads what a decision needs, and keeps decisions while nothing changes.

Rules: a decision is made from what is stored now; evidence that cannot be read satisfies nothing; an override covers
the failures there were when it was given, and no others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from skerry.hub.evidence import check_evidence, load_file
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Unavailable
from skerry.ports.blobs import Blobs
from skerry.ports.hub_store import HubStore, ReleaseRecord, RolloutRecord
from skerry.spec.api_policy import PolicyDecision
from skerry.spec.evidence import Evidence
from skerry.spec.overriding import Failure, Override
from skerry.spec.policy import Policy
from skerry.spec.release import Release
from skerry.trust.policy import Proof, applies_to, decide_policies, needs_attestations

MAX_KEPT = 256
MAX_TOLD = 5

_Key = tuple[tuple[bytes, ...], tuple[Evidence, ...]]


class Judge:
    """Says what policies say of releases. Lives in one event loop."""

    def __init__(self, store: HubStore, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs
        self._kept: dict[str, tuple[_Key, PolicyDecision]] = {}
        self._checking = asyncio.Lock()

    async def decide(self, release: ReleaseRecord, changed: Iterable[Policy] = ()) -> PolicyDecision:
        """Return what the stored policies say of a release, or would with those that are `changed`.

        Raises:
            Unavailable: an attestation cannot be read now.
        """
        stored = await asyncio.to_thread(self._store.policies)
        policies = {record.name: record.document for record in stored}
        policies |= {policy.metadata.name: encode_canonical(policy) for policy in changed}
        key: _Key = (tuple(policies.values()), release.evidence)
        kept = self._kept.get(release.name)
        if kept is not None and kept[0] == key:
            return kept[1]
        parsed = [msgspec.json.decode(document, type=Policy) for document in policies.values()]
        needed = [policy for policy in parsed if applies_to(policy, release.application)]
        contents = await self._attestations(release) if needs_attestations(needed) else {}
        proof = Proof(release.name, release.application, release.evidence, contents)
        decision = await asyncio.to_thread(decide_policies, needed, proof)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[release.name] = (key, decision)
        return decision

    async def check_evidence(self, release: Release, digest: str, evidence: Sequence[Evidence]) -> None:
        """Check the evidence that goes with a release; one release at a time, as each may take much memory.

        Raises:
            DocumentRejected: see `skerry.hub.evidence.check_evidence`.
        """
        async with self._checking:
            await check_evidence(self._blobs, release, digest, evidence)

    async def blocked(self, rollout: RolloutRecord) -> str:
        """Return why a rollout may offer its release to no further site; empty when it may."""
        release = await asyncio.to_thread(self._store.release, rollout.release)
        if release is None:
            return ""
        try:
            decision = await self.decide(release)
        except Unavailable as error:
            # One release's evidence must not hold up the rollouts of others.
            return f"its evidence cannot be read now: {error.message}"
        lacking = uncovered(decision, rollout.override)
        return told(lacking, rollout.release) if lacking else ""

    async def _attestations(self, release: ReleaseRecord) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        for one in release.evidence:
            if one.kind == "attestation":
                content = await load_file(self._blobs, one)
                if content is not None:
                    contents[one.digest] = content
        return contents


def uncovered(decision: PolicyDecision, override: Override | None) -> list[Failure]:
    """Return what blocks and is not overridden."""
    return [one for one in decision.failures("block") if override is None or not override.covers(one)]


def told(failures: Sequence[Failure], release: str) -> str:
    """Return failures in one line, the first of them only when they are many."""
    parts = [f"policy {one.policy} requires {one.requirement}: {one.why}" for one in failures[:MAX_TOLD]]
    if len(failures) > MAX_TOLD:
        parts.append(f"and {len(failures) - MAX_TOLD} more: skerry explain policy {release}")
    return "; ".join(parts)
