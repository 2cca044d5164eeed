"""The network of namespaces that other tests stand on: what it cuts is cut, what it mends is whole, nothing stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess, Fleet
from skerry.testing.lan import Lan, lan_problem
from skerry.testing.waiting import eventually_sync

pytestmark = [pytest.mark.netns, pytest.mark.skipif(lan_problem() != "", reason=lan_problem())]

LISTEN = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind((sys.argv[1], 9999))
end.settimeout(float(sys.argv[2]))
print("ready", flush=True)
try:
    print(end.recv(100).decode())
except TimeoutError:
    print("nothing")
"""
SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', (sys.argv[1], 9999))"


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(("a", "b", "c"), number=91) as made:
        yield made


def hears(lan: Lan, target: str, source: str, *, limit_s: float) -> bool:
    """Tell whether what one host sends reaches another."""
    listen = lan.command(target, [sys.executable, "-c", LISTEN, lan.address(target), str(limit_s)])
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        lan.run(source, [sys.executable, "-c", SEND, lan.address(target)])
        return listening.stdout.readline() == "hello\n"


def test_hosts_hear_each_other_until_they_are_cut_and_again_when_healed(lan: Lan) -> None:
    assert hears(lan, "b", "a", limit_s=20)
    lan.cut("a", "b")
    assert not hears(lan, "b", "a", limit_s=0.5)
    assert hears(lan, "a", "b", limit_s=20)
    assert hears(lan, "c", "a", limit_s=20)
    lan.heal()
    assert hears(lan, "b", "a", limit_s=20)


def test_one_that_is_cut_off_or_unplugged_is_heard_by_nobody(lan: Lan) -> None:
    lan.cut_off("a")
    assert not hears(lan, "b", "a", limit_s=0.5)
    assert not hears(lan, "a", "c", limit_s=0.5)
    assert hears(lan, "b", "c", limit_s=20)
    lan.heal()
    assert hears(lan, "b", "a", limit_s=20)


def test_nothing_stays_behind_even_of_what_still_runs(lan: Lan) -> None:
    sleeper = subprocess.Popen(lan.command("a", ["sleep", "600"]))
    places = [Path("/run/netns", lan.namespace(host)) for host in lan.hosts]
    assert all(place.exists() for place in places)
    lan.close()
    assert not any(place.exists() for place in places)
    assert not list(Path("/sys/class/net").glob("skt91*"))
    assert sleeper.wait(10) != 0


def test_a_network_that_was_left_is_replaced(lan: Lan) -> None:
    with Lan(("a", "b"), number=91) as again:
        assert hears(again, "a", "b", limit_s=20)


def await_contact(agent: AgentProcess) -> None:
    eventually_sync(lambda: bool(agent.status().get("last_contact")), what=f"contact of {agent.name}")


@pytest.mark.e2e
def test_agents_on_the_network_reach_their_hub_until_the_uplink_is_cut(lan: Lan, tmp_path: Path) -> None:
    with Fleet(tmp_path, lan).start() as fleet:
        fleet.add_site("harbour")
        agents = {name: fleet.add_agent("harbour", name) for name in ("a", "b")}
        for agent in agents.values():
            await_contact(agent)
        assert {host["presence"] for host in fleet.get("get", "hosts")} == {"online"}
        lan.cut_uplink()
        agents["a"].kill()
        seen = agents["a"].status()["last_contact"]
        agents["a"].start()
        eventually_sync(
            lambda: "sync.failing" in agents["a"].log.read_text(), what="an exchange that fails", limit_s=60
        )
        assert agents["a"].status()["last_contact"] in (None, "", seen)
