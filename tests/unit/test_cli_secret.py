"""The commands about secrets: what they ask the hub for, what they print, and what they never do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.main import run
from skerry.spec.api import HostView
from skerry.spec.api_forecast import ForecastView
from skerry.spec.api_secret import (
    ExposureView,
    MadeView,
    SecretAnswer,
    SecretDecision,
    SecretVersionView,
    SecretView,
)
from skerry.spec.secret import Making
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

pytestmark = pytest.mark.secrets

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CANARY = "canary-81be"
ONE = SecretVersionView(
    version=1,
    scope="all sites",
    site="",
    selector="",
    state="used",
    kind="set",
    length=0,
    public="",
    created_at=NOW,
    created_by="ada",
)
VIEW = SecretView(name="db", versions=(ONE,), used_by=("reader@1",))
VERSIONS = "/secrets/db/versions"


class Piped(io.TextIOWrapper):
    """Standard input from a pipe."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views |= {
            "/secrets": [VIEW],
            "/secrets/db": VIEW,
            VERSIONS: SecretAnswer(name="db", version=ONE, sites=("zurich",)),
            "/secrets/db/versions/1/revoke": SecretAnswer(name="db", version=ONE),
        }
        yield hub


def asked(hub: HubDouble) -> dict[str, Any]:
    return msgspec.json.decode(hub.bodies[VERSIONS], type=dict[str, Any])


@pytest.mark.rule("SECRET-1")
@pytest.mark.parametrize("way", ("file", "stdin"))
def test_a_value_is_read_byte_by_byte_and_shown_nowhere(
    hub: HubDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    value = CANARY.encode() + b"\xff\n"
    file = tmp_path / "value"
    file.write_bytes(value)
    monkeypatch.setattr("sys.stdin", Piped(value if way == "stdin" else b""))
    from_file = ["--from-file", str(file)] if way == "file" else []
    assert run(["secret", "set", "db", *from_file, "--selector", "region=north", "--not-before", "2h"]) == 0
    body = asked(hub)
    assert base64.b64decode(body["value"]) == value
    assert body["selector"] == "region=north"
    ahead = datetime.fromisoformat(body["not_before"]) - datetime.now(UTC)
    assert timedelta(hours=1) < ahead <= timedelta(hours=2)
    shown = capsys.readouterr()
    assert "version 1 is stored, for all sites" in shown.out
    assert "line break" in shown.err
    assert CANARY not in shown.out + shown.err + "".join(hub.requests)


def test_what_is_no_value_or_no_time_is_refused_before_anything_is_sent(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, more in ((b"", []), (bytes(20000), []), (b"x", ["--expires", "soon"])):
        monkeypatch.setattr("sys.stdin", Piped(content))
        assert run(["secret", "set", "db", *more]) == 2
    assert run(["secret", "set", "db", CANARY]) == 2, "a value is no argument"
    assert not [request for request in hub.requests if request.startswith("POST")]
    assert capsys.readouterr().out == ""


def test_rotation_keeps_the_only_scope_there_is_and_generates_as_before(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = msgspec.structs.replace(ONE, site="zurich", scope="site zurich", kind="random", length=48)
    hub.views["/secrets/db"] = msgspec.structs.replace(VIEW, versions=(made,))
    assert run(["secret", "rotate", "db", "--generate", "--dry-run"]) == 0
    assert asked(hub) == {"site": "zurich", "generate": {"kind": "random", "length": 48}, "dry_run": True}
    hub.views["/secrets/db"] = msgspec.structs.replace(VIEW, versions=(ONE, made))
    monkeypatch.setattr("sys.stdin", Piped(b"next"))
    assert run(["secret", "rotate", "db", "--site", "zurich"]) == 0
    assert asked(hub)["site"] == "zurich"
    assert run(["secret", "rotate", "db", "--generate"]) == 4
    assert "was set, and not generated" in capsys.readouterr().err
    assert run(["secret", "rotate", "db", "--site", "berne", "--generate"]) == 4
    assert "no value for site berne" in capsys.readouterr().err


def test_values_are_ordered_from_hosts_and_what_those_tell_is_shown(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    making = Making(kind="keypair", algorithm="p256")
    at_site = msgspec.structs.replace(ONE, kind="keypair", making=making, at_site=True, rotate_every_s=86400)
    hub.views[VERSIONS] = SecretAnswer(name="db", version=at_site)
    how = ("--kind", "keypair", "--algorithm", "p256", "--at-site", "--rotate-every", "1d")
    assert run(["secret", "generate", "db", *how]) == 0
    body = {"generate": {"kind": "keypair", "algorithm": "p256"}, "at_site": True, "rotate_every": "1d"}
    assert asked(hub) == body
    assert "is ordered from the hosts" in capsys.readouterr().out
    made = MadeView(host="edge", site="zurich", round=2, used=False, made_at=NOW, public="MCow+key")
    hub.views["/secrets/db"] = msgspec.structs.replace(
        VIEW, versions=(msgspec.structs.replace(at_site, made=(made,)),)
    )
    assert run(["secret", "versions", "db"]) == 0
    shown = capsys.readouterr().out
    assert "keypair at site" in shown
    assert shown.splitlines()[-1].split()[:4] == ["edge", "1", "2", "next"]
    assert "MCow+key" in shown
    assert run(["secret", "versions", "db", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["made"][0]["public"] == "MCow+key"
    assert run(["secret", "rotate", "db", "--generate"]) == 0
    assert asked(hub) == body | {"rotate_every": "86400s"}


def test_what_runs_out_is_listed_and_makes_the_exit_code_1(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ForecastView(
        site="zurich",
        host="edge",
        kind="secret",
        name="db",
        version=3,
        ends_at=NOW,
        back_by=NOW + timedelta(days=2),
        why=("no later version is prepared", "silent for 3d"),
        last_seen_at=NOW,
    )
    hub.views["/forecast"] = [
        view,
        msgspec.structs.replace(view, kind="certificate", name="ca", version=None),
    ]
    assert run(["secret", "forecast", "--site", "zurich", "--within", "30d"]) == 1
    assert hub.requests[-1] == "GET /forecast?site=zurich&within_s=2592000"
    shown = capsys.readouterr().out
    for told in ("secret db 3", "certificate ca ", "no later version is prepared; silent for 3d"):
        assert told in shown
    hub.views["/forecast"] = []
    assert run(["secret", "forecast", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_secrets_are_listed_explained_revoked_and_deleted(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/secrets/db/sites/zurich"] = SecretDecision(
        name="db", site="zurich", version=1, next=(2,), used_by=("reader@1",), why=("all sites: matches",)
    )
    assert run(["secret", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["db", "1", "1", "none", "reader@1"]
    assert run(["secret", "versions", "db", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "used"
    assert run(["explain", "secret", "db", "--site", "zurich"]) == 0
    shown = capsys.readouterr().out
    for told in ("gets version 1", "all sites: matches", "for later: version 2", "reader@1"):
        assert told in shown
    assert run(["secret", "revoke", "db", "1", "--dry-run"]) == 0
    assert "would be revoked" in capsys.readouterr().out
    assert hub.requests[-1] == "POST /secrets/db/versions/1/revoke?dry_run=true"
    monkeypatch.setattr("sys.stdin", Piped(b"y\n"))
    assert run(["secret", "delete", "db"]) == 2
    assert run(["secret", "delete", "db", "--dry-run"]) == 0
    assert "DELETE /secrets/db" not in hub.requests
    assert run(["secret", "delete", "db", "--yes"]) == 0
    assert "DELETE /secrets/db" in hub.requests


def test_all_that_a_lost_host_could_read_is_rotated_in_one_go(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def exposed(name: str, version: int, *, needed: bool = True) -> ExposureView:
        return ExposureView(
            host="edge", site="z", name=name, version=version, sealed_at=NOW, rotate_needed=needed, why=""
        )

    made = msgspec.structs.replace(ONE, kind="random", making=Making(kind="random", alphabet="hex"))
    hub.views |= {
        "/hosts/edge/secrets": [
            exposed("db", 1),
            exposed("made", 1),
            exposed("made", 2),
            exposed("old", 1, needed=False),
        ],
        "/secrets/made": SecretView(
            name="made", versions=(made, msgspec.structs.replace(made, version=2, state="next"))
        ),
        "/secrets/made/versions": SecretAnswer(name="made", version=msgspec.structs.replace(made, version=3)),
    }
    assert run(["secret", "rotate-exposed", "edge"]) == 1
    shown = capsys.readouterr().out
    assert "it is generated anew, and is stored" in shown
    assert "a file named db in --from-dir" in shown
    posted = [request for request in hub.requests if request.startswith("POST")]
    assert posted == ["POST /secrets/made/versions"], "once, although two versions of it were exposed"
    assert msgspec.json.decode(hub.bodies["/secrets/made/versions"]) == {
        "generate": {"kind": "random", "alphabet": "hex"}
    }
    assert run(["secret", "rotate-exposed", "edge", "--from-dir", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "db").write_text(CANARY)
    assert run(["secret", "rotate-exposed", "edge", "--from-dir", str(tmp_path), "--dry-run"]) == 0
    assert base64.b64decode(asked(hub)["value"]).decode() == CANARY
    assert asked(hub)["dry_run"]
    shown = capsys.readouterr().out
    assert "would be stored" in shown
    assert CANARY not in shown


def test_a_host_is_revoked_with_the_list_of_what_it_could_read(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    exposed = ExposureView(
        host="edge",
        site="zurich",
        name="db",
        version=1,
        sealed_at=NOW,
        rotate_needed=True,
        why="it is in use",
    )
    old = msgspec.structs.replace(exposed, name="old", rotate_needed=False, why="it was revoked")
    host = HostView(
        name="edge",
        site="zurich",
        enrolled_at=NOW,
        last_seen_at=NOW,
        presence="silent",
        sequence=7,
        generation_held=1,
        generation_wanted=1,
    )
    hub.views |= {"/hosts/edge": host, "/hosts/edge/secrets": [exposed, old]}
    assert run(["host", "revoke", "edge", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "db" in shown.out
    assert "would be revoked; 1 secret to rotate" in shown.err
    assert "DELETE /hosts/edge" not in hub.requests
    assert run(["host", "revoke", "edge", "--yes"]) == 0
    assert hub.requests[-1] == "DELETE /hosts/edge"
    capsys.readouterr()
    assert run(["secret", "list", "--exposed-by", "edge", "--rotate-needed", "-o", "json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["db"]
    assert run(["secret", "list", "--rotate-needed"]) == 2
