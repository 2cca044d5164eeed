"""Secrets on three hosts, one behind two relays: used, rotated without a link and revoked, and leaked nowhere."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from tests.e2e.relay_fleet import RelayFleet, url_of
from tests.e2e.releases import SERVING, ask
from tests.e2e.test_secrets import everything

pytestmark = [pytest.mark.e2e, pytest.mark.secrets]

CANARIES = [f"canary-number-{number}-b81f03" for number in range(5)]
HOSTS = ("deep", "away", "rebooted")

APP = (
    SERVING
    + """
import hashlib, pathlib


class Handler(Answering):
    def do_GET(self):
        folder = pathlib.Path(os.environ["SKERRY_SECRETS"])
        self.answer(200, hashlib.sha256((folder / "password").read_bytes()).hexdigest())


serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: keeper}
spec:
  version: 1.0.0
  components:
    - name: box
      bundle: {files: [{path: app.py, source: app.py}]}
      command: [python3, "${bundle}/app.py"]
      secrets:
        - {name: password, path: password}
        - {name: device-key, path: device.pem}
      ports: [{name: http}]
      probes: {startup: {http: {port: http, path: /}, period: 100ms, timeout: 2s, failures: 100}}
      stop: {grace: 2s}
"""


class Keepers(RelayFleet):
    """The sentences of this test. Each host has a memory of its own, in one directory."""

    def __init__(self, folder: Path, memory: Path) -> None:
        super().__init__(folder)
        self.memory = memory
        self.env["SKERRY_RUN_DIR"] = str(memory)

    def build(self) -> None:
        """Begin with the hub, and a relay behind a relay, and hosts of a site each."""
        self.start()
        self.add_relay("upper")
        lower = self.add_relay("lower", upstreams="upper")
        self.make_sites(*HOSTS)
        self.add_agent_by("deep", "deep", [url_of(lower)])
        for name in HOSTS[1:]:
            self.add_agent(name, name)

    def until_tells(self, canary: str, *names: str) -> None:
        """Wait until these hosts' applications have read a value."""
        told = hashlib.sha256(canary.encode()).hexdigest()
        for name in names or HOSTS:
            agent = self.agents[name]
            self.until(
                lambda agent=agent: ask(agent.endpoint("keeper", "box")) == told,  # type: ignore[misc]
                lambda agent=agent: f"{agent.name}: {agent.log.read_text()[-3000:]}",  # type: ignore[misc]
            )

    def holds(self, agent: AgentProcess, *versions: int) -> bool:
        """Tell whether a host holds versions of the password for later."""
        observed: dict[str, Any] = agent.status().get("observed") or {}
        return bool(observed.get("secrets_next", {}).get("password") == list(versions))

    def files(self, name: str) -> list[Path]:
        """Return what is in memory under a name, of all hosts."""
        return sorted(self.memory.glob(f"skerry-*/keeper.box.*/{name}"))


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[Keepers]:
    memory = Path("/dev/shm") / f"skerry-fleet-{os.getpid()}"
    memory.mkdir()
    try:
        with Keepers(tmp_path, memory) as made:
            made.build()
            yield made
    finally:
        shutil.rmtree(memory, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.rule("SECRET-1", "SECRET-3", "SECRET-4", "SECRET-6", "SECRET-7")
def test_three_hosts_get_use_rotate_and_lose_secrets_that_nobody_else_reads(keepers: Keepers) -> None:
    release = keepers.folder / "keeper"
    release.mkdir()
    (release / "app.py").write_text(APP)
    (release / "keeper.yaml").write_text(DOCUMENT)
    keepers.run("release", "push", str(release / "keeper.yaml"))
    keepers.run("secret", "set", "password", stdin=CANARIES[0])
    keepers.run("secret", "generate", "device-key", "--kind", "keypair", "--algorithm", "p256", "--at-site")
    start = ("rollout", "start", "keeper@1.0.0", "--sites", "*", "--name", "all", "--soak", "300ms")
    keepers.run(*start)
    keepers.until_tells(CANARIES[0])

    # Two versions travel ahead, and everything above the hosts goes away.
    for canary, after in ((CANARIES[1], "9s"), (CANARIES[2], "12s")):
        keepers.run("secret", "rotate", "password", "--not-before", after, stdin=canary)
    for agent in keepers.agents.values():
        keepers.until(lambda agent=agent: keepers.holds(agent, 2, 3))  # type: ignore[misc]
    keepers.hub.kill()
    for relay in keepers.relays.values():
        relay.kill()
    rebooted = keepers.agents["rebooted"]
    for pid in processes_of(rebooted.folder):
        os.kill(pid, signal.SIGKILL)
    rebooted.kill()
    for place in keepers.memory.iterdir():
        shutil.rmtree(place)  # of all: those that run put theirs back
    rebooted.start()
    keepers.until_tells(CANARIES[2])
    for name in ("deep", "away"):
        taken = keepers.agents[name].log.read_text()
        assert "password 2" in taken, "the one in between was used in its time"

    # With the link back, a new version goes down through both relays, and an old one is revoked.
    keepers.hub.start()
    for relay in keepers.relays.values():
        relay.start()
    keepers.run("secret", "rotate", "password", "--expires", "2h", stdin=CANARIES[3])
    keepers.run("secret", "revoke", "password", "3")
    keepers.until_tells(CANARIES[3])
    shown = said_by(keepers)
    look_for_leaks(keepers, shown)
    look_at_made(keepers)
    forecast = keepers.run("secret", "forecast", "--within", "1d", "-o", "json", code=1)
    assert [(one["host"], one["version"]) for one in json.loads(forecast)] == [
        (name, 4) for name in sorted(HOSTS)
    ]
    assert json.loads(keepers.run("secret", "forecast", "-o", "json")) == []


def said_by(keepers: Keepers) -> str:
    """Return everything that people are told over the API."""
    asked = (
        ("secret", "list"),
        ("secret", "versions", "password"),
        ("secret", "versions", "device-key"),
        ("secret", "list", "--exposed-by", "deep"),
        ("get", "events"),
        ("describe", "host", "deep"),
    )
    told = [keepers.run(*words, "-o", "json") for words in asked]
    return "".join(told) + keepers.run("explain", "secret", "password", "--site", "deep")


def look_for_leaks(keepers: Keepers, shown: str) -> None:
    """Look for every value, and for the private keys, in what the hub, the relays and the agents have written."""
    private = [path.read_text() for path in keepers.files("device.pem")]
    wanted = [*CANARIES, *(base64.b64encode(one.encode()).decode().rstrip("=") for one in CANARIES)]
    wanted += [pem.splitlines()[1] for pem in private]
    everywhere = everything(keepers.folder) + shown.encode()
    assert [one for one in wanted if one.encode() in everywhere] == []
    in_memory = everything(keepers.memory)
    assert [one for one in CANARIES if one.encode() in in_memory] == [CANARIES[3]]


def look_at_made(keepers: Keepers) -> None:
    """See that each host has made its own key, and that the hub shows the public halves of these."""
    wanted = {public_of(path) for path in keepers.files("device.pem")}
    assert len(wanted) == len(HOSTS)

    def shown() -> set[str]:
        (version,) = keepers.get("secret", "versions", "device-key")
        return {one["public"] for one in version["made"]}

    keepers.until(lambda: shown() == wanted, lambda: str(shown()))


def public_of(path: Path) -> str:
    private = load_pem_private_key(path.read_bytes(), password=None)
    whole = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(whole).decode()
