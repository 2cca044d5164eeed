"""Messages that hosts handed up from their buses."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Collection
from datetime import timedelta

from litestar import get
from litestar.params import FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.api.scope import Seen
from skerry.hub.telemetry_query import labels_of
from skerry.hub.topic_messages import EVERY, newest_page, page_after, view_sources
from skerry.kit.errors import Rejected
from skerry.matching.selector import parse_selector
from skerry.spec.api_topics import TopicPage, TopicSourceView
from skerry.spec.topics import MAX_TOPIC_LENGTH, TOPIC_FILTER_PATTERN

MAX_WAIT_S = 20.0
MAX_NEWEST = 1000
MAX_SINCE_S = 400 * 86_400


@get("/topics/messages")
async def list_topic_messages(
    hub: TheHub,
    seen: TheSeen,
    pattern: FromQuery[str] = EVERY,
    selector: FromQuery[str] = "*",
    start: FromQuery[str] = "newest:20",
    wait_s: FromQuery[float] = 0.0,
) -> TopicPage:
    """List messages that hosts handed up, in the order in which they came.

    `start` is `newest:20` for those that came last, `since:3600` for those of the last seconds, or `after:CURSOR` to go
    on from an answer, waiting up to `wait_s` seconds for a message.
    """
    check_pattern(pattern)
    word, number = _parse_start(start)
    sites = await asyncio.to_thread(_sites, seen, selector)
    if word == "newest":
        newest = min(number, MAX_NEWEST)
        return await asyncio.to_thread(newest_page, hub.store, newest, pattern=pattern, sites=sites)
    since = hub.clock.now() - timedelta(seconds=min(number, MAX_SINCE_S)) if word == "since" else None
    look = functools.partial(page_after, hub.store, pattern=pattern, sites=sites, since=since)
    cursor = number if word == "after" else 0
    # Waiting begins before the look, so that what comes in between is not missed.
    news = asyncio.ensure_future(hub.backend.wait_for_topics(max(0.0, min(wait_s, MAX_WAIT_S))))
    try:
        page = await asyncio.to_thread(look, cursor)
        if page.cursor == cursor and await news:
            page = await asyncio.to_thread(look, cursor)
        return page
    finally:
        news.cancel()


@get("/topics/sources", sync_to_thread=True)
def list_topic_sources(hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*") -> list[TopicSourceView]:
    """List what came of each host's messages, what it dropped, and what it had left."""
    chosen = parse_selector(selector)
    sites = {site.name for site in seen.sites() if chosen.matches(site.name, labels_of(site))}
    return list(view_sources(hub.store, sites))


def check_pattern(pattern: str) -> None:
    """Refuse what is no pattern of topics; `#` alone is every topic.

    Raises:
        Rejected: it is none (`topics.pattern`).
    """
    is_pattern = len(pattern) <= MAX_TOPIC_LENGTH and re.fullmatch(TOPIC_FILTER_PATTERN, pattern)
    if pattern != EVERY and not is_pattern:
        hint = "such as plant/line1/count, plant/+/count or plant/#; # alone is every topic"
        raise Rejected("topics.pattern", f"not a pattern of topics: {pattern[:80]!r}", hint=hint)


def _parse_start(text: str) -> tuple[str, int]:
    word, _, number = text.partition(":")
    if word not in ("newest", "since", "after") or re.fullmatch("[0-9]{1,18}", number) is None:
        hint = "newest:20, since:3600 or after:CURSOR"
        raise Rejected("topics.start", f"not where to start: {text[:40]!r}", hint=hint)
    return word, int(number)


def _sites(seen: Seen, selector: str) -> Collection[str] | None:
    """Return the sites that are asked for; None is all there are, also those that are there no more."""
    chosen = parse_selector(selector)
    if not chosen.terms and not seen.scope.limited:
        return None
    return [one.name for one in seen.sites() if chosen.matches(one.name, labels_of(one))]


HANDLERS = [list_topic_messages, list_topic_sources]
