"""Policies decided: policies, an application's release and its evidence to a decision in which all is explained.

Rules: what is absent satisfies nothing; counts of several reports add up; a metric must hold in every evaluation that
states it, and one must; a signature counts only for the key that the policy names.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase

import msgspec

from skerry.kit.errors import Untrusted
from skerry.spec.api_policy import PolicyDecision, PolicyResult, RequirementResult
from skerry.spec.evidence import Evidence, EvidenceKind
from skerry.spec.policy import Attached, AttestedBy, Comparison, Figure, Policy, parse_requirement
from skerry.spec.problems import Problem
from skerry.trust.attestations import is_signed_by, read_attestation_key

_compare: Mapping[Comparison, Callable[[Decimal, Decimal], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_of: Mapping[EvidenceKind, str] = {
    "sbom": "an SBOM",
    "vulnerabilities": "a vulnerability report",
    "model-card": "a model card",
    "evaluation": "an evaluation",
    "attestation": "an attestation",
}

Answer = tuple[bool, str]


class Proof(msgspec.Struct, frozen=True):
    """What a release is judged by: its evidence and, by digest, the content of its attestations."""

    release: str
    application: str
    evidence: Sequence[Evidence]
    attestations: Mapping[str, bytes] = {}


def applies_to(policy: Policy, application: str) -> bool:
    """Tell whether a policy is for releases of an application."""
    return any(fnmatchcase(application, glob) for glob in policy.spec.applications)


def needs_attestations(policies: Iterable[Policy]) -> bool:
    """Tell whether the content of attestations must be at hand to decide these policies."""
    return any(
        isinstance(parse_requirement(text), AttestedBy) for policy in policies for text in policy.spec.require
    )


def check_policy_keys(policy: Policy) -> Iterator[Problem]:
    """Yield the keys of a policy with which nothing can be verified."""
    for name, text in policy.spec.attestation_keys.items():
        try:
            read_attestation_key(text)
        except Untrusted as error:
            yield Problem(f"spec.attestation_keys.{name}", error.message)


def decide_policies(policies: Iterable[Policy], proof: Proof) -> PolicyDecision:
    """Return what every policy for the release's application says of it, by name; those for others are left out."""
    results = tuple(
        _judge(policy, proof)
        for policy in sorted(policies, key=lambda policy: policy.metadata.name)
        if applies_to(policy, proof.application)
    )
    satisfied = all(result.satisfied for result in results if result.enforce == "block")
    return PolicyDecision(release=proof.release, satisfied=satisfied, policies=results)


def _judge(policy: Policy, proof: Proof) -> PolicyResult:
    requirements: list[RequirementResult] = []
    for text in policy.spec.require:
        satisfied, why = _answer(text, policy, proof)
        requirements.append(RequirementResult(requirement=text, satisfied=satisfied, why=why))
    return PolicyResult(
        policy=policy.metadata.name,
        enforce=policy.spec.enforce,
        satisfied=all(one.satisfied for one in requirements),
        requirements=tuple(requirements),
    )


def _answer(text: str, policy: Policy, proof: Proof) -> Answer:
    match parse_requirement(text):
        case Attached(kind):
            return _attached(kind, proof)
        case Figure() as figure:
            return _figure(figure, proof)
        case AttestedBy() as attested:
            return _attested(attested, policy, proof)
        case Problem(message=message):
            # Written by a newer hub, perhaps: what cannot be understood is not satisfied.
            return False, message


def _attached(kind: EvidenceKind, proof: Proof) -> Answer:
    formats = [one.format for one in proof.evidence if one.kind == kind]
    if not formats:
        return False, f"{_of[kind]} is not attached"
    return True, f"{_of[kind]} is attached ({', '.join(formats)})"


def _figure(wanted: Figure, proof: Proof) -> Answer:
    attached = [one for one in proof.evidence if one.kind == wanted.kind]
    if not attached:
        return False, f"{_of[wanted.kind]} is not attached"
    if wanted.kind == "evaluation":
        return _metric(wanted, attached)
    counts = [one.summary.get(wanted.name) for one in attached]
    if not all(isinstance(count, int) for count in counts):
        return False, f"{_of[wanted.kind]} does not state {wanted.name}"
    total = sum(count for count in counts if isinstance(count, int))
    over = f" over {len(counts)} files" if len(counts) > 1 else ""
    return _compared(Decimal(total), wanted, f"{wanted.name} is {total}{over}")


def _metric(wanted: Figure, evaluations: Sequence[Evidence]) -> Answer:
    stated = [
        (str(one.summary.get("model", "")), str(one.summary[f"metrics.{wanted.name}"]))
        for one in evaluations
        if f"metrics.{wanted.name}" in one.summary
    ]
    if not stated:
        known = sorted(
            {n.removeprefix("metrics.") for e in evaluations for n in e.summary if "metrics." in n}
        )
        return False, f"no evaluation states {wanted.name}; stated: {', '.join(known)}"
    answers = [
        _compared(Decimal(value), wanted, f"{wanted.name} of {model} is {value}") for model, value in stated
    ]
    failed = [why for satisfied, why in answers if not satisfied]
    return (False, "; ".join(failed)) if failed else (True, "; ".join(why for _, why in answers))


def _compared(value: Decimal, wanted: Figure, said: str) -> Answer:
    satisfied = _compare[wanted.comparison](value, wanted.number)
    needed = f"{wanted.comparison} {wanted.number:f}"
    return satisfied, f"{said}, {'which is' if satisfied else 'required is'} {needed}"


def _attested(wanted: AttestedBy, policy: Policy, proof: Proof) -> Answer:
    what = f"an attestation of {wanted.predicate_type}" if wanted.predicate_type else "an attestation"
    attached = [
        one
        for one in proof.evidence
        if one.kind == "attestation" and wanted.predicate_type in ("", one.summary.get("predicate_type"))
    ]
    if not attached:
        return False, f"{what} is not attached"
    try:
        key = read_attestation_key(policy.spec.attestation_keys.get(wanted.key, ""))
    except Untrusted as error:
        return False, f"the policy's key {wanted.key} cannot be used: {error.message}"
    for one in attached:
        content = proof.attestations.get(one.digest)
        if content is not None and is_signed_by(content, key):
            about = "the release" if one.summary.get("about") == "release" else "files of the release"
            return (
                True,
                f"{wanted.key} signed an attestation of {about} ({one.summary.get('predicate_type')})",
            )
    lost = sum(one.digest not in proof.attestations for one in attached)
    missing = f"; {lost} of them cannot be read on the hub" if lost else ""
    return False, f"none of {len(attached)} attached is signed by {wanted.key}{missing}"
