"""What a TopicQueue keeps: messages, windows and counts together or not at all, and batches that stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.adapters.sqlite_topic_queue import ROW_BYTES, SqliteTopicQueue
from skerry.ports.topic_queue import Dropped, NewTopicMessage, TopicQueue, WindowName
from skerry.spec.topics import UplinkPriority
from skerry.spec.uplink import MAX_BATCH_BYTES, MAX_MESSAGES_PER_BATCH, TopicDrop
from skerry.telemetry.reducing import Waiting, Window


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[TopicQueue]:
    opened = SqliteTopicQueue.open(tmp_path / "uplink.db")
    yield opened
    opened.close()


def message(
    text: str, *, priority: UplinkPriority = "normal", at: float = 100.0, size: int = 0
) -> NewTopicMessage:
    payload = text.encode().ljust(size, b".")
    return NewTopicMessage(
        application="line", topic="plant/a", pattern="plant/#", at=at, payload=payload, priority=priority
    )


def texts(queue: TopicQueue) -> list[str]:
    batch = queue.next_batch()
    return [one.payload.decode().rstrip(".") for one in batch.messages] if batch else []


def test_a_batch_stays_what_it_is_until_it_is_forgotten(queue: TopicQueue) -> None:
    queue.put([message("a"), message("b")])
    first = queue.next_batch()
    assert first is not None
    queue.put([message("c", priority="high")])
    assert queue.next_batch() == first
    assert [one.payload for one in first.messages] == [b"a", b"b"]
    queue.forget(first.number)
    second = queue.next_batch()
    assert second is not None
    assert (second.number, [one.payload for one in second.messages]) == (first.number + 1, [b"c"])
    queue.forget(second.number)
    assert queue.next_batch() is None


def test_the_most_urgent_go_first_each_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    queue = SqliteTopicQueue.open(tmp_path / "uplink.db")
    half = MAX_BATCH_BYTES // 2
    queue.put([message("low", priority="low", size=half), message("normal", size=half)])
    queue.put([message("high", priority="high", size=half)])
    found: list[str] = []
    while (batch := queue.next_batch()) is not None:
        found += [one.payload.decode().rstrip(".") for one in batch.messages]
        queue.forget(batch.number)
    assert found == ["high", "normal", "low"]
    queue.close()


def test_a_batch_is_bounded_by_count(queue: TopicQueue) -> None:
    queue.put([message(str(number)) for number in range(MAX_MESSAGES_PER_BATCH + 5)])
    batch = queue.next_batch()
    assert batch is not None
    assert len(batch.messages) == MAX_MESSAGES_PER_BATCH


@pytest.mark.rule("UPLINK-2")
def test_the_least_urgent_and_oldest_makes_room_and_is_counted(tmp_path: Path) -> None:
    queue = SqliteTopicQueue.open(tmp_path / "uplink.db", most_bytes=4 * (100 + ROW_BYTES))
    queue.put([message("begun", priority="low", size=100)])
    begun = queue.next_batch()
    queue.put([message("a", priority="low", size=100), message("b", priority="low", size=100)])
    queue.put([message("c", priority="high", size=100), message("d", size=100), message("e", size=100)])
    assert queue.next_batch() == begun, "what was begun stays"
    assert begun is not None
    queue.forget(begun.number)
    assert texts(queue) == ["c", "d", "e"]
    assert queue.dropped() == [TopicDrop(application="line", topic="plant/#", why="no room", count=2)]
    queue.close()


@pytest.mark.rule("UPLINK-1")
def test_a_queue_that_is_opened_again_has_its_name_and_all_it_had(tmp_path: Path) -> None:
    first = SqliteTopicQueue.open(tmp_path / "uplink.db")
    name = WindowName("line", "plant/#", "plant/a")
    first.put(
        [message("a", at=7.0)],
        windows={name: Window(5.0, 2, b"x")},
        drops={Dropped("line", "plant/#", "too many"): 3},
        marks={b"m": 6.0, b"n": 7.0},
    )
    begun, stream = first.next_batch(), first.stream
    first.close()
    again = SqliteTopicQueue.open(tmp_path / "uplink.db")
    assert (again.stream, again.next_batch()) == (stream, begun)
    assert again.windows() == {name: Window(5.0, 2, b"x")}
    assert again.waiting() == [Waiting("normal", 1, 1 + ROW_BYTES, 7.0)]
    again.put([], windows={name: None}, drops={Dropped("line", "plant/#", "too many"): 2}, unmark=[b"m"])
    assert (again.windows(), again.marks()) == ({}, {b"n": 7.0})
    assert [one.count for one in again.dropped()] == [5]
    again.close()
