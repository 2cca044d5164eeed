"""Policies: what may be required, what satisfies it, and that every answer says why."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.canonical import encode_canonical
from skerry.spec.evidence import EVIDENCE_KINDS, Evidence, EvidenceKind
from skerry.spec.metadata import Metadata
from skerry.spec.parsing import parse_documents
from skerry.spec.policy import (
    Attached,
    AttestedBy,
    Figure,
    Policy,
    PolicySpec,
    check_policy,
    parse_requirement,
)
from skerry.spec.problems import DocumentRejected, Problem
from skerry.trust.keys import SigningKey
from skerry.trust.policy import Proof, check_policy_keys, decide_policies
from tests.unit.evidence_files import SLSA, attestation, ecdsa_attestation

pytestmark = pytest.mark.trust

DIGEST = "sha256:" + "1" * 64
KEY = SigningKey.generate()
PRIVATE = KEY.to_pem().decode()


def policy(*require: str, name: str = "production", **spec: Any) -> Policy:
    return Policy(metadata=Metadata(name), spec=PolicySpec(require=require, **spec))


def evidence(kind: EvidenceKind, *, digest: str = DIGEST, **summary: int | str) -> Evidence:
    return Evidence(kind=kind, format="test", digest=digest, size_bytes=1, summary=summary)


def metrics(model: str = "eye", **values: str) -> Evidence:
    return evidence("evaluation", model=model, **{f"metrics.{name}": value for name, value in values.items()})


def answer(requirement: str, *attached: Evidence, **spec: Any) -> tuple[bool, str]:
    contents = spec.pop("contents", {})
    proof = Proof("camera@1", "camera", attached, contents)
    decision = decide_policies([policy(requirement, **spec)], proof)
    (result,) = decision.policies
    (one,) = result.requirements
    assert decision.satisfied is result.satisfied is one.satisfied
    assert one.requirement == requirement
    return one.satisfied, one.why


# ── what may be written ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("sbom", Attached("sbom")),
        (" model-card ", Attached("model-card")),
        ("eval.accuracy >= 0.92", Figure("evaluation", "accuracy", ">=", Decimal("0.92"))),
        ("eval.mAP@0.5:0.95>0.4", Figure("evaluation", "mAP@0.5:0.95", ">", Decimal("0.4"))),
        ("evaluation.loss < -1", Figure("evaluation", "loss", "<", Decimal(-1))),
        ("vulnerabilities.critical == 0", Figure("vulnerabilities", "critical", "==", Decimal(0))),
        ("sbom.components != 0", Figure("sbom", "components", "!=", Decimal(0))),
        ("attestation by ci", AttestedBy("ci")),
        (f"attestation of {SLSA} by ci", AttestedBy("ci", SLSA)),
    ),
)
def test_a_requirement_is_one_line(text: str, expected: object) -> None:
    assert parse_requirement(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    (
        ("", "such as sbom"),
        ("SBOM", "such as sbom"),
        ("eval.accuracy", "compare it with a number: eval.accuracy >= 0.92"),
        ("eval.accuracy >= high", "compare it with a number"),
        ("eval.accuracy => 0.9", "compare it with a number"),
        ("vulnerabilities.critical", "vulnerabilities.critical == 0"),
        ("vulnerabilities.severe == 0", "known: vulnerabilities.critical"),
        ("sbom.packages > 0", "known: sbom.components"),
        ("model-card.words > 10", "such as sbom"),
        ("attestation ci", "write attestation by NAME-OF-A-KEY"),
        ("attestation by", "write attestation by NAME-OF-A-KEY"),
    ),
)
def test_what_is_no_requirement_is_told_with_a_hint(text: str, hint: str) -> None:
    found = parse_requirement(text)
    assert isinstance(found, Problem)
    assert hint in found.hint


def test_all_problems_of_a_policy_are_told_with_their_lines() -> None:
    text = (
        "apiVersion: skerry/v1\nkind: Policy\nmetadata: {name: production}\nspec:\n  require:\n"
        "    - sbom\n    - eval.accuracy\n    - attestation by ci\n    - sbom\n"
        f"  attestation_keys:\n    other: not a key\n    pasted: {json.dumps(PRIVATE)}\n"
    )
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(text, file="policy.yaml")
    told = {(problem.path, problem.line) for problem in caught.value.problems}
    assert told == {
        ("spec.require[1]", 7),
        ("spec.require[2]", 8),
        ("spec.require", 5),
        ("spec.attestation_keys.other", 11),
        ("spec.attestation_keys.pasted", 12),
    }
    secret = PRIVATE.splitlines()[1]
    assert secret not in str(caught.value), "a private key that was pasted by mistake is not shown"


def test_keys_with_which_nothing_can_be_verified_are_told() -> None:
    pem = ecdsa_attestation(DIGEST)[1]
    broken = pem.replace(pem.splitlines()[1][:20], "A" * 20)
    made = policy("attestation by a", attestation_keys={"a": KEY.public, "b": pem, "c": broken})
    assert list(check_policy(made)) == []
    assert [problem.path for problem in check_policy_keys(made)] == ["spec.attestation_keys.c"]


# ── what satisfies it ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("POLICY-1")
@pytest.mark.parametrize("kind", EVIDENCE_KINDS)
def test_evidence_of_a_kind_is_there_or_not(kind: EvidenceKind) -> None:
    assert answer(kind, evidence(kind))[0]
    others = [evidence(other) for other in EVIDENCE_KINDS if other != kind]
    satisfied, why = answer(kind, *others)
    assert not satisfied
    assert why.endswith("is not attached")


@pytest.mark.parametrize(
    ("requirement", "attached", "expected"),
    (
        ("eval.accuracy >= 0.92", [metrics(accuracy="0.92")], (True, "accuracy of eye is 0.92, which is >= 0.92")),
        ("eval.accuracy >= 0.92", [metrics(accuracy="0.9199999999999999")],
         (False, "accuracy of eye is 0.9199999999999999, required is >= 0.92")),
        ("eval.accuracy >= 0.92", [metrics(f1="0.99")], (False, "no evaluation states accuracy; stated: f1")),
        ("eval.accuracy >= 0.92", [evidence("sbom", components=3)], (False, "an evaluation is not attached")),
        ("eval.accuracy >= 0.92", [metrics(accuracy="0.95"), metrics("ear", f1="0.1")],
         (True, "accuracy of eye is 0.95, which is >= 0.92")),
        ("eval.accuracy >= 0.92", [metrics(accuracy="0.95"), metrics("ear", accuracy="0.5")],
         (False, "accuracy of ear is 0.5, required is >= 0.92")),
        ("eval.loss < 1", [metrics(loss="1e-09")], (True, "loss of eye is 1e-09, which is < 1")),
        ("vulnerabilities.critical == 0", [evidence("vulnerabilities", critical=0)],
         (True, "critical is 0, which is == 0")),
        ("vulnerabilities.critical <= 2", [evidence("vulnerabilities", critical=2)] * 2,
         (False, "critical is 4 over 2 files, required is <= 2")),
        ("vulnerabilities.critical == 0", [], (False, "a vulnerability report is not attached")),
        ("vulnerabilities.critical == 0", [evidence("vulnerabilities")],
         (False, "a vulnerability report does not state critical")),
    ),
)  # fmt: skip
def test_a_figure_is_compared_exactly_and_the_answer_says_how(
    requirement: str, attached: list[Evidence], expected: tuple[bool, str]
) -> None:
    assert answer(requirement, *attached) == expected


@pytest.mark.rule("POLICY-4")
def test_an_attestation_counts_when_the_key_that_the_policy_names_signed_it() -> None:
    content = attestation(DIGEST, KEY)
    attached = evidence("attestation", predicate_type=SLSA, about="release")
    keys = {"ci": KEY.public, "other": SigningKey.generate().public}

    def ask(requirement: str, **contents: bytes) -> tuple[bool, str]:
        found = {DIGEST: content} if not contents else {}
        return answer(requirement, attached, attestation_keys=keys, contents=found)

    assert ask("attestation by ci") == (True, f"ci signed an attestation of the release ({SLSA})")
    assert ask(f"attestation of {SLSA} by ci")[0]
    assert ask("attestation by other") == (False, "none of 1 attached is signed by other")
    assert ask("attestation of https://example.org/other by ci") == (
        False, "an attestation of https://example.org/other is not attached",
    )  # fmt: skip
    assert ask("attestation by ci", gone=b"") == (
        False, "none of 1 attached is signed by ci; 1 of them cannot be read on the hub",
    )  # fmt: skip


def test_policies_are_for_the_applications_they_name() -> None:
    policies = [
        policy("sbom", name="all"),
        policy("sbom", name="cameras", applications=("cam*",)),
        policy("sbom", name="meters", applications=("meter-?", "reader")),
    ]
    for application, names in (
        ("camera", ["all", "cameras"]),
        ("meter-1", ["all", "meters"]),
        ("x", ["all"]),
    ):
        decision = decide_policies(policies, Proof(f"{application}@1", application, ()))
        assert [result.policy for result in decision.policies] == names


def test_a_policy_that_warns_does_not_block() -> None:
    proof = Proof("camera@1", "camera", ())
    soft = policy("sbom", "evaluation", name="soft", enforce="warn")
    decision = decide_policies([soft], proof)
    assert decision.satisfied
    assert [one.requirement for one in decision.failures("warn")] == ["sbom", "evaluation"]
    both = decide_policies([soft, policy("model-card")], proof)
    assert not both.satisfied
    assert [(one.policy, one.requirement) for one in both.failures("block")] == [("production", "model-card")]


attachable = st.one_of(
    st.builds(evidence, st.just("sbom"), components=st.integers(0, 3)),
    st.builds(evidence, st.just("vulnerabilities"), critical=st.integers(0, 3)),
    st.builds(metrics, st.sampled_from(["eye", "ear"]), accuracy=st.floats(0, 1).map(repr)),
    st.builds(evidence, st.just("model-card")),
)
requirements = st.lists(
    st.sampled_from(
        ["sbom", "model-card", "attestation", "eval.accuracy >= 0.5", "vulnerabilities.critical == 0",
         "sbom.components > 1", "attestation by ci"]
    ),
    min_size=1,
    unique=True,
)  # fmt: skip


@pytest.mark.rule("POLICY-1")
@given(require=requirements, attached=st.lists(attachable, max_size=5), data=st.data())
def test_a_decision_depends_on_nothing_but_the_policies_and_the_evidence(
    require: list[str], attached: list[Evidence], data: st.DataObject
) -> None:
    made = policy(*require, attestation_keys={"ci": KEY.public})
    decision = decide_policies([made], Proof("camera@1", "camera", attached))
    mixed = decide_policies([made], Proof("camera@1", "camera", data.draw(st.permutations(attached))))
    assert [r.satisfied for p in mixed.policies for r in p.requirements] == [
        r.satisfied for p in decision.policies for r in p.requirements
    ]
    kinds = {one.kind for one in attached}
    for one in decision.policies[0].requirements:
        wanted = parse_requirement(one.requirement)
        kind = wanted.kind if isinstance(wanted, Attached | Figure) else "attestation"
        assert kind in kinds or not one.satisfied, "what is absent satisfies nothing"
        assert one.why
    stored = msgspec.json.decode(encode_canonical(decision), type=type(decision))
    assert stored == decision
