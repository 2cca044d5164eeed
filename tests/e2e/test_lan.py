"""The network of namespaces that other tests stand on: what it cuts is cut, what it mends is whole, nothing stays."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from skerry.testing.fleet import AgentProcess, Fleet
from skerry.testing.lan import Lan, burst_bytes, lan_problem, throttle_problem
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
    sleeping = lan.command("a", ["sh", "-c", "echo inside; exec sleep 600"])
    with subprocess.Popen(sleeping, stdout=subprocess.PIPE, text=True) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "inside\n"
        places = [Path("/run/netns", lan.namespace(host)) for host in lan.hosts]
        assert all(place.exists() for place in places)
        lan.close()
        assert not any(place.exists() for place in places)
        assert not list(Path("/sys/class/net").glob("skt91*"))
        assert sleeper.wait(20) != 0


def test_a_network_that_was_left_is_replaced(lan: Lan) -> None:
    with Lan(("a", "b"), number=91) as again:
        assert hears(again, "a", "b", limit_s=20)


# ── throttled links ──────────────────────────────────────────────────────────────────────────────────

# Takes a stream from the gateway, sends it back, and says what it was.
MIRROR = """
import hashlib, socket, sys
end = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=100)
data = bytearray()
while part := end.recv(65536):
    data += part
print("whole", len(data), hashlib.sha256(data).hexdigest(), flush=True)
end.sendall(data)
end.shutdown(socket.SHUT_WR)
end.recv(1)
"""
# Sends datagrams to nobody in particular, and says how many of them could not be sent.
SCATTER = """
import socket, sys
end, failed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
for _ in range(200):
    try:
        end.sendto(b"hello", (sys.argv[1], 9999))
    except OSError:
        failed += 1
print(failed)
"""
HEADERS = 66  # Ethernet 14, IP 20, TCP 20 and a time stamp of 12
SEGMENT = 1448


@pytest.fixture
def throttled(lan: Lan) -> Lan:
    if problem := throttle_problem():
        pytest.skip(problem)
    return lan


def mirror(lan: Lan, host: str, size: int) -> tuple[float, float]:
    """Send a stream to a host and have it sent back, whole both times; return the seconds down, and down and up."""
    data = Random(size).randbytes(size)
    with socket.create_server((lan.gateway, 0)) as server:
        server.settimeout(60)
        command = [sys.executable, "-c", MIRROR, lan.gateway, str(server.getsockname()[1])]
        with subprocess.Popen(lan.command(host, command), stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            end, _ = server.accept()
            with end:
                end.settimeout(100)
                began = time.monotonic()
                end.sendall(data)
                end.shutdown(socket.SHUT_WR)
                said = other.stdout.readline()
                arrived = time.monotonic()
                assert said == f"whole {size} {hashlib.sha256(data).hexdigest()}\n"
                back = bytearray()
                while part := end.recv(1 << 16):
                    back += part
                returned = time.monotonic()
            assert bytes(back) == data
    return arrived - began, returned - began


def test_a_throttled_link_is_never_faster_than_its_rate_down_nor_up(throttled: Lan) -> None:
    rate, size = 40_000, 60_000
    throttled.throttle("a", rate=rate)
    least_s = (size - burst_bytes(rate)) / rate
    down_s, both_s = mirror(throttled, "a", size)
    assert down_s >= least_s
    assert both_s >= 2 * least_s
    throttled.throttle("a", rate=2 * rate)
    down_s, _ = mirror(throttled, "a", size)
    assert down_s >= (size - burst_bytes(2 * rate)) / (2 * rate)


def test_lost_packets_are_sent_again_and_a_stream_arrives_whole(throttled: Lan) -> None:
    assert throttled.lost_packets("a") == (0, 0)
    throttled.throttle("a", rate=None, loss=0.1)
    mirror(throttled, "a", 300_000)  # 200 packets each way: that none is lost has a chance of 1 in 10^9
    to_host, from_host = throttled.lost_packets("a")
    assert to_host > 0 and from_host > 0


def test_a_sender_is_not_told_what_a_bad_link_loses(throttled: Lan) -> None:
    throttled.throttle("a", rate=None, loss=0.5)
    assert throttled.run("a", [sys.executable, "-c", SCATTER, throttled.address("b")]) == "0\n"
    _, from_host = throttled.lost_packets("a")
    assert 0 < from_host < 200


def test_nothing_comes_through_where_all_is_lost_until_the_link_is_given_back(throttled: Lan) -> None:
    throttled.throttle("b", rate=50_000, loss=1.0)
    assert not hears(throttled, "b", "a", limit_s=0.5)
    assert throttled.lost_packets("b")[0] > 0
    throttled.unthrottle("b")
    assert hears(throttled, "b", "a", limit_s=20)
    assert throttled.lost_packets("b") == (0, 0)
    rules = throttled.run("b", ["iptables", "-w", "-S"])
    assert "statistic" not in rules
    assert "tbf" not in throttled.run("b", ["tc", "qdisc", "show", "dev", "eth0"])
    throttled.unthrottle("b")


def test_what_is_missing_to_throttle_a_link_is_named(throttled: Lan, tmp_path: Path) -> None:
    def problem() -> str:
        code = "from skerry.testing.lan import throttle_problem; print(throttle_problem())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def have(program: str) -> None:
        place = shutil.which(program)
        assert place is not None
        (tmp_path / program).symlink_to(Path(place).resolve())

    have("ip")
    assert problem() == "there is no program tc"
    (tmp_path / "tc").write_text("#!/bin/sh\necho 'Error: Specified qdisc kind is unknown.' >&2\nexit 2\n")
    (tmp_path / "tc").chmod(0o755)
    assert problem() == "there is no program iptables"
    (tmp_path / "iptables").write_text("#!/bin/sh\necho 'no match by this name: statistic' >&2\nexit 2\n")
    (tmp_path / "iptables").chmod(0o755)
    assert problem().endswith("Specified qdisc kind is unknown.")
    (tmp_path / "tc").unlink()
    have("tc")
    assert problem().endswith("no match by this name: statistic")
    assert not list(Path("/run/netns").glob("skt-probe-*"))


def test_bytes_to_a_host_are_counted_with_the_headers_of_every_packet(throttled: Lan) -> None:
    size = 1_000_000
    before = {host: throttled.bytes_to(host) for host in throttled.hosts}
    mirror(throttled, "a", size)
    carried = {host: throttled.bytes_to(host) - before[host] for host in throttled.hosts}
    packets = size // SEGMENT
    assert carried["a"] >= size + packets * HEADERS
    assert carried["a"] < 1.5 * size
    assert carried["b"] < size / 10


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
