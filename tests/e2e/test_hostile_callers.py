"""A real hub among callers who mean it harm, and what its log says of them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from skerry.testing.waiting import eventually_sync
from tests.e2e.conftest import SITE, TestFleet
from tests.e2e.releases import write_release
from tests.e2e.test_doors import as_token

pytestmark = [pytest.mark.e2e, pytest.mark.trust]

SLOW = 300
SLOW_OF_ADDRESS = 256
TALKATIVE = """
import atexit, logging, runpy, sys
import structlog

# Everything at its most talkative: the libraries by the root logger, which the hub then leaves as it is, and the hub's
# own log, whatever level it asks for.
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
filtering = structlog.make_filtering_bound_logger
structlog.make_filtering_bound_logger = lambda _: filtering(logging.DEBUG)
# At the end: nobody has made it say less meanwhile.
atexit.register(logging.getLogger("everything").debug, "was told")
sys.argv = sys.argv[3:]
runpy.run_module("skerry", run_name="__main__", alter_sys=True)
"""


def connect(fleet: TestFleet) -> ssl.SSLSocket:
    """Return a TLS connection to the hub that checks nothing, as somebody who means harm has no need to."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((fleet.hub.host, fleet.hub.port), 10.0))


def is_cut(connection: ssl.SSLSocket) -> bool:
    """Tell whether the hub has ended a connection."""
    connection.settimeout(0.001)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def dripping(connections: list[ssl.SSLSocket]) -> Generator[None]:
    """Send a byte on each connection, again and again."""
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.5):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.rule("DOOR-4")
def test_slow_connections_are_ended_and_stop_nobody_elses_request(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    slow = [connect(fleet) for _ in range(SLOW)]
    try:
        for connection in slow:
            with contextlib.suppress(OSError):  # the oldest are cut while the later ones come
                connection.sendall(b"POST /v1/sync HTTP/1.1\r\nHost: hub\r\nX: ")
        with dripping(slow):
            assert [site["name"] for site in fleet.get("get", "sites")] == ["harbour"]
            oldest = slow[: SLOW - SLOW_OF_ADDRESS]
            eventually_sync(lambda: all(is_cut(connection) for connection in oldest))
            eventually_sync(lambda: all(is_cut(connection) for connection in slow), limit_s=60.0)
        assert [site["name"] for site in fleet.get("get", "sites")] == ["harbour"]
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.rule("DOOR-1")
def test_a_builds_token_pushes_releases_and_changes_nothing_that_runs(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.add_publisher()
    build = fleet.get("token", "create", "build", "--role", "publisher")["secret"]
    path = write_release(fleet.folder / "release", "1.0.0", ballast={"weights.bin": b"w" * 100_000})
    assert as_token(fleet, build, "release", "push", str(path))[0] == 0
    assert [release["created_by"] for release in fleet.get("get", "releases")] == ["build"]
    site = SITE.format(name="airport", region="south")
    assert as_token(fleet, build, "apply", "-f", "-", stdin=site)[0] == 77
    for words in (
        ("rollout", "start", "talker@1.0.0", "--sites", "*", "--name", "mine"),
        ("site", "token", "harbour"),
        ("delete", "release", "talker@1.0.0", "--yes"),
        ("token", "create", "more", "--role", "viewer"),
    ):
        code, error = as_token(fleet, build, *words)
        assert code == 77, words
        assert "build is publisher" in error
    assert [site["name"] for site in fleet.get("get", "sites")] == ["harbour"]
    assert fleet.get("get", "rollouts") == []


@pytest.mark.rule("DOOR-5")
def test_a_teams_token_is_for_its_own_sites(fleet: TestFleet) -> None:
    fleet.make_site("harbour", "north")
    fleet.make_site("airport", "south")
    team = fleet.get("token", "create", "team", "--role", "operator", "--sites", "region=north")["secret"]
    fleet.push("1.0.0")
    assert as_token(fleet, team, "describe", "site", "harbour")[0] == 0
    code, error = as_token(fleet, team, "describe", "site", "airport")
    assert (code, "no site airport" in error) == (4, True)
    assert (
        as_token(fleet, team, "apply", "-f", "-", stdin=SITE.format(name="airport", region="north"))[0] == 2
    )
    start = ("rollout", "start", "talker@1.0.0", "--sites", "*", "--name", "mine")
    code, error = as_token(fleet, team, *start)
    assert code == 0, error
    document = fleet.get("get", "rollouts", "mine")["document"]
    assert document["spec"]["sites"] == "region=north"
    listed = {token["name"]: token.get("sites", "") for token in fleet.get("token", "list")}
    assert listed["team"] == "region=north"


@pytest.mark.rule("DOOR-3")
@pytest.mark.rule("TRUST-2")
def test_the_most_talkative_log_holds_no_secret_and_no_token(tmp_path: Path) -> None:
    launcher = tmp_path / "talkative.py"
    launcher.write_text(TALKATIVE)
    with TestFleet(tmp_path / "fleet") as fleet:
        fleet.hub._prefix = (sys.executable, str(launcher))
        fleet.start()
        fleet.make_site("harbour")
        secrets = {"one-time": fleet.hub.secret}
        secrets["admin"] = json.loads(Path(fleet.env["SKERRY_CONFIG"]).read_text())["contexts"]["default"][
            "token"
        ]
        for role in ("viewer", "publisher", "operator"):
            secrets[role] = fleet.get("token", "create", role, "--role", role)["secret"]
            as_token(fleet, secrets[role], "get", "sites")
            as_token(fleet, secrets[role], "token", "list")
        secrets["expired"] = fleet.get("token", "create", "short", "--role", "viewer", "--ttl", "1ms")[
            "secret"
        ]
        assert as_token(fleet, secrets["expired"], "get", "sites")[0] == 77
        secrets["wrong"] = "skerry_" + "w" * 43
        assert as_token(fleet, secrets["wrong"], "get", "sites")[0] == 77
        secrets["wrong login"] = "once_" + "l" * 43
        fleet.try_run(
            "login", fleet.hub.url, "--root", fleet.hub.root, "--secret-stdin", stdin=secrets["wrong login"]
        )
        secrets["join"] = fleet.get("site", "token", "harbour")["token"]
        secrets["join token's own"] = secret_of(secrets["join"])
        agent = fleet.add_agent("harbour", "edge")
        fleet.push("1.0.0")
        fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
        fleet.until_runs(agent, "1.0.0")
        for secret in secrets.values():  # in places where no secret belongs, and people put them all the same
            fleet.try_run("describe", "site", secret)
        fleet.hub.stop()
        log = fleet.hub.log.read_text()
        assert "DEBUG:everything:was told" in log
        assert "desired.issued" in log
        kept = b"".join(path.read_bytes() for path in fleet.hub.data.glob("hub.db*"))
    for name, secret in secrets.items():
        assert secret not in log, name
        assert secret.encode() not in kept or name in ("wrong", "wrong login"), name
    assert "Bearer" not in log


def secret_of(join_token: str) -> str:
    """Return the part of a join token that nobody may know."""
    from skerry.trust.tokens import parse_join_token

    return parse_join_token(join_token).secret
