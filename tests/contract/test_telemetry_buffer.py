"""What every TelemetryBuffer keeps: blocks and counts together or not at all, and a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.adapters.sqlite_telemetry_buffer import SqliteTelemetryBuffer
from skerry.ports.telemetry_buffer import NewBlock, TelemetryBuffer
from skerry.telemetry.room import Priority
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer

KINDS: dict[str, Callable[[Path], TelemetryBuffer]] = {
    "sqlite": lambda path: SqliteTelemetryBuffer.open(path / "deep" / "telemetry.db"),
    "memory": lambda _: MemoryTelemetryBuffer(),
}


@pytest.fixture(params=KINDS)
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TelemetryBuffer]:
    made = KINDS[str(request.param)](tmp_path)
    yield made
    made.close()


def block(begin: int, *, priority: Priority = "metrics", number: int = 0) -> NewBlock:
    return NewBlock(
        priority=priority, begin=begin, resolution_s=60, samples=7, content=b"x" * 100, number=number
    )


def test_blocks_come_back_the_oldest_first_with_all_that_is_known_of_them(buffer: TelemetryBuffer) -> None:
    buffer.change([block(120), block(60, priority="quality"), block(180, number=3)])
    kept = buffer.kept()
    assert [(one.begin, one.priority, one.sealed) for one in kept] == [
        (60, "quality", False),
        (120, "metrics", False),
        (180, "metrics", True),
    ]
    assert all(100 <= one.size_bytes <= 200 for one in kept)
    found = buffer.blocks([kept[2].id, kept[0].id, 999_999])
    assert [one.block for one in found] == [block(60, priority="quality"), block(180, number=3)]
    assert [one.id for one in found] == [kept[0].id, kept[2].id]


def test_what_takes_the_place_of_others_does_so_in_one_step_with_its_counts(buffer: TelemetryBuffer) -> None:
    buffer.change([block(60), block(120)], counts={"number": 1})
    buffer.change([block(60, number=2)], [one.id for one in buffer.kept()], counts={"number": 2, "lost": 5})
    assert [one.sealed for one in buffer.kept()] == [True]
    assert buffer.counts() == {"number": 2, "lost": 5}


def test_a_buffer_that_is_opened_again_has_its_name_and_all_it_had(tmp_path: Path) -> None:
    first = SqliteTelemetryBuffer.open(tmp_path / "telemetry.db")
    first.change([block(60)], counts={"number": 9})
    name = first.stream
    first.close()
    again = SqliteTelemetryBuffer.open(tmp_path / "telemetry.db")
    assert (again.stream, len(again.kept()), again.counts()) == (name, 1, {"number": 9})
    again.close()


def test_a_damaged_buffer_is_set_aside_and_another_begins_under_another_name(tmp_path: Path) -> None:
    first = SqliteTelemetryBuffer.open(tmp_path / "telemetry.db")
    name = first.stream
    first.close()
    (tmp_path / "telemetry.db").write_bytes(b"nothing that SQLite ever wrote" * 1000)
    again = SqliteTelemetryBuffer.open(tmp_path / "telemetry.db")
    assert again.stream != name
    assert again.kept() == []
    again.close()
