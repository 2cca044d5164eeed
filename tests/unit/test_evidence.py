"""Evidence: what a file says follows from the file, whoever sums it up; what it does not say is not made up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected, Untrusted
from skerry.spec.evidence import EVIDENCE_KINDS, Evidence, EvidenceKind, SummaryValue
from skerry.trust.attestations import is_signed_by, read_attestation_key
from skerry.trust.evidence import LIMITS, Subject, detect_kind, subject_of, summarise, verify_summary
from skerry.trust.keys import SigningKey
from tests.unit.evidence_files import (
    CARD,
    COMPONENT,
    SAMPLES,
    SLSA,
    as_bytes,
    attestation,
    cyclonedx,
    ecdsa_attestation,
    envelope,
    evaluation,
    finding,
    grype,
    spdx,
    spdx3,
    statement,
    trivy,
    vex,
)
from tests.unit.matching_world import component, release, variant

pytestmark = pytest.mark.trust

RELEASE = release(component(models=("eye",)), models={"eye": (variant("small"),)}, name="camera")
SUBJECT = subject_of(RELEASE, digest_of(encode_canonical(RELEASE)))
KEY = SigningKey.generate()
OTHER = "sha256:" + "0" * 64
NONE = {
    "critical": 0,
    "high": 0,
    "medium": 0,
    "low": 0,
    "negligible": 0,
    "unknown": 0,
    "total": 0,
    "excused": 0,
}


def refusal(kind: EvidenceKind, content: bytes, subject: Subject = SUBJECT) -> Rejected:
    with pytest.raises(Rejected) as caught:
        summarise(kind, content, subject)
    return caught.value


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_told_from_the_others(name: str) -> None:
    kind, content = SAMPLES[name]
    found = summarise(kind, content, SUBJECT)
    assert (found.kind, found.format) == (kind, name)
    assert (found.digest, found.size_bytes) == (digest_of(content), len(content))
    assert detect_kind(content) == (None if kind == "model-card" else kind)
    assert msgspec.json.decode(encode_canonical(found), type=Evidence) == found


@pytest.mark.parametrize(
    ("content", "components"),
    (
        (cyclonedx(COMPONENT, {"name": "a", "components": [COMPONENT, {"components": [COMPONENT]}]}), 5),
        (spdx(3), 3),
        (spdx3(4), 4),
    ),
)
def test_the_components_of_an_sbom_are_counted_also_inside_of_others(content: bytes, components: int) -> None:
    assert summarise("sbom", content, SUBJECT).summary == {"components": components}


@pytest.mark.parametrize(
    ("content", "counts"),
    (
        (vex(), {}),
        (
            vex(finding("critical"), finding("info"), finding("odd")),
            {"critical": 1, "negligible": 1, "unknown": 1},
        ),
        (vex(finding("critical", "not_affected"), finding("high", "exploitable")), {"high": 1, "excused": 1}),
        (vex({"ratings": [{"severity": "low"}, {"score": 9.8}]}), {"critical": 1}),
        (vex({"ratings": []}), {"unknown": 1}),
        (
            grype("Critical", "Critical", "Negligible", ignored=3),
            {"critical": 2, "negligible": 1, "excused": 3},
        ),
        (trivy("HIGH", "MEDIUM", "UNKNOWN"), {"high": 1, "medium": 1, "unknown": 1}),
        (trivy(), {}),
    ),
)
def test_findings_are_counted_by_severity(content: bytes, counts: dict[str, int]) -> None:
    total = sum(count for name, count in counts.items() if name != "excused")
    assert summarise("vulnerabilities", content, SUBJECT).summary == NONE | counts | {"total": total}


def test_metrics_are_kept_as_decimal_text() -> None:
    content = as_bytes(
        {"model": "eye@1", "samples": 400, "metrics": {"mAP@0.5:0.95": 0.1, "loss": 3, "tiny": 1e-9}}
    )
    expected: dict[str, SummaryValue] = {
        "model": "eye@1",
        "samples": 400,
        "metrics.mAP@0.5:0.95": "0.1",
        "metrics.loss": "3.0",
        "metrics.tiny": "1e-09",
    }
    assert summarise("evaluation", content, SUBJECT).summary == expected


def test_a_model_card_is_known_by_its_title() -> None:
    assert summarise("model-card", CARD, SUBJECT).summary == {
        "title": "Meter reader",
        "headings": 2,
        "words": 14,
    }


@pytest.mark.parametrize(
    ("kind", "content", "path", "message"),
    (
        ("sbom", b"{", "", "not an SBOM"),
        ("sbom", b"[" * 100_000, "", "not an SBOM"),
        ("sbom", b'{"a": ' + b"[" * 100_000, "", "nested too deeply"),
        ("sbom", b"[" + b"0," * 2_000_000 + b"0]", "", "too many for"),
        ("sbom", b"{}", "", "neither a CycloneDX nor"),
        ("sbom", cyclonedx(), "", "no component"),
        ("sbom", cyclonedx(COMPONENT, version="9.9.9"), "specVersion", "unknown version"),
        ("sbom", spdx(version="SPDX-1"), "spdxVersion", "unknown version"),
        ("vulnerabilities", cyclonedx(COMPONENT), "vulnerabilities", "is missing"),
        ("vulnerabilities", as_bytes({"SchemaVersion": 2}), "Results", "nothing was looked at"),
        ("vulnerabilities", as_bytes({"SchemaVersion": 3, "Results": []}), "SchemaVersion", "unknown version"),
        ("vulnerabilities", b'{"matches": [{}], "descriptor": {"name": "x"}}', "matches[0]", "not a report"),
        ("model-card", b" \n", "", "it says nothing"),
        ("model-card", b"\xff", "", "not UTF-8"),
        ("evaluation", as_bytes({"model": "eye", "metrics": {}}), "metrics", "not an evaluation"),
        ("evaluation", b'{"model": "eye", "metrics": {"a": NaN}}', "", "not an evaluation"),
        ("evaluation", b'{"model": "eye", "metrics": {"a": 1e999}}', "metrics[...]", "not an evaluation"),
        ("evaluation", as_bytes({"model": "eye", "metric": {"a": 1}}), "", "not an evaluation"),
        ("evaluation", as_bytes({"model": "eye", "metrics": {"a b": 1}}), "metrics", "not a metric's name"),
        ("evaluation", evaluation("ear"), "model", "no model ear"),
        ("evaluation", evaluation("eye@2"), "model", "no model eye@2"),
        ("evaluation", evaluation("Eye !"), "model", "not a model"),
        ("attestation", attestation(OTHER, KEY), "payload.subject", "no subject is this release"),
        ("attestation", as_bytes(envelope({"_type": "x"}, KEY)), "", "not an in-toto statement"),
        ("attestation", as_bytes(envelope(statement(OTHER, _type="x"), KEY)), "payload._type", "unknown statement"),
        ("attestation", as_bytes({"payloadType": "x", "payload": "", "signatures": []}), "signatures", "not a DSSE"),
    ),
)  # fmt: skip
def test_what_is_not_evidence_is_refused_with_its_place(
    kind: EvidenceKind, content: bytes, path: str, message: str
) -> None:
    error = refusal(kind, content)
    assert message in error.message
    assert (error.code, error.facts["path"]) == ("evidence.unfit", path)


@pytest.mark.parametrize("kind", EVIDENCE_KINDS)
def test_a_file_of_no_size_or_too_large_a_one_is_refused_unread(kind: EvidenceKind) -> None:
    assert refusal(kind, b"").code == "evidence.size"
    assert refusal(kind, b"[" * (LIMITS[kind] + 1)).code == "evidence.size"


def test_what_a_release_carries_without_models_may_have_any_model() -> None:
    bare = Subject(OTHER, frozenset(), frozenset())
    assert summarise("evaluation", evaluation("ear"), bare).summary["model"] == "ear"


def test_an_attestation_speaks_of_the_release_or_of_a_file_that_it_pins() -> None:
    file = min(SUBJECT.files)
    for digest, about in (
        (SUBJECT.digest, "release"),
        (file, "files"),
        (file.upper().replace("SHA", "sha"), "files"),
    ):
        found = summarise("attestation", attestation(digest, KEY), SUBJECT)
        expected = {"predicate_type": SLSA, "about": about, "subjects": 1, "signatures": 1}
        assert (found.format, found.summary) == ("in-toto", expected)


@pytest.mark.rule("POLICY-2")
@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"summary": {**NONE, "critical": 0, "total": 1}}, "critical is stated as 0, and the file says 1"),
        ({"summary": {}}, "critical is stated as nothing"),
        (
            {"summary": {**NONE, "critical": 1, "total": 1, "bonus": 1}},
            "bonus is stated as 1, and the file says nothing",
        ),
        ({"format": "trivy"}, "format is stated as trivy"),
        ({"digest": OTHER}, "digest is stated"),
        ({"size_bytes": 7}, "size_bytes is stated as 7"),
    ),
)
def test_a_summary_that_does_not_follow_from_the_file_is_refused(
    changes: dict[str, object], message: str
) -> None:
    content = grype("Critical")
    true = summarise("vulnerabilities", content, SUBJECT)
    verify_summary(true, content, SUBJECT)
    with pytest.raises(Rejected) as caught:
        verify_summary(msgspec.structs.replace(true, **changes), content, SUBJECT)
    assert caught.value.code == "evidence.summary"
    assert message in caught.value.message


@pytest.mark.rule("POLICY-2")
def test_a_file_is_not_taken_for_another_kind() -> None:
    content = grype("Critical")
    stated = msgspec.structs.replace(summarise("vulnerabilities", content, SUBJECT), kind="sbom")
    with pytest.raises(Rejected):
        verify_summary(stated, content, SUBJECT)


@given(kind=st.sampled_from(EVIDENCE_KINDS), content=st.binary(max_size=200))
def test_arbitrary_bytes_are_summed_up_or_refused(kind: EvidenceKind, content: bytes) -> None:
    detect_kind(content)
    try:
        found = summarise(kind, content, SUBJECT)
    except Rejected:
        return
    verify_summary(found, content, SUBJECT)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["bomFormat", "specVersion", "components", "vulnerabilities", "spdxVersion", "packages", "matches", "Results",
     "SchemaVersion", "descriptor", "model", "metrics", "payload", "payloadType", "signatures", "@graph", "@context"]
)  # fmt: skip
filled: list[object] = [[], [{}], [{"vulnerability": {}}], {"a": 1}]
known = st.sampled_from([*filled, "CycloneDX", "1.6", "SPDX-2.3", "grype", 2, "eye"])


@given(kind=st.sampled_from(EVIDENCE_KINDS), value=st.dictionaries(keys, known | json_values, max_size=6))
def test_arbitrary_json_is_summed_up_or_refused(kind: EvidenceKind, value: dict[str, object]) -> None:
    content = as_bytes(value)
    detect_kind(content)
    try:
        found = summarise(kind, content, SUBJECT)
    except Rejected:
        return
    assert msgspec.json.decode(encode_canonical(found), type=Evidence) == found


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("POLICY-4")
def test_an_attestation_is_signed_by_the_key_that_signed_it_alone() -> None:
    content = attestation(SUBJECT.digest, KEY)
    assert is_signed_by(content, read_attestation_key(KEY.public))
    assert not is_signed_by(content, read_attestation_key(SigningKey.generate().public))


@pytest.mark.rule("POLICY-4")
def test_the_key_id_that_an_envelope_states_proves_nothing() -> None:
    stranger = SigningKey.generate()
    made = envelope(statement(SUBJECT.digest), stranger)
    made["signatures"][0]["keyid"] = KEY.key_id
    assert not is_signed_by(as_bytes(made), read_attestation_key(KEY.public))
    assert is_signed_by(as_bytes(made), read_attestation_key(stranger.public))


@pytest.mark.rule("POLICY-4")
def test_a_statement_that_was_changed_after_it_was_signed_is_not_signed() -> None:
    made, other = (envelope(statement(digest), KEY) for digest in (SUBJECT.digest, OTHER))
    made["payload"] = other["payload"]
    assert not is_signed_by(as_bytes(made), read_attestation_key(KEY.public))


def test_envelopes_of_ecdsa_without_a_key_id_are_verified() -> None:
    content, pem = ecdsa_attestation(SUBJECT.digest)
    assert is_signed_by(content, read_attestation_key(pem))
    assert not is_signed_by(content, read_attestation_key(ecdsa_attestation(SUBJECT.digest)[1]))


@pytest.mark.parametrize("text", ("", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"))
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(Untrusted) as caught:
        read_attestation_key(text)
    assert caught.value.code == "key.malformed"
