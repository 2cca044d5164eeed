"""What is wrong with a hub's data directory is found, said with a hint, and weighed; looking changes nothing."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.adapters.hub_look import look_over
from skerry.adapters.sql.store import SqlHubStore
from skerry.cli.main import run
from skerry.hub.doctor import judge
from skerry.kit.digests import hex_of
from skerry.kit.locking import hold
from skerry.ports.hub_store import RecoveryRecord
from skerry.spec.backup import Finding
from skerry.trust.certificates import CA_DAYS, SERVER_DAYS
from tests.unit.hub_to_back_up import NOW, make_backup, make_hub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "hub"
    make_hub(made)
    make_backup(made, tmp_path / "b")
    return made


def findings(data: Path, *, days: float = 0.0) -> dict[str, Finding]:
    """Return the worst finding of each check, as of so many days after the hub was made."""
    view = judge(look_over(data, datetime.now(UTC) + timedelta(days=days)))
    found: dict[str, Finding] = {}
    for finding in sorted(view.findings, key=lambda finding: ("ok", "warn", "fail").index(finding.level)):
        found[finding.check] = finding
    assert all(finding.hint for finding in found.values() if finding.level != "ok")
    return found


def broken(data: Path, *, days: float = 0.0) -> dict[str, str]:
    return {
        check: finding.level
        for check, finding in findings(data, days=days).items()
        if finding.level != "ok" and check != "disk"
    }


def test_a_sound_hub_has_nothing_to_be_said_of_and_looking_changes_nothing(data: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert broken(data) == {}
    after = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    with hold(data / "hub.lock", conflict=AssertionError()):  # type: ignore[arg-type]
        assert "serves it now" in findings(data)["hub"].message


def test_a_directory_without_a_hub_is_said_so(tmp_path: Path) -> None:
    assert broken(tmp_path) == {"hub": "fail"}


def test_keys_that_others_may_read_or_that_are_missing_are_found(data: Path) -> None:
    (data / "keys" / "hub.pem").chmod(0o640)
    assert broken(data) == {"keys": "fail"}
    (data / "keys" / "hub.pem").chmod(0o600)
    data.chmod(0o755)
    assert broken(data) == {"directory": "warn"}
    data.chmod(0o700)
    (data / "tls" / "ca.key").rename(data.parent / "ca.key")
    assert findings(data)["keys"].message == "missing: tls/ca.key"
    (data / "tls" / "ca.key").symlink_to(data.parent / "ca.key")
    assert broken(data) == {"keys": "warn"}


def test_certificates_that_expire_are_found_in_time(data: Path) -> None:
    make_note = {"backup": "warn", "signed metadata": "fail"}  # these grow old, too
    assert broken(data, days=SERVER_DAYS - 20) == {"certificates": "warn"} | make_note
    assert broken(data, days=SERVER_DAYS + 1) == {"certificates": "fail"} | make_note
    assert "ca.pem expires" in "".join(
        finding.message
        for finding in judge(look_over(data, datetime.now(UTC) + timedelta(days=CA_DAYS - 100))).findings
    )
    (data / "tls" / "ca.pem").write_bytes(b"no certificate")
    assert broken(data) == {"certificates": "fail"}


def test_signed_metadata_that_expires_is_found_in_time(data: Path) -> None:
    def said(days: float) -> dict[str, str]:
        found = judge(look_over(data, datetime.now(UTC) + timedelta(days=days))).findings
        return {
            one.message.partition(" expire")[0]: one.level for one in found if one.check == "signed metadata"
        }

    assert said(30) == {}
    assert set(said(40).values()) == {"warn"}
    assert said(61)["the signed metadata of timestamp"] == "fail"
    assert said(700)["that of targets"] == "warn"


def test_offline_keys_on_the_hub_are_warned_of(data: Path) -> None:
    (data / "offline-keys").mkdir()
    (data / "offline-keys" / "root.pem").write_bytes(b"key")
    assert broken(data) == {"offline keys": "warn"}
    assert "root.pem" in findings(data)["offline keys"].message


def test_a_clock_behind_the_files_or_the_certificates_is_found(data: Path) -> None:
    assert broken(data, days=-0.5) == {"clock": "fail"}
    assert broken(data, days=-3) == {"clock": "fail", "certificates": "fail"}


def test_an_old_backup_and_none_are_told(data: Path) -> None:
    assert broken(data, days=8) == {"backup": "warn"}
    (data / "backup.json").write_bytes(b"nonsense")
    assert findings(data)["backup"].message == "no backup has been made of this directory"


def test_a_damaged_database_is_found_and_the_rest_is_looked_at_all_the_same(data: Path) -> None:
    content = bytearray((data / "hub.db").read_bytes())
    content[4096:12288] = os.urandom(8192)
    (data / "hub.db").write_bytes(bytes(content))
    found = findings(data)
    assert found["database"].level == "fail"
    assert found["keys"].level == "ok"
    (data / "hub.db").unlink()
    assert findings(data)["database"].level == "fail"


def test_blobs_that_are_missing_or_cut_are_counted_by_their_size_alone(data: Path) -> None:
    first, second, *_ = sorted((data / "blobs" / "sha256").glob("??/*"))
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    found = findings(data)["blobs"]
    assert (found.level, found.message[:7]) == ("fail", "2 blobs")
    assert hex_of(first.name)[:12] in found.message


def test_leftovers_of_what_was_cut_off_are_named_once_they_are_old(data: Path) -> None:
    (data / "backup.db").write_bytes(b"")
    assert broken(data) == {"leftovers": "warn"}
    (data / "backup.db").unlink()
    (data / "keys" / "hub.pem.new").write_bytes(b"")
    assert broken(data) == {}
    assert broken(data, days=2) == {"leftovers": "warn"}


def test_held_sites_are_named(data: Path) -> None:
    store = SqlHubStore.open(data / "hub.db")
    store.put_recovery(RecoveryRecord(site="zurich", known=3, base=3, seen=9, host="press", held_since=NOW))
    store.close()
    assert "zurich" in findings(data)["sites"].message


def test_the_command_ends_with_one_when_something_is_broken(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["hub", "doctor", "--data", str(data)]) == 0
    assert "the database is sound" in capsys.readouterr().out
    (data / "tls" / "ca.key").chmod(0o644)
    assert run(["hub", "doctor", "--data", str(data), "-o", "json"]) == 1
    view = json.loads(capsys.readouterr().out)
    assert view["level"] == "fail"
    assert {"level", "check", "message", "hint"} == set(view["findings"][0])
