"""Evidence from the command line: read and checked before anything travels, shown, and downloaded as it was signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import run
from skerry.client.evidence import attach_evidence
from skerry.client.sources import PreparedRelease
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.spec.api import ApplyRequest, ReleaseView, RolloutView
from skerry.spec.api_policy import PolicyDecision, PolicyResult, PolicyView, RequirementResult
from skerry.spec.evidence import EVIDENCE_KINDS, Evidence
from skerry.spec.overriding import Failure, Override
from skerry.spec.problems import DocumentRejected
from skerry.trust.evidence import subject_of, summarise
from skerry.trust.keys import SigningKey
from tests.unit.cli_session import logged_in_hub
from tests.unit.evidence_files import CARD, COMPONENT, attestation, cyclonedx, evaluation, finding, grype
from tests.unit.hub_double import HubDouble
from tests.unit.matching_world import component, release, variant

pytestmark = pytest.mark.trust

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RELEASE = release(component(models=("eye",)), models={"eye": (variant("small"),)}, name="camera")
CONTENT = encode_canonical(RELEASE)
PREPARED = PreparedRelease(RELEASE, CONTENT, {})
SBOM = cyclonedx(COMPONENT)
FILES: dict[str, bytes] = {
    "bom.json": SBOM,
    "scan.json": grype("High"),
    "card.md": CARD,
    "metrics.json": evaluation(accuracy=0.93),
    "provenance.json": attestation(digest_of(CONTENT), SigningKey.generate()),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


def evidence(kind: int, content: bytes) -> Evidence:
    return summarise(EVIDENCE_KINDS[kind], content, subject_of(RELEASE, digest_of(CONTENT)))


def problems(*named: str) -> list[tuple[str, str, str]]:
    with pytest.raises(DocumentRejected) as caught:
        attach_evidence(PREPARED, named)
    return [(Path(p.file).name, p.path, p.message) for p in caught.value.problems]


def test_files_are_attached_with_their_kind_stated_or_told_by_themselves(folder: Path) -> None:
    told = attach_evidence(PREPARED, [str(folder / name) for name in FILES])
    assert [one.kind for one in told.evidence] == list(EVIDENCE_KINDS)
    stated = [f"{kind}={folder / name}" for kind, name in zip(EVIDENCE_KINDS, FILES, strict=True)]
    assert attach_evidence(PREPARED, stated) == told
    assert {digest: source.path.name for digest, source in told.sources.items()} == {
        digest_of(content): name for name, content in FILES.items()
    }
    assert attach_evidence(PREPARED, ()) is PREPARED


def test_everything_that_is_wrong_with_any_file_is_told_at_once(folder: Path) -> None:
    both = cyclonedx(COMPONENT, vulnerabilities=[finding("low")])
    (folder / "both.json").write_bytes(both)
    (folder / "odd.json").write_bytes(b'{"model": "ear", "metrics": {"accuracy": 1}}')
    found = problems(
        f"sbom={folder / 'gone.json'}",
        f"sbom={folder}",
        f"{folder / 'both.json'}",
        f"bill={folder / 'bom.json'}",
        f"evaluation={folder / 'odd.json'}",
        f"sbom={folder / 'metrics.json'}",
        f"{folder / 'bom.json'}",
        f"sbom={folder / 'bom.json'}",
    )
    assert found == [
        ("gone.json", "", "no such file"),
        (folder.name, "", "cannot be read: Is a directory"),
        ("both.json", "", "what kind of evidence this is cannot be told"),
        ("bom.json", "", "no such file"),
        ("odd.json", "model", "the release has no model ear"),
        ("metrics.json", "", "neither a CycloneDX nor an SPDX document"),
        ("bom.json", "", "the same sbom is there twice"),
    ]


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "large.json").open("wb") as file:
        file.truncate(33 << 20)
    assert problems(f"sbom={folder / 'large.json'}")[0][2].startswith("33.0 MiB are more than")


# ── the commands ─────────────────────────────────────────────────────────────────────────────────────


def view(*attached: Evidence) -> ReleaseView:
    return ReleaseView(
        name="camera@1", application="camera", version="1", digest=digest_of(CONTENT), models={}, size_bytes=1,
        created_at=NOW, created_by="eva", evidence=attached,
    )  # fmt: skip


def test_evidence_is_shown_with_what_it_says(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    attached = tuple(evidence(kind, content) for kind, content in enumerate(FILES.values()))
    hub.views["/releases/camera@1"] = view(*attached)
    assert run(["describe", "release", "camera@1"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "1 component",
        "0 critical, 1 high, 0 medium, 0 low, 1 total, 0 excused",
        "Meter reader (14 words)",
        "eye on meters-2026: accuracy 0.93",
        "https://slsa.dev/provenance/v1 of the release",
    ):
        assert words in shown
    assert run(["release", "evidence", "camera@1", "--kind", "sbom", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["summary"] == {"components": 1}


def test_a_file_of_evidence_is_downloaded_and_compared(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sbom, card = evidence(0, SBOM), evidence(2, CARD)
    hub.views["/releases/camera@1"] = view(sbom, card)
    hub.blobs = {sbom.digest: SBOM, card.digest: CARD[:-1] + b"?"}
    out = tmp_path / "out.json"
    assert run(["release", "evidence", "camera@1", "--kind", "sbom", "--out", str(out)]) == 0
    assert out.read_bytes() == SBOM
    assert run(["release", "evidence", "camera@1", "--kind", "sbom", "--out", str(out)]) == 5, (
        "nothing is overwritten"
    )
    other = tmp_path / "card.md"
    assert run(["release", "evidence", "camera@1", "--kind", "model-card", "--out", str(other)]) == 76
    hub.blobs[card.digest] = CARD + b"more"
    assert run(["release", "evidence", "camera@1", "--kind", "model-card", "--out", str(other)]) == 76
    assert not other.exists()
    assert run(["release", "evidence", "camera@1", "--out", str(other)]) == 2
    assert "choose with --kind and --digest" in capsys.readouterr().err
    assert run(["release", "evidence", "camera@1", "--kind", "evaluation", "--out", str(other)]) == 4


def test_a_decision_is_explained(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    results = (
        RequirementResult(requirement="sbom", satisfied=True, why="an SBOM is attached (spdx-2.3)"),
        RequirementResult(requirement="model-card", satisfied=False, why="a model card is not attached"),
    )
    result = PolicyResult(policy="production", enforce="block", satisfied=False, requirements=results)
    hub.views["/releases/camera@1/policies"] = PolicyDecision(
        release="camera@1", satisfied=False, policies=(result,)
    )
    assert run(["explain", "policy", "camera@1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Policy production is not satisfied, and blocks:",
        "  yes  sbom: an SBOM is attached (spdx-2.3)",
        "  no   model-card: a model card is not attached",
        "camera@1 is offered to no further site, unless an admin overrides that for a rollout.",
    ]


def test_policies_are_listed_described_and_deleted(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    found = PolicyView(
        name="production", document={"spec": {"attestation_keys": {"ci": "x"}}}, applications=("camera",),
        require=("sbom", "attestation by ci"), enforce="block", changed_at=NOW, changed_by="eva",
    )  # fmt: skip
    hub.views["/policies"], hub.views["/policies/production"] = [found], found
    assert run(["get", "policies"]) == 0
    assert "sbom; attestation by ci" in capsys.readouterr().out
    assert run(["describe", "policy", "production"]) == 0
    assert "  attestation by ci\n  key ci" in capsys.readouterr().out
    assert run(["delete", "policy", "production", "--yes"]) == 0
    assert hub.requests[-1] == "DELETE /policies/production"


def test_an_override_travels_with_its_reason_and_is_shown(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["rollout", "start", "camera@1", "--sites", "*", "--name", "spring"]
    assert run([*start, "--override-policy", "the fire brigade waits"]) == 0
    assert (
        msgspec.json.decode(hub.bodies["/apply"], type=ApplyRequest).override_policy
        == "the fire brigade waits"
    )
    failures = (Failure(policy="production", requirement="sbom", why="an SBOM is not attached"),)
    hub.views["/rollouts/spring"] = RolloutView(
        name="spring", document={}, release="camera@1", state="running", why="as it is", created_at=NOW,
        created_by="eva", override=Override(who="eva", at=NOW, reason="the fire brigade waits", failures=failures),
    )  # fmt: skip
    capsys.readouterr()
    assert run(["describe", "rollout", "spring"]) == 0
    shown = capsys.readouterr().out
    assert "by eva: the fire brigade waits\n" in shown
    assert "  policy production requires sbom: an SBOM is not attached\n" in shown
