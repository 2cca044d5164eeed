"""The part of the client that is about messages of hosts' buses."""

from __future__ import annotations

from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from skerry.spec.api_sink import SinkView
from skerry.spec.api_topics import SendAnswer, SendRequest, SentView, TopicPage, TopicSourceView

T = TypeVar("T")


class TopicsClient(Protocol):
    """Methods of `skerry.client.client.Client`."""

    def _get(self, path: str, kind: type[T], **params: str) -> T: ...

    def _post(self, path: str, request: msgspec.Struct | None, kind: type[T], **params: str) -> T: ...

    def topic_messages(
        self, pattern: str = "#", *, selector: str = "*", start: str = "newest:20", wait_s: float = 0.0
    ) -> TopicPage:
        """Return messages that hosts handed up; `start` is newest:COUNT, since:SECONDS or after:CURSOR."""
        return self._get(
            "/topics/messages", TopicPage, pattern=pattern, selector=selector, start=start, wait_s=str(wait_s)
        )

    def send_topic_message(self, request: SendRequest) -> SendAnswer:
        """Send a message to an application at sites, or say who would get it."""
        return self._post("/topics/sent", request, SendAnswer)

    def sent_topic_messages(self, selector: str = "*") -> list[SentView]:
        """Return messages that were sent to sites, and what became of them."""
        return self._get("/topics/sent", list[SentView], selector=selector)

    def topic_sources(self, selector: str = "*") -> list[TopicSourceView]:
        """Return what came of each host's messages, and what was not kept."""
        return self._get("/topics/sources", list[TopicSourceView], selector=selector)

    def sinks(self, name: str = "") -> list[SinkView]:
        """Return the sinks, or the one of this name."""
        if name:
            return [self._get(f"/sinks/{quote(name, safe='')}", SinkView)]
        return self._get("/sinks", list[SinkView])
