"""Messages of hosts' buses, for those who ask for them: by pattern, in the order in which they came."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from datetime import datetime

from skerry.matching.topics import match_topic
from skerry.ports.hub_store import HubStore
from skerry.ports.topic_store import TopicRecord
from skerry.spec.api_topics import TopicMessageView, TopicPage, TopicSourceView
from skerry.telemetry.received import missing

EVERY = "#"
LOOK_AT = 2000
"""How many messages are looked at for one answer."""


def message_id(record: TopicRecord) -> str:
    """Return the id of a message, the same however often it came."""
    return f"{record.stream}.{record.number}"


def matches(record: TopicRecord, pattern: str) -> bool:
    """Tell whether a message is asked for; `#` is every one."""
    return pattern == EVERY or match_topic(pattern, record.topic)


def page_after(
    store: HubStore,
    cursor: int,
    *,
    pattern: str,
    sites: Collection[str] | None,
    since: datetime | None = None,
) -> TopicPage:
    """Return the next messages after a cursor that are asked for; the new cursor is behind all that was looked at."""
    found = store.topic_messages(after=cursor, limit=LOOK_AT, sites=sites, since=since)
    chosen = [one for one in found if matches(one, pattern)]
    return TopicPage(messages=tuple(map(view_message, chosen)), cursor=found[-1].id if found else cursor)


def newest_page(store: HubStore, limit: int, *, pattern: str, sites: Collection[str] | None) -> TopicPage:
    """Return the last messages that are asked for, of those that came last."""
    found = store.newest_topic_messages(LOOK_AT, sites)
    chosen = [one for one in found if matches(one, pattern)][-limit:] if limit else []
    return TopicPage(messages=tuple(map(view_message, chosen)), cursor=found[-1].id if found else 0)


def view_message(record: TopicRecord) -> TopicMessageView:
    """Return a message as it is shown."""
    try:
        text, encoded = record.payload.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(record.payload).decode()
    return TopicMessageView(
        id=message_id(record),
        cursor=record.id,
        site=record.site,
        host=record.host,
        application=record.application,
        topic=record.topic,
        at=record.at,
        received_at=record.received_at,
        count=record.count,
        text=text,
        base64=encoded,
    )


def view_sources(store: HubStore, sites: Collection[str]) -> Sequence[TopicSourceView]:
    """Return what came of the queues of the hosts of sites."""
    return [
        TopicSourceView(
            host=one.host,
            site=one.site,
            received_at=one.received_at,
            batches=sum(last - first + 1 for first, last in one.received),
            missing_batches=missing(one.received),
            waiting=one.waiting,
            dropped=one.dropped,
        )
        for one in store.topic_sources()
        if one.site in sites
    ]
