"""Deltas over bad links, with real processes: cut in the middle, out of budget, from a hub that dies, damaged."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from skerry.kit.digests import hex_of
from skerry.testing.fleet import AgentProcess, HubProcess
from skerry.testing.lan import Lan, throttle_problem
from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.link_counting import (
    HEADS,
    RATE,
    RECEIVE_BUFFER,
    TLS_HANDSHAKE,
    SocketCounts,
    ask_there,
    day_usage,
    document_bytes,
    fetched_message,
    held_bytes,
    made_deltas,
    whole_blobs,
)

pytestmark = [pytest.mark.e2e, pytest.mark.delivery, pytest.mark.slow]

SIZE = 1 << 20
LOSS = 0.02
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec: {{variables: {{greeting: hi}}, {more}}}
"""


def apply(fleet: TestFleet, more: str = "") -> None:
    fleet.run("apply", "-f", "-", stdin=SITE.format(more=more))


def content(*changes: int, size: int = SIZE) -> bytes:
    """Return bytes that do not pack, with so many of them changed in places that lie apart."""
    made = bytearray(random.Random(1).randbytes(size))
    for number, changed in enumerate(changes, 1):
        made[number * 200_000 : number * 200_000 + changed] = random.Random(1000 + number).randbytes(changed)
    return bytes(made)


def push(fleet: TestFleet, version: str, weights: bytes) -> None:
    fleet.push(version, ballast={"weights.bin": weights})


def begin(fleet: TestFleet, version: str) -> None:
    """Begin to roll a release out, with time enough for a weak link."""
    gate = ("--soak", "300ms", "--deadline", "10m")
    fleet.run(
        "rollout",
        "start",
        f"talker@{version}",
        "--sites",
        "*",
        "--name",
        f"to-{version.replace('.', '-')}",
        *gate,
    )


def plan(fleet: TestFleet, version: str) -> int:
    """Have the deltas to a release made, and return what it is to take of the link: its files and its document."""
    traffic = fleet.get("rollout", "preview", f"talker@{version}", "--sites", "*", "--make")["traffic"]
    assert traffic["pending"] == 0
    return int(traffic["size_bytes"]) + document_bytes(fleet, f"talker@{version}")


def new_delta(fleet: TestFleet, before: dict[str, int]) -> tuple[str, int]:
    """Return the digest and the size of the largest delta that was made since."""
    made = {digest: size for digest, size in made_deltas(fleet.hub.data).items() if digest not in before}
    return max(made.items(), key=lambda one: one[1])


def came(fleet: TestFleet, version: str) -> str:
    """Return what the host says of how a release came to it."""
    return fleet.until(lambda: fetched_message(fleet, f"talker@{version}"))


def runs(agent: AgentProcess, version: str) -> bool:
    view = agent.application("talker")
    return view.get("phase") == "running" and view.get("release") == f"talker@{version}"


def until_says(far: TestFleet, agent: AgentProcess, said: str) -> None:
    """Wait until the application answers so to someone on its host."""
    lan = far.lan
    assert lan is not None
    far.until(lambda: ask_there(lan, "edge", agent.endpoint("talker", "mouth")).startswith(said))


def first_release(fleet: TestFleet, *, size: int = SIZE) -> AgentProcess:
    """Bring 1.0.0 to a host over a link that is still good."""
    apply(fleet)
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, "1.0.0", content(size=size))
    begin(fleet, "1.0.0")
    fleet.until(lambda: runs(agent, "1.0.0"), lambda: str(agent.status()))
    return agent


@pytest.fixture
def far(tmp_path: Path) -> Iterator[TestFleet]:
    """A hub that is reached over one host's cable."""
    with Lan(("edge",), number=95) as lan, TestFleet(tmp_path, lan) as made:
        made.start()
        yield made


@pytest.mark.netns
@pytest.mark.skipif(throttle_problem() != "", reason=throttle_problem())
def test_a_delta_that_was_cut_in_the_middle_goes_on_at_the_byte_and_the_next_release_is_a_delta_as_well(
    far: TestFleet,
) -> None:
    lan = far.lan
    assert lan is not None
    agent = first_release(far)
    apply(far, "link: {rate: 128kbit/s, per_day: 1GiB}")
    before = made_deltas(far.hub.data)
    push(far, "1.1.0", content(80_000))
    planned = plan(far, "1.1.0")
    delta, delta_bytes = new_delta(far, before)
    assert 80_000 < delta_bytes <= planned < 100_000 < SIZE
    lan.throttle("edge", rate=RATE, loss=LOSS)
    sockets = SocketCounts(lan, "edge")
    begin(far, "1.1.0")
    far.until(lambda: sockets.look() and held_bytes(agent, delta) > delta_bytes // 2)
    lan.unplug("edge")
    sockets.look()
    agent.kill()
    held = held_bytes(agent, delta)
    assert delta_bytes // 2 < held < delta_bytes
    lan.plug("edge")
    agent.start()
    far.until(lambda: sockets.look() and runs(agent, "1.1.0"), lambda: str(agent.status()))
    assert "1 by delta, in place of 1.0 MiB" in came(far, "1.1.0")
    until_says(far, agent, "talker@1.1.0 ")
    # The kernel counts each connection's TLS and heads, too; what was in the receive buffer at the kill comes again.
    overhead = sockets.connections * (TLS_HANDSHAKE + HEADS)
    assert planned <= sockets.blobs <= 1.05 * planned + RECEIVE_BUFFER + overhead, sockets.connections

    agent.stop()
    used, others = day_usage(agent), sockets.others
    agent.start()
    push(far, "1.2.0", content(80_000, 3_000))
    small = plan(far, "1.2.0")
    assert small < 8_000
    begin(far, "1.2.0")
    far.until(lambda: sockets.look() and runs(agent, "1.2.0"), lambda: str(agent.status()))
    assert "1 by delta, in place of 1.0 MiB" in came(far, "1.2.0")
    until_says(far, agent, "talker@1.2.0 ")
    agent.stop()
    # The agent counts its reports, too, which are on the other connections.
    assert day_usage(agent) - used <= 1.05 * small + sockets.others - others + 32 * HEADS
    to_host, from_host = lan.lost_packets("edge")
    assert to_host + from_host > 0, "the link was bad"


# ── a budget that ends in the middle ─────────────────────────────────────────────────────────────────

PER_DAY = 1 << 20
DATED_SIZE = 4 << 20
NOON, NIGHT = "Test/Noon", "Test/Night"


def write_zone(folder: Path, name: str, offset: timedelta) -> None:
    """Write a time zone that is so far ahead of UTC, and always was (RFC 9636, version 1)."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 5)
    path.write_bytes(
        b"TZif\0" + bytes(15) + counts + struct.pack(">lbb", round(offset.total_seconds()), 0, 0) + b"TEST\0"
    )


def local_now(offset: timedelta) -> datetime:
    return datetime.now(UTC).replace(tzinfo=None) + offset


@pytest.fixture
def dated(tmp_path: Path) -> Iterator[TestFleet]:
    """A hub and agents that know two more time zones, `NOON` and `NIGHT`; in both it is noon."""
    with TestFleet(tmp_path / "fleet") as made:
        zones = tmp_path / "zones"
        made.env["PYTHONTZPATH"] = f"{zones}:/usr/share/zoneinfo"
        made.hub = HubProcess(made.folder / "hub", made.env)
        for name in (NOON, NIGHT):
            write_zone(zones, name, noon_offset())
        made.start()
        yield made


def noon_offset() -> timedelta:
    now = datetime.now(UTC).replace(tzinfo=None)
    return datetime.combine(now.date(), time(12)) - now


def midnight_in(seconds: float, day: date) -> timedelta:
    """Return how far a zone is ahead of UTC where a day ends in so many seconds."""
    return datetime.combine(day, time()) + timedelta(days=1, seconds=-seconds) - local_now(timedelta())


@pytest.mark.rule("LINK-1")
def test_a_delta_that_used_up_the_day_goes_on_at_the_byte_when_midnight_has_passed(
    dated: TestFleet, tmp_path: Path
) -> None:
    agent = first_release(dated, size=DATED_SIZE)
    today = local_now(noon_offset()).date()
    apply(dated, f"link: {{rate: 512KiB/s, per_day: 1MiB}}, time_zone: {NOON}")
    before = made_deltas(dated.hub.data)
    push(dated, "1.1.0", content(1_300_000, size=DATED_SIZE))
    plan(dated, "1.1.0")
    delta, delta_bytes = new_delta(dated, before)
    assert delta_bytes > PER_DAY, "a day does not suffice, whatever is at hand"
    begin(dated, "1.1.0")

    def held() -> str:
        why = str(agent.application("talker").get("why", ""))
        return why if "today, goes on at" in why else ""

    why = dated.until(held, lambda: str(agent.status()))
    tomorrow = datetime.combine(today + timedelta(days=1), time())
    assert why.endswith(f"{tomorrow:%a %Y-%m-%d} 00:00 ({NOON})")
    stopped = held_bytes(agent, delta)
    assert delta_bytes - PER_DAY < stopped < delta_bytes

    offset = midnight_in(6.0, today)
    write_zone(tmp_path / "zones", NIGHT, offset)
    apply(dated, f"link: {{rate: 512KiB/s, per_day: 1MiB}}, time_zone: {NIGHT}")
    dated.until(
        lambda: held_bytes(agent, delta) != stopped or runs(agent, "1.1.0"), lambda: str(agent.status())
    )
    assert local_now(offset) >= tomorrow
    dated.until_runs(agent, "1.1.0")
    assert "1 by delta, in place of 4.0 MiB" in came(dated, "1.1.0")
    agent.stop()
    # What is left of a day would not have sufficed for all of it, so it went on at the byte; the rest is reports.
    assert delta_bytes - stopped <= day_usage(agent) <= PER_DAY


# ── a hub that dies, and one that is damaged ─────────────────────────────────────────────────────────

TOUGH = 3 << 19


def hard_to_pack() -> bytes:
    """Return what a delta to takes seconds to make: an eighth of it is left, and that is not easily found."""
    return bytes(b"ab"[byte & 1] for byte in random.Random(3).randbytes(TOUGH))


def making(fleet: TestFleet) -> list[Path]:
    return list((fleet.hub.data / "deltas" / "making").iterdir())


def workers(fleet: TestFleet) -> list[int]:
    """Return the processes that make deltas."""
    found = processes_of(fleet.hub.data)
    return [pid for pid, words in found.items() if "skerry.adapters.delta_worker" in words]


def test_a_hub_that_is_killed_while_it_makes_a_delta_makes_it_when_it_is_back_and_leaves_nothing(
    fleet: TestFleet,
) -> None:
    apply(fleet)
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, "1.0.0", content(size=TOUGH))
    begin(fleet, "1.0.0")
    fleet.until_runs(agent, "1.0.0")
    apply(fleet, "link: {rate: 64KiB/s}")
    push(fleet, "1.1.0", hard_to_pack())

    def waits() -> bool:
        return "waiting for a delta" in str(agent.application("talker").get("why", ""))

    begin(fleet, "1.1.0")
    for end in (fleet.hub.kill, fleet.hub.stop):
        fleet.until(lambda: waits() and making(fleet), lambda: str(agent.status()))
        end()
        assert not made_deltas(fleet.hub.data)
        fleet.hub.start()
    fleet.until_runs(agent, "1.1.0")
    assert "1 by delta, in place of 1.5 MiB" in came(fleet, "1.1.0")
    assert made_deltas(fleet.hub.data)
    fleet.until(lambda: not workers(fleet))
    assert not making(fleet)


def put_damaged(fleet: TestFleet, damage: Callable[[bytes], bytes]) -> tuple[str, int]:
    """Have the delta to 1.1.0 made, damage it where the hub keeps it, and return its digest and its size."""
    before = made_deltas(fleet.hub.data)
    push(fleet, "1.1.0", content(40_000))
    plan(fleet, "1.1.0")
    delta, delta_bytes = new_delta(fleet, before)
    (file,) = (fleet.hub.data / "deltas").rglob(hex_of(delta))
    file.write_bytes(damage(file.read_bytes()))
    return delta, delta_bytes


def test_a_delta_that_is_damaged_on_the_hub_is_refused_and_the_file_comes_in_full(fleet: TestFleet) -> None:
    agent = first_release(fleet)

    def flip(delta: bytes) -> bytes:
        middle = len(delta) // 2
        return delta[:middle] + bytes([delta[middle] ^ 0xFF]) + delta[middle + 1 :]

    delta, _ = put_damaged(fleet, flip)
    begin(fleet, "1.1.0")
    fleet.until_runs(agent, "1.1.0")
    assert came(fleet, "1.1.0") == "talker@1.1.0: 1.0 MiB in 2 files"
    (refused,) = [line for line in agent.log.read_text().splitlines() if "event=delta.refused" in line]
    assert f"the bytes are not those of {delta}" in refused
    assert not held_bytes(agent, delta)
    assert delta not in whole_blobs(agent)


def test_a_delta_that_was_cut_short_on_the_hub_is_made_anew(fleet: TestFleet) -> None:
    agent = first_release(fleet)
    delta, delta_bytes = put_damaged(fleet, lambda delta: delta[: len(delta) // 2])
    begin(fleet, "1.1.0")
    fleet.until_runs(agent, "1.1.0")
    assert came(fleet, "1.1.0").startswith("talker@1.1.0: ")
    assert made_deltas(fleet.hub.data)[delta] == delta_bytes
