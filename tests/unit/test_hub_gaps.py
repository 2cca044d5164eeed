"""What the hub does with a report before which another is missing, as when a relay lost it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.spec.report import Event
from tests.unit.test_hub_backend import Harbour


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


def happened(harbour: Harbour, message: str) -> tuple[Event, ...]:
    return (Event(at=harbour.clock.now(), kind="test.happened", message=message),)


def told(harbour: Harbour) -> list[str]:
    events = [record.event for record in harbour.store.events(limit=99)]
    return [event.message for event in reversed(events) if event.kind == "test.happened"]


@pytest.mark.rule("SYNC-6")
async def test_a_report_before_which_one_is_missing_is_not_taken_and_the_host_tells_all_again(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    await harbour.sync(edge.signed(2, events=happened(harbour, "first")))
    gap = await harbour.sync(
        edge.signed(4, after=3, events=happened(harbour, "third")), edge.signed(5, after=4), wait_s=600.0
    )
    assert (gap.acknowledged, gap.tell_all) == (2, True)
    whole = await harbour.sync(
        edge.signed(3, events=happened(harbour, "second")),
        edge.signed(4, after=3, events=happened(harbour, "third")),
        edge.signed(6, after=4),
    )
    assert (whole.acknowledged, whole.tell_all) == (6, False)
    assert told(harbour) == ["first", "second", "third"]


@pytest.mark.rule("SYNC-6")
async def test_what_comes_before_a_gap_is_taken(harbour: Harbour) -> None:
    edge = await harbour.join()
    answer = await harbour.sync(
        edge.signed(2, events=happened(harbour, "first")),
        edge.signed(9, after=8, events=happened(harbour, "late")),
    )
    assert (answer.acknowledged, answer.tell_all) == (2, True)
    assert told(harbour) == ["first"]


async def test_a_heartbeat_between_is_missed_by_nobody(harbour: Harbour) -> None:
    edge = await harbour.join()
    await harbour.sync(edge.signed(2, events=happened(harbour, "first")))
    answer = await harbour.sync(edge.signed(7, after=2), edge.signed(9, after=7))
    assert (answer.acknowledged, answer.tell_all) == (9, False)
