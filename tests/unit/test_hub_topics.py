"""The hub takes messages of hosts' buses once, keeps them for a while, and shows them by pattern."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.sql.topics import ROW_BYTES
from skerry.hub.topic_messages import newest_page, page_after, view_message, view_sources
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.uplink import TopicBatch, TopicDrop, TopicMessage
from skerry.trust.report import sign_batch
from tests.unit.test_hub_backend import Harbour, Member
from tests.unit.upstream import NOW


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def store() -> Iterator[SqlHubStore]:
    opened = SqlHubStore.open(None)
    yield opened
    opened.close()


def message(number: int, topic: str = "plant/a", payload: bytes = b"1") -> TopicMessage:
    return TopicMessage(number=number, application="line", topic=topic, at=NOW.timestamp(), payload=payload)


def batch(number: int, *messages: TopicMessage, host: str = "edge", site: str = "harbour") -> TopicBatch:
    own = messages or (message(number),)
    return TopicBatch(host=host, site=site, sequence=1, stream=f"s-{host}", batch=number, messages=own)


async def send(harbour: Harbour, member: Member, one: TopicBatch, sequence: int) -> SyncAnswer:
    named = msgspec.structs.replace(one, host=member.name, site=member.site, sequence=sequence)
    request = SyncRequest(reports=(member.signed(sequence),), metrics=sign_batch(named, member.key))
    return await harbour.backend.sync(request)


@pytest.mark.rule("UPLINK-1")
async def test_a_batch_that_comes_again_with_another_report_counts_once(harbour: Harbour) -> None:
    member = await harbour.join("edge", "harbour")
    for sequence in (2, 3, 4):
        answer = await send(harbour, member, batch(1), sequence)
        assert answer.metrics == sequence
    page = page_after(harbour.store, 0, pattern="#", sites=None)
    assert [(one.host, one.site, one.topic, one.text) for one in page.messages] == [
        ("edge", "harbour", "plant/a", "1")
    ]


async def test_who_waits_for_messages_is_woken(harbour: Harbour) -> None:
    member = await harbour.join("edge", "harbour")
    assert not await harbour.backend.wait_for_topics(0.0)
    waiting = asyncio.create_task(harbour.backend.wait_for_topics(60.0))
    await asyncio.sleep(0)
    await send(harbour, member, batch(1), 2)
    assert await waiting


@pytest.mark.rule("UPLINK-4")
async def test_a_batch_of_another_host_or_another_report_is_refused(harbour: Harbour) -> None:
    edge = await harbour.join("edge", "harbour")
    other = await harbour.join("other", "harbour")
    stolen = msgspec.structs.replace(batch(1), host="edge", site="harbour", sequence=2)
    request = SyncRequest(reports=(other.signed(2),), metrics=sign_batch(stolen, other.key))
    assert (await harbour.backend.sync(request)).metrics == 0
    request = SyncRequest(reports=(edge.signed(2),), metrics=sign_batch(stolen, other.key))
    assert (await harbour.backend.sync(request)).metrics == 0
    assert page_after(harbour.store, 0, pattern="#", sites=None).messages == ()


@pytest.mark.rule("UPLINK-1")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.permutations([1, 1, 2, 2, 3, 3, 4, 4]))
def test_each_message_is_stored_once_in_whatever_order_batches_come(order: list[int]) -> None:
    store = SqlHubStore.open(None)
    fresh = [
        store.put_topic_batch(batch(number, message(number * 10), message(number * 10 + 1)), NOW)
        for number in order
    ]
    found = store.topic_messages(after=0, limit=100)
    store.close()
    assert sum(fresh) == 4
    assert sorted(one.number for one in found) == [10, 11, 20, 21, 30, 31, 40, 41]


def test_messages_are_chosen_by_pattern_site_and_time(store: SqlHubStore) -> None:
    store.put_topic_batch(batch(1, message(1, "plant/a"), message(2, "plant/b/c")), NOW)
    later = NOW + timedelta(hours=1)
    store.put_topic_batch(batch(1, message(1, "plant/a"), host="far", site="airport"), later)

    def found(pattern: str = "#", sites: list[str] | None = None) -> list[tuple[str, str]]:
        page = page_after(store, 0, pattern=pattern, sites=sites)
        return [(one.site, one.topic) for one in page.messages]

    assert found() == [("harbour", "plant/a"), ("harbour", "plant/b/c"), ("airport", "plant/a")]
    assert found("plant/+") == [("harbour", "plant/a"), ("airport", "plant/a")]
    assert found("plant/#", ["harbour"]) == [("harbour", "plant/a"), ("harbour", "plant/b/c")]
    assert found("plant/#", []) == []
    assert [one.site for one in store.topic_messages(after=0, limit=9, since=later)] == ["airport"]
    page = newest_page(store, 1, pattern="plant/+", sites=None)
    assert [one.site for one in page.messages] == ["airport"]
    again = page_after(store, page.cursor, pattern="#", sites=None)
    assert (again.messages, again.cursor) == ((), page.cursor)


@pytest.mark.rule("UPLINK-2")
def test_what_is_old_or_too_much_goes_the_oldest_first_and_cursors_stay_true(store: SqlHubStore) -> None:
    size = 100 + ROW_BYTES
    for number in range(1, 7):
        at = NOW + timedelta(hours=number)
        store.put_topic_batch(batch(number, message(number, payload=b"x" * 100)), at)
    assert store.trim_topics(before=NOW + timedelta(hours=3), most_bytes=10 * size) == 2
    assert store.trim_topics(before=NOW, most_bytes=2 * size) == 2
    assert store.trim_topics(before=NOW, most_bytes=2 * size) == 0
    left = store.topic_messages(after=0, limit=9)
    assert [one.number for one in left] == [5, 6]
    assert not store.put_topic_batch(batch(1), NOW), "that it came is still known"
    store.trim_topics(before=NOW + timedelta(days=1), most_bytes=0)
    store.put_topic_batch(batch(7), NOW)
    (found,) = store.topic_messages(after=left[-1].id, limit=9)
    assert found.number == 7


@pytest.mark.rule("UPLINK-2")
def test_what_a_host_did_not_keep_and_what_was_lost_on_the_way_is_shown(store: SqlHubStore) -> None:
    drop = TopicDrop(application="line", topic="plant/#", why="no room", count=5)
    store.put_topic_batch(batch(1), NOW)
    store.put_topic_batch(msgspec.structs.replace(batch(4), dropped=(drop,), waiting=9), NOW)
    store.put_topic_batch(batch(3), NOW)
    (view,) = view_sources(store, {"harbour"})
    assert (view.host, view.batches, view.missing_batches) == ("edge", 3, 1)
    assert (view.dropped, view.waiting) == ((drop,), 9)
    assert view_sources(store, {"airport"}) == []


def test_a_payload_that_is_no_text_and_a_time_that_cannot_be_are_shown_all_the_same(
    store: SqlHubStore,
) -> None:
    odd = msgspec.structs.replace(message(1, payload=b"\xff\x00"), at=9e18)
    store.put_topic_batch(batch(1, odd), NOW)
    (record,) = store.topic_messages(after=0, limit=9)
    view = view_message(record)
    assert (view.text, view.base64, view.at) == (None, "/wA=", NOW)
