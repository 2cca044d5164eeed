"""`skerry audit`: what people read, and that entries are checked where the command runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import run
from skerry.spec.api import AuditView
from skerry.spec.audit import AuditEntry, AuditHead
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble
from tests.unit.test_audit_chain import NOW, chain, head_of

pytestmark = pytest.mark.trust


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


def serve(hub: HubDouble, entries: Sequence[AuditEntry]) -> AuditHead:
    """Have the hub hand out a chain: the double answers every page alike, so the second is taken for the end."""
    newest = head_of(entries)
    head = AuditHead(hub=hub.url, at=NOW, number=newest.number, digest=newest.digest)
    hub.views["/audit/entries"] = list(entries)
    hub.views["/audit/head"] = head
    return head


def test_the_head_is_printed_to_be_kept_and_is_found_again_later(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = chain(6)
    serve(hub, entries[:4])
    assert run(["audit", "head"]) == 0
    kept = tmp_path / "head.json"
    kept.write_text(capsys.readouterr().out)
    serve(hub, entries)
    assert run(["audit", "verify", "--anchor", str(kept)]) == 0
    said = capsys.readouterr().out
    assert said == "entries 1 to 6: each follows on the one before, and 1 anchor found as kept\n"


@pytest.mark.rule("AUDIT-2")
def test_what_was_changed_is_named_and_the_exit_code_is_1(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = chain(6)
    kept = tmp_path / "head.json"
    kept.write_bytes(msgspec.json.encode(serve(hub, entries)))
    altered = [*entries[:2], msgspec.structs.replace(entries[2], who="bob"), *entries[3:]]
    hub.views["/audit/entries"] = altered
    assert run(["audit", "verify"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "altered: entry 4 does not follow on entry 3: one of them was altered",
        "entries 1 to 6: 1 flaw",
    ]
    serve(hub, entries[:5])
    assert run(["audit", "verify"]) == 0
    assert run(["audit", "verify", "--anchor", str(kept), "-o", "json"]) == 1
    found = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert [flaw["code"] for flaw in found["flaws"]] == ["truncated"]


def test_an_anchor_that_is_none_is_refused_before_anything_is_asked(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, content in enumerate((b"{}", b"\xff", b"[" * 100_000)):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        assert run(["audit", "verify", "--anchor", str(path)]) == 2
        assert "is no head of an audit" in capsys.readouterr().err
    assert run(["audit", "verify", "--anchor", str(tmp_path / "none.json")]) == 2
    assert not hub.requests


def test_who_did_what_is_listed(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    view = AuditView(
        id=7,
        at=NOW,
        who="hub",
        action="rollout.decide",
        subject="rollout:r",
        outcome="running",
        why="wave 1",
        decision="r#1",
    )
    hub.views["/audit"] = [view]
    assert run(["audit", "list", "--limit", "5"]) == 0
    assert hub.requests[-1] == "GET /audit?limit=5"
    assert "rollout.decide" in capsys.readouterr().out
