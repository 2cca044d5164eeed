"""The segmented network that other tests stand on: upwards by one level, where allowed, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest

from skerry.testing.lan import lan_problem
from skerry.testing.segments import Segments, Wire
from skerry.testing.slow_wire import Direction

needs_network = [pytest.mark.netns, pytest.mark.skipif(lan_problem() != "", reason=lan_problem())]

LISTEN = """
import socket, sys
door = socket.create_server((sys.argv[1], 7777))
print("ready", flush=True)
while True:
    end, _ = door.accept()
    end.sendall(b"hello")
    end.close()
"""
DIAL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as end:
        print(end.recv(5).decode())
except OSError as error:
    print("nothing")
"""
LEVELS = ((), ("middle",), ("low",))


@pytest.fixture
def segments() -> Iterator[Segments]:
    with Segments(LEVELS, number=21) as made:
        yield made


def listening(prefix: list[str], address: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", LISTEN, address], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def heard(segments: Segments, machine: str, address: str, *, limit_s: float, port: int = 7777) -> bool:
    dial = [sys.executable, "-c", DIAL, address, str(port), str(limit_s)]
    return segments.run(machine, dial) == "hello\n"


class TestFirewalls:
    """What crosses, and what is counted."""

    pytestmark = needs_network

    def test_one_level_up_where_it_is_allowed_and_nowhere_else(self, segments: Segments) -> None:
        middle = segments.address("middle")
        servers = [listening([], segments.top), listening(segments.command("middle", []), middle)]
        servers.append(listening(segments.command("low", []), segments.address("low")))
        try:
            assert not heard(segments, "low", middle, limit_s=0.3)
            segments.allow(1, 7777)
            segments.allow(2, 7777, to="middle")
            assert heard(segments, "low", middle, limit_s=20)
            assert heard(segments, "middle", segments.top, limit_s=20)
            first, second = segments.crossings(1), segments.crossings(2)
            assert (first.opened, first.downwards, first.past, first.other) == (1, 0, 0, 0)
            assert (second.opened, second.downwards, second.past) == (1, 0, 0)
            assert second.other > 0  # before it was allowed

            assert not heard(segments, "low", segments.top, limit_s=0.3)
            assert segments.crossings(2).past > 0
            assert segments.crossings(1).opened == 1
            assert not heard(segments, "middle", segments.address("low"), limit_s=0.3)
            assert segments.crossings(2).downwards > 0
            assert not heard(segments, "low", middle, limit_s=0.3, port=7778)

            segments.cut(2)
            assert not heard(segments, "low", middle, limit_s=0.3)
            assert segments.lost(2) > 0
            segments.heal(2)
            segments.cut(2, reset=True)
            assert not heard(segments, "low", middle, limit_s=20), "both ends are told at once"
            segments.heal(2)
            assert heard(segments, "low", middle, limit_s=20)
            assert segments.bytes_down(2) > 0
        finally:
            for server in servers:
                server.kill()
                server.wait()

    def test_a_wire_is_as_long_as_was_said_and_everything_crosses_it(self) -> None:
        with Segments(LEVELS, number=22, wires={2: Wire(delay_s=0.25, loss=0.05, seed=3)}) as segments:
            segments.allow(2, 7777, to="middle")
            server = listening(segments.command("middle", []), segments.address("middle"))
            try:
                assert heard(segments, "low", segments.address("middle"), limit_s=30)
            finally:
                server.kill()
                server.wait()


def test_a_wire_sends_one_frame_after_the_other_and_each_arrives_later() -> None:
    way = Direction(1000.0, 0.5, 0.0, Random(1))
    assert all(way.send(b"x" * 100, 10.0) for _ in range(3))
    assert way.arrived(10.59) == []
    assert way.next_at() == pytest.approx(10.6)
    assert len(way.arrived(10.7)) == 2
    assert len(way.arrived(10.8)) == 1


def test_a_wire_drops_what_its_queue_has_no_room_for_and_loses_its_share() -> None:
    full = Direction(1000.0, 0.0, 0.0, Random(1))
    assert [full.send(b"x" * 600, 0.0) for _ in range(4)] == [True, True, False, False]
    lossy = Direction(1e9, 0.0, 0.1, Random(1))
    kept = sum(lossy.send(b"x", float(second)) for second in range(10_000))
    assert 8_800 < kept < 9_200
