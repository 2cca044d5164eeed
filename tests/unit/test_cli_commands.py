"""Commands against a hub over real HTTPS: what they ask for, what they print, how they end."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import run
from skerry.cli.rollout_watching import Changes, change_line, follow
from skerry.client.client import Client
from skerry.client.profile import Context, Profile, choose_context, load_profile, save_profile
from skerry.kit.errors import Rejected, Unavailable
from skerry.spec.api import NewToken, RolloutView, SiteView, TokenView
from skerry.spec.api_health import HealthView
from skerry.spec.api_rollout import SiteProgress
from tests.unit.cli_session import log_in, own_profile
from tests.unit.hub_double import SECRET, TOKEN, HubDouble, serve_hub

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SITE = SiteView(
    name="zurich",
    labels={"region": "north"},
    document={},
    generation=1,
    hosts=2,
    hosts_online=1,
    last_seen_at=None,
    presence="online",
    assignments={"reader": "reader@1.0.0"},
    health=HealthView(word="degraded"),
)
GRANTED = NewToken(secret=TOKEN, token=TokenView(id="1", name="admin", role="admin", created_at=NOW))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    own_profile(tmp_path, monkeypatch)
    with serve_hub(tmp_path) as hub:
        hub.views["/login"] = GRANTED
        yield hub


@pytest.fixture
def logged_in(hub: HubDouble, tmp_path: Path) -> HubDouble:
    log_in(tmp_path / "private" / "config.json", hub)
    return hub


def rollout(state: str, **sites: SiteProgress) -> RolloutView:
    view = RolloutView(
        name="spring",
        document={},
        release="reader@1.0.0",
        state="running",
        why="as it is",
        created_at=NOW,
        created_by="eva",
        sites=sites,
    )
    return msgspec.structs.replace(view, state=state)


def test_a_login_is_checked_against_the_root_and_kept_private(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    assert run(["login", hub.url + "/", "--root", hub.root, "--secret-stdin"]) == 0
    path = tmp_path / "private" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["config.json"], "nothing is left lying about"
    assert load_profile(path).contexts["default"].token == TOKEN
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err
    hub.views["/sites"] = [SITE]
    assert run(["get", "sites"]) == 0


def test_a_login_to_another_hub_sends_no_secret(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    assert run(["login", hub.url, "--root", "sha256:" + "0" * 64, "--secret-stdin"]) == 76
    assert "is not the hub you mean" in capsys.readouterr().err
    assert hub.requests == ["GET /v1/trust-root"]
    assert not (tmp_path / "private").exists()


def test_a_wrong_secret_is_refused(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("guess\n"))
    assert run(["login", hub.url, "--root", hub.root.removeprefix("sha256:"), "--secret-stdin"]) == 77


def test_a_machine_needs_no_profile(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/sites"] = [SITE]
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SKERRY_HUB", hub.url)
    monkeypatch.setenv("SKERRY_TOKEN_FILE", str(tmp_path / "token"))
    assert run(["get", "sites"]) == 2
    assert "SKERRY_ROOT" in capsys.readouterr().err
    monkeypatch.setenv("SKERRY_ROOT", hub.root)
    assert run(["get", "sites", "-o", "name"]) == 0
    assert capsys.readouterr().out == "site/zurich\n"


def test_contexts_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    one, two = (Context(hub=f"https://{name}", token=name) for name in ("one", "two"))
    save_profile(path, Profile().with_context("one", one).with_context("two", two))
    environment = {"SKERRY_CONFIG": str(path)}
    assert choose_context(environment) == two
    assert choose_context(environment, "one") == one
    assert choose_context({**environment, "SKERRY_CONTEXT": "one"}) == one
    with pytest.raises(Rejected, match="no context named 'three'"):
        choose_context(environment, "three")
    path.write_text("{")
    with pytest.raises(Rejected, match="cannot be read"):
        choose_context(environment)


def test_sites_are_listed_by_selector(logged_in: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.views["/sites"] = [SITE]
    assert run(["get", "sites", "-l", "region=north"]) == 0
    assert logged_in.requests[-1] == "GET /sites?selector=region%3Dnorth"
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "HEALTH", "STATE", "HOSTS", "LAST", "SEEN", "RUNS", "LABELS"]
    runs = ["online", "1/2", "online", "never", "reader@1.0.0", "region=north"]
    assert line.split() == ["zurich", "degraded", *runs]


def test_a_name_cannot_reach_another_part_of_the_api(logged_in: HubDouble) -> None:
    assert run(["get", "sites", "../tokens?x=1"]) == 4
    assert logged_in.requests == ["GET /sites/../tokens?x=1"], "one part of a path, quoted"


def test_an_empty_list_is_said_on_standard_error(
    logged_in: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.views["/rollouts"] = []
    assert run(["get", "rollouts"]) == 0
    assert capsys.readouterr() == ("", "no rollouts\n")
    assert run(["get", "rollouts", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_documents_are_applied_and_compared(
    logged_in: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("kind: Site\nmetadata: {name: zurich}\n")
    assert run(["diff", "-f", str(path)]) == 1
    assert "+  name: zurich" in capsys.readouterr().out
    assert run(["apply", "-f", str(path), "--dry-run"]) == 0
    assert capsys.readouterr().out == "site/zurich would be created\n"
    assert not logged_in.documents
    assert run(["apply", "-f", str(path)]) == 0
    assert capsys.readouterr().out == "site/zurich created\n"
    assert run(["diff", "-f", str(path)]) == 0
    assert capsys.readouterr().out == ""


def test_creating_a_site_never_changes_one(logged_in: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["site", "create", "zurich", "--label", "region=north", "--time-zone", "Europe/Zurich"]
    assert run(create) == 0
    assert logged_in.documents[("Site", "zurich")]["metadata"]["labels"] == {"region": "north"}
    assert run(create) == 0, "the same again is no conflict"
    before = dict(logged_in.documents)
    assert run(["site", "create", "zurich"]) == 5
    assert logged_in.documents == before
    assert run(["site", "create", "zurich", "--time-zone", "Nowhere"]) == 2
    assert "unknown time zone" in capsys.readouterr().err


def test_nothing_is_deleted_unconfirmed(
    logged_in: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.views["/sites/zurich"] = SITE
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(["delete", "site", "zurich"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert run(["delete", "sites", "zurich", "--dry-run"]) == 0
    assert capsys.readouterr().out == "site/zurich would be deleted\n"
    assert run(["delete", "site", "bern", "--dry-run"]) == 4
    assert "/sites/zurich" in logged_in.views
    (tmp_path / "site.yaml").write_text("kind: Site\nmetadata: {name: zurich}\n")
    assert run(["delete", "-f", str(tmp_path / "site.yaml"), "--yes"]) == 0
    assert "/sites/zurich" not in logged_in.views


def test_a_rollout_is_started_as_a_document(logged_in: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["rollout", "start", "reader@1.1.0", "--sites", "region=north", "--soak", "10s"]
    assert run([*start, "--dry-run"]) == 0
    assert not logged_in.documents
    assert run(start) == 0
    spec = logged_in.documents[("Rollout", "reader-1-1-0")]["spec"]
    assert spec == {
        "release": "reader@1.1.0",
        "sites": "region=north",
        "health": {"deadline": "5m", "soak": "10s"},
    }
    assert "skerry rollout watch reader-1-1-0" in capsys.readouterr().err
    assert run([*start, "--deadline", "soon"]) == 2
    assert "a duration such as" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), (("succeeded", 0), ("failed", 1), ("superseded", 1)))
def test_watching_a_rollout_ends_as_it_ends(
    state: str, code: int, logged_in: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.views["/rollouts/spring"] = rollout(state, zurich=SiteProgress(state="succeeded", why="runs"))
    assert run(["rollout", "watch", "spring"]) == code
    assert f"rollout spring: {state}" in capsys.readouterr().out


def test_a_watched_rollout_is_waited_for_until_it_ends(logged_in: HubDouble) -> None:
    said: list[str] = []
    steps = [
        rollout("running", zurich=SiteProgress(state="offered", why="queued")),
        None,
        None,
        rollout("running", zurich=SiteProgress(state="applying", why="starting")),
        rollout("succeeded", zurich=SiteProgress(state="succeeded", why="runs")),
    ]

    def step(_: float = 0) -> None:
        view = steps.pop(0)
        if view is None:
            logged_in.refuse(
                "GET /rollouts/spring", 503, title="unavailable", code="hub.away", detail="not now"
            )
        else:
            logged_in.refusals.clear()
            logged_in.views["/rollouts/spring"] = view

    step()
    changes = Changes("spring", lambda change: said.append(change_line(change)))
    with Client(logged_in.url, ca_pem=logged_in.ca_pem, token=TOKEN) as client:
        ended = follow(client, "spring", timeout_s=None, display=changes, sleep=step)
    assert ended.state == "succeeded"
    assert said == [
        "zurich: offered: queued",
        "rollout spring: running: as it is",
        "not now; still trying, what is shown is as of just now",
        "the hub answers again, after a moment",
        "zurich: applying: starting",
        "zurich: succeeded: runs",
        "rollout spring: succeeded: as it is",
    ]


def test_watching_gives_up_in_time(logged_in: HubDouble) -> None:
    logged_in.views["/rollouts/spring"] = rollout("running")
    times = iter((0.0, 5.0, 11.0))
    with (
        Client(logged_in.url, ca_pem=logged_in.ca_pem) as client,
        pytest.raises(Unavailable, match="not ended"),
    ):
        follow(
            client,
            "spring",
            timeout_s=10,
            display=Changes("spring", lambda _: None),
            clock=lambda: next(times),
            sleep=lambda _: None,
        )


def test_a_token_is_printed_alone(logged_in: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.views["/tokens"] = GRANTED
    assert run(["token", "create", "ci", "--role", "operator", "--ttl", "30d"]) == 0
    assert capsys.readouterr().out == f"{TOKEN}\n"
    assert run(["token", "create", "Not A Name", "--role", "viewer"]) == 2


def test_a_release_is_pushed_from_the_command_line(
    logged_in: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app").write_bytes(b"x" * 2048)
    path = tmp_path / "release.yaml"
    path.write_text(
        "kind: Application\nmetadata: {name: reader}\nspec:\n  version: 1.0.0\n  components:\n"
        "    - {name: c, command: [x], bundle: {files: [{path: app, source: app}]}}\n"
    )
    assert run(["release", "push", str(path), "--dry-run"]) == 0
    assert "2.0 KiB of 2.0 KiB would travel" in capsys.readouterr().out
    assert not logged_in.releases
    assert run(["release", "push", str(path)]) == 2
    assert "skerry publisher add NAME" in capsys.readouterr().err
    assert not logged_in.received_bytes, "who cannot sign does not send a file"
    offline = logged_in.signing.offline / "targets.pem"
    assert run(["publisher", "add", "acme", "--signer", str(offline)]) == 0
    capsys.readouterr()
    assert run(["release", "push", str(path)]) == 0
    shown = capsys.readouterr()
    assert "release reader@1.0.0 pushed" in shown.out
    assert "2.0 KiB sent in 1 file" in shown.out
    assert "hashed app (2.0 KiB)" in shown.err
    assert run(["release", "push", str(path), "-o", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["created"], again["uploaded_bytes"], again["skipped_bytes"]) == (False, 0, 2048)
    assert again["release"]["publisher"] == "acme"
