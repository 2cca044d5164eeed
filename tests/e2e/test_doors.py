"""Who may come in: logins, roles, join tokens, roots of trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import SITE, TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


def as_token(fleet: TestFleet, secret: str, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run a command with another API token and return its exit code and error."""
    file = fleet.folder / "token"
    file.write_text(secret)
    fleet.env["SKERRY_TOKEN_FILE"] = str(file)
    try:
        done = fleet.try_run(*arguments, stdin=stdin)
    finally:
        del fleet.env["SKERRY_TOKEN_FILE"]
    return done.returncode, done.stderr


def test_the_one_time_secret_opens_once(fleet: TestFleet) -> None:
    done = fleet.try_run(
        "login", fleet.hub.url, "--root", fleet.hub.root, "--secret-stdin", stdin=fleet.hub.secret
    )
    assert done.returncode == 77
    assert "used up" in done.stderr
    assert "skerry hub admin-secret" in done.stderr
    again = fleet.run("hub", "admin-secret", "--data", str(fleet.hub.data)).split()
    secret = again[again.index("secret:") + 1]
    fleet.run("login", fleet.hub.url, "--root", fleet.hub.root, "--secret-stdin", stdin=secret)


@pytest.mark.rule("TRUST-3")
def test_a_login_to_a_hub_with_another_root_is_refused(fleet: TestFleet) -> None:
    wrong = "sha256:" + "0" * 64
    done = fleet.try_run("login", fleet.hub.url, "--root", wrong, "--secret-stdin", stdin="x")
    assert done.returncode == 76
    assert "not the hub you mean" in done.stderr


def test_roles_hold(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    viewer = fleet.get("token", "create", "watcher", "--role", "viewer")["secret"]
    operator = fleet.get("token", "create", "worker", "--role", "operator")["secret"]
    site = SITE.format(name="airport", region="south")
    assert as_token(fleet, viewer, "get", "sites")[0] == 0
    code, error = as_token(fleet, viewer, "apply", "-f", "-", stdin=site)
    assert code == 77
    assert "role operator" in error
    assert as_token(fleet, operator, "apply", "-f", "-", stdin=site)[0] == 0
    assert as_token(fleet, operator, "token", "create", "more", "--role", "admin")[0] == 77
    assert as_token(fleet, "skerry_nonsense", "get", "sites")[0] == 77
    tokens = {token["name"]: token["id"] for token in fleet.get("token", "list")}
    fleet.run("token", "revoke", tokens["watcher"])
    assert as_token(fleet, viewer, "get", "sites")[0] == 77


@pytest.mark.rule("TRUST-1")
def test_a_join_token_works_once_and_says_why_when_it_does_not(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    token = fleet.get("site", "token", "harbour")["token"]

    def join(name: str, text: str = token) -> tuple[int, str]:
        done = fleet.try_run(
            "agent", "join", "-", "--data", str(fleet.folder / name), "--name", name, stdin=text
        )
        return done.returncode, done.stderr

    assert join("one")[0] == 0
    code, error = join("two")
    assert code == 77
    assert "used up" in error
    # The same host may ask again, as after a cut connection, and uses nothing up.
    assert join("one")[0] == 0
    short = fleet.get("site", "token", "harbour", "--ttl", "1ms")["token"]
    assert "expired" in join("three", short)[1]
    assert join("four", token[:-10])[0] == 2
    assert join("five", "nonsense")[0] == 2
    other = fleet.get("site", "token", "harbour")["token"]
    done = fleet.try_run(
        "agent", "join", "-", "--data", str(fleet.folder / "x"), "--name", "one", stdin=other
    )
    assert done.returncode == 5, done.stderr
    # A directory is one host: its queued reports are signed for the name it has.
    done = fleet.try_run(
        "agent", "join", "-", "--data", str(fleet.folder / "one"), "--name", "uno", stdin=other
    )
    assert done.returncode == 5, done.stderr


@pytest.mark.rule("TRUST-2")
def test_no_secret_is_written_where_it_does_not_belong(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    created = fleet.get("token", "create", "watcher", "--role", "viewer")
    join = fleet.get("site", "token", "harbour")["token"]
    agent = AgentProcess("edge", fleet.folder / "agents" / "edge", fleet.env, {})
    fleet.run("agent", "join", "-", "--data", str(agent.data), "--name", "edge", stdin=join)
    fleet.agents["edge"] = agent.start()
    fleet.until(lambda: fleet.get("get", "hosts")[0]["presence"] == "online")
    fleet.hub.stop()
    secrets = [created["secret"], fleet.hub.secret, join.removeprefix("skerry-join.")]
    for folder in (fleet.hub.folder, agent.folder):
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                for secret in secrets:
                    assert secret.encode() not in content, f"a secret is in {path}"
    for path in [*fleet.hub.data.rglob("*.pem"), *fleet.hub.data.rglob("*.key"), *agent.data.rglob("*.pem")]:
        if b"PRIVATE KEY" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path
    assert Path(fleet.env["SKERRY_CONFIG"]).stat().st_mode & 0o077 == 0
    assert fleet.hub.data.stat().st_mode & 0o077 == 0


def test_a_removed_host_may_not_sync_and_runs_on(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.run("delete", "host", "edge", "--yes")
    fleet.until(lambda: "host.unknown" in agent.log.read_text())
    fleet.until_runs(agent, "1.0.0")
    assert fleet.get("get", "hosts") == []
