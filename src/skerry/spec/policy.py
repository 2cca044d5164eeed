"""`Policy`: what evidence a release must carry before it may begin to reach sites.

A requirement is one line of text, one of:

- `sbom`, `vulnerabilities`, `model-card`, `evaluation`, `attestation`: evidence of that kind is attached;
- `eval.accuracy >= 0.92`, `vulnerabilities.critical == 0`, `sbom.components > 0`: a figure of it, and a number;
- `attestation by ci`, `attestation of https://slsa.dev/provenance/v1 by ci`: an attestation, of a predicate type, that
  the key `ci` of `attestation_keys` signed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skerry.spec.checks_files import check_unique
from skerry.spec.evidence import EVIDENCE_KINDS, EvidenceKind
from skerry.spec.metadata import Document, Name, Part
from skerry.spec.problems import Problem

Enforce = Literal["block", "warn"]
Comparison = Literal[">=", "<=", ">", "<", "==", "!="]

SEVERITIES = ("critical", "high", "medium", "low", "negligible", "unknown")
FIGURES: dict[EvidenceKind, tuple[str, ...]] = {
    "sbom": ("components",),
    "vulnerabilities": (*SEVERITIES, "total", "excused"),
}
"""The figures of the kinds that have a fixed set of them; those of an evaluation are its metrics."""

_prefixes: dict[str, EvidenceKind] = {
    "eval": "evaluation",
    "evaluation": "evaluation",
    "sbom": "sbom",
    "vulnerabilities": "vulnerabilities",
}

METRIC_PATTERN = r"[A-Za-z][A-Za-z0-9_.:@-]{0,62}"
PEM_HEAD = "-----BEGIN PUBLIC KEY-----"
_PEM_FOOT = "-----END PUBLIC KEY-----"

_example = "such as sbom, eval.accuracy >= 0.92, vulnerabilities.critical == 0 or attestation by ci"

ApplicationGlob = Annotated[
    str,
    Meta(pattern=r"^[a-z0-9*?-]{1,63}$", description="an application's name; * stands for any part of it"),
]

RequirementText = Annotated[str, Meta(min_length=1, max_length=512, description=_example)]

_figure_re = re.compile(rf"^([a-z-]+)\.({METRIC_PATTERN})\s*(>=|<=|==|!=|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)$")
_attested_re = re.compile(r"^attestation(?:\s+of\s+(\S+))?\s+by\s+([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)$")


class PolicySpec(Part, frozen=True, kw_only=True):
    """Of the releases of these applications all of this is required.

    With `enforce: block` a release that lacks some of it gets to no further site; with `warn` that is only said.
    """

    applications: Annotated[tuple[ApplicationGlob, ...], Meta(min_length=1, max_length=256)] = ("*",)
    require: Annotated[tuple[RequirementText, ...], Meta(min_length=1, max_length=64)]
    attestation_keys: Annotated[dict[Name, Annotated[str, Meta(max_length=4096)]], Meta(max_length=64)] = {}
    enforce: Enforce = "block"


class Policy(Document, frozen=True, kw_only=True, tag="Policy"):
    """What releases must prove before they are rolled out."""

    spec: PolicySpec


class Attached(msgspec.Struct, frozen=True):
    """Evidence of this kind is attached."""

    kind: EvidenceKind


class Figure(msgspec.Struct, frozen=True):
    """A figure of evidence of this kind compares with a number as stated."""

    kind: EvidenceKind
    name: str
    comparison: Comparison
    number: Decimal


class AttestedBy(msgspec.Struct, frozen=True):
    """An attestation of this predicate type, or of any when empty, is signed by the key of this name."""

    key: str
    predicate_type: str = ""


Requirement = Attached | Figure | AttestedBy


def parse_requirement(text: str) -> Requirement | Problem:
    """Return what a line of `require` says, or what is wrong with it (the problem's path is left empty)."""
    text = text.strip()
    if text in EVIDENCE_KINDS:
        return Attached(text)
    if text.startswith("attestation "):
        match = _attested_re.match(text)
        if match is None:
            return Problem("", f"not a requirement: {text[:80]!r}", "write attestation by NAME-OF-A-KEY")
        return AttestedBy(match[2], match[1] or "")
    if match := _figure_re.match(text):
        return _figure(text, match)
    return Problem("", f"not a requirement: {text[:80]!r}", _hint(text))


def check_policy(policy: Policy) -> Iterator[Problem]:
    """Yield the problems of a policy: requirements that are none, keys that are missing or none."""
    spec = policy.spec
    yield from check_unique("spec.require", "requirement", (" ".join(text.split()) for text in spec.require))
    for index, text in enumerate(spec.require):
        path = f"spec.require[{index}]"
        found = parse_requirement(text)
        if isinstance(found, Problem):
            yield msgspec.structs.replace(found, path=path)
        elif isinstance(found, AttestedBy) and found.key not in spec.attestation_keys:
            known = ", ".join(spec.attestation_keys) or "none"
            hint = f"give its public key in spec.attestation_keys; known there: {known}"
            yield Problem(path, f"there is no key named {found.key}", hint)
    for name, key in spec.attestation_keys.items():
        # What stands there is never shown: it may be a private key that was pasted by mistake.
        if problem := _key_problem(key):
            hint = "write 32 bytes of Ed25519 in base64, or a public key in PEM"
            yield Problem(f"spec.attestation_keys.{name}", problem, hint)


def _figure(text: str, match: re.Match[str]) -> Requirement | Problem:
    prefix, name = match[1], match[2]
    kind = _prefixes.get(prefix)
    if kind is None:
        return Problem("", f"there are no figures of {prefix!r}", _hint(text))
    known = FIGURES.get(kind)
    if known is not None and name not in known:
        hint = f"known: {', '.join(f'{prefix}.{figure}' for figure in known)}"
        return Problem("", f"there is no figure {prefix}.{name}", hint)
    comparison: Comparison = msgspec.convert(match[3], Comparison)
    return Figure(kind, name, comparison, Decimal(match[4]))


def _hint(text: str) -> str:
    word = re.split(r"[\s<>=!]", text, maxsplit=1)[0]
    if word.startswith(("eval.", "evaluation.")):
        return f"compare it with a number: {word[:60]} >= 0.92"
    if word.startswith(("sbom.", "vulnerabilities.")):
        return f"compare it with a number: {word[:60]} == 0"
    return _example


def _key_problem(key: str) -> str:
    text = key.strip()
    if "PRIVATE KEY" in text:
        return "this is a private key: make a new pair, and give the public one"
    if text.startswith(PEM_HEAD) and text.endswith(_PEM_FOOT):
        body = "".join(text.removeprefix(PEM_HEAD).removesuffix(_PEM_FOOT).split())
        return "" if len(_decoded(body)) > 32 else "not a public key"
    return "" if len(_decoded(text)) == 32 else "not a public key"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
