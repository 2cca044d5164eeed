"""Evidence, policies and what they say of releases, as lines of text; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from skerry.cli.text import age, plural
from skerry.kit.digests import short
from skerry.kit.quantities import format_size
from skerry.spec.api_policy import PolicyDecision, PolicyResult, PolicyView
from skerry.spec.evidence import Evidence
from skerry.spec.overriding import Override

Lines = Iterator[str]

_shown = ("critical", "high", "medium", "low", "total", "excused")


def evidence_lines(evidence: Sequence[Evidence]) -> Lines:
    """Say what evidence a release carries, each with its summary."""
    yield "Evidence:" if evidence else "Evidence:      none"
    for one in evidence:
        size = f"{one.format}, {format_size(one.size_bytes)}, {short(one.digest)}"
        yield f"  {one.kind} ({size}): {summary_of(one)}"


def summary_of(evidence: Evidence) -> str:
    """Return what evidence says, in one line."""
    summary = evidence.summary
    match evidence.kind:
        case "sbom":
            count = summary.get("components", 0)
            return plural(count, "component") if isinstance(count, int) else str(count)
        case "vulnerabilities":
            return ", ".join(f"{summary[name]} {name}" for name in _shown if name in summary)
        case "model-card":
            return f"{summary.get('title', '')} ({summary.get('words', 0)} words)"
        case "evaluation":
            metrics = [
                f"{name.removeprefix('metrics.')} {value}"
                for name, value in sorted(summary.items())
                if name.startswith("metrics.")
            ]
            on = f" on {summary['dataset']}" if "dataset" in summary else ""
            return f"{summary.get('model', '')}{on}: {', '.join(metrics)}"
        case "attestation":
            about = "the release" if summary.get("about") == "release" else "files of the release"
            return f"{summary.get('predicate_type', '')} of {about}"


def override_lines(override: Override, *, at: datetime) -> Lines:
    """Say who let a rollout begin in spite of policies, why, and in spite of what."""
    yield f"Override:      {age(override.at, at)} by {override.who}: {override.reason}"
    for one in override.failures:
        yield f"  policy {one.policy} requires {one.requirement}: {one.why}"


def policy_lines(view: PolicyView, *, at: datetime) -> Lines:
    """Say everything about a policy."""
    yield f"Policy:        {view.name}"
    yield f"Applications:  {', '.join(view.applications)}"
    yield f"Enforce:       {view.enforce}"
    yield f"Changed:       {age(view.changed_at, at)} by {view.changed_by}"
    yield "Requires:"
    for requirement in view.require:
        yield f"  {requirement}"
    for key in view.document.get("spec", {}).get("attestation_keys", {}):
        yield f"  key {key}"


def decision_sentences(decision: PolicyDecision) -> Lines:
    """Say what each policy says of a release, requirement by requirement."""
    if not decision.policies:
        yield f"No policy is for the application of {decision.release}: it may be rolled out."
        return
    for result in decision.policies:
        yield f"Policy {result.policy} {_verdict(result)}:"
        for one in result.requirements:
            yield f"  {'yes' if one.satisfied else 'no '}  {one.requirement}: {one.why}"
    if decision.satisfied:
        yield f"{decision.release} may be rolled out."
    else:
        yield f"{decision.release} is offered to no further site, unless an admin overrides that for a rollout."


def _verdict(result: PolicyResult) -> str:
    if result.satisfied:
        return "is satisfied"
    return "is not satisfied, and blocks" if result.enforce == "block" else "is not satisfied, and only warns"
