"""The commands about certificates: what they print, what they write, and a root that no hub is asked about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.cli.main import run
from skerry.spec.api_pki import AuthorityView, IssuerView, PkiRequest, PkiView, TrustBundle
from skerry.trust.authorities import inspect_authority, make_request, new_key, split_pem
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

pytestmark = pytest.mark.trust

NOW = datetime.now(UTC)
ROOT = IssuerView(
    role="root",
    subject="CN=Skerry root x",
    serial="01",
    not_before=NOW,
    not_after=NOW + timedelta(days=1),
    issues=True,
)
VIEW = PkiView(domain="edge.example.com", issuers=(ROOT,), requested=True)
LIVE = AuthorityView(
    site="harbour",
    host="edge-1",
    serial="0a",
    issued_at=NOW,
    renew_from=NOW,
    not_after=NOW + timedelta(days=360),
    in_use=True,
)
REVOKED = AuthorityView(
    site="harbour",
    host="edge-2",
    serial="0b",
    issued_at=NOW,
    renew_from=NOW,
    not_after=NOW + timedelta(days=360),
    revoked_at=NOW,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views |= {
            "/pki": VIEW,
            "/pki/authorities": [LIVE, REVOKED],
            "/pki/sites/harbour/bundle": TrustBundle(roots=("root\n",), crls=("one\n", "two\n")),
            "/pki/request": PkiRequest(request=make_request(new_key(), "hub"), domain="edge.example.com"),
            "/pki/issuer": VIEW,
        }
        yield hub


def test_what_there_is_is_shown_as_tables_and_as_data(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pki", "show"]) == 0
    shown = capsys.readouterr().out
    assert "Skerry root x" in shown
    assert "SITE.edge.example.com; a request waits" in shown
    assert run(["pki", "list", "--site", "harbour"]) == 0
    shown = capsys.readouterr().out
    assert "in use" in shown
    assert "revoked" in shown
    assert run(["pki", "list", "-o", "json"]) == 0
    assert [one["host"] for one in json.loads(capsys.readouterr().out)] == ["edge-1", "edge-2"]


def test_a_bundle_is_printed_or_written(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pki", "bundle", "harbour"]) == 0
    assert capsys.readouterr().out == "root\n"
    assert run(["pki", "bundle", "harbour", "--crls", "--out", str(tmp_path / "crl.pem")]) == 0
    assert (tmp_path / "crl.pem").read_text() == "one\ntwo\n"


def test_a_root_is_made_and_signs_without_a_hub_and_what_it_signed_is_imported(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, signed, safe = tmp_path / "hub.csr", tmp_path / "hub.pem", tmp_path / "safe"
    assert run(["pki", "csr", "--out", str(request)]) == 0
    assert "--domain edge.example.com" in capsys.readouterr().err
    assert run(["pki", "root", str(safe), "--name", "Example root"]) == 0
    assert run(["pki", "root", str(safe)]) == 5
    arguments = ["pki", "sign", str(request), "--root", str(safe), "--out", str(signed)]
    assert run([*arguments, "--domain", "edge.example.com"]) == 0
    chain, root, crls = split_pem(signed.read_text())
    assert inspect_authority(chain).bounds.domains == ("edge.example.com", "site.internal", "localhost")
    assert inspect_authority(root).subject == "CN=Example root"
    assert len(crls) == 1
    assert "PRIVATE" not in signed.read_text()
    capsys.readouterr()
    assert run(["pki", "import", str(signed), "--dry-run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert run(["pki", "import", str(signed)]) == 0
    (tmp_path / "nonsense").write_text("nonsense")
    assert (
        run(["pki", "sign", str(tmp_path / "nonsense"), "--root", str(safe), "--domain", "a.example"]) == 76
    )
