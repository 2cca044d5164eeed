"""Topics of a site as the operator API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.downlink import MAX_DOWNLINK_BYTES, MAX_EXPIRES_S, DownlinkState
from skerry.spec.metadata import Name, Part
from skerry.spec.topics import Topic
from skerry.spec.uplink import TopicDrop


class TopicFlow(Part, frozen=True, kw_only=True):
    """A pattern of an application, and who is at its other end; `trouble` says what is wrong where nobody is.

    `linked` are those of `joined` that only other hosts run, reached over links between hosts.
    """

    site: str
    application: str
    does: Literal["publishes", "reads"]
    topic: str
    joined: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    trouble: str = ""


class SiteTopics(Part, frozen=True, kw_only=True):
    """What the applications of a site do on its buses, and what each host says of its own.

    `broker` is the one that the site has; `hosts` says, by host, what is wrong with its bus, empty where it runs.
    `links` says, by host, of each other host that something is to come from, what is wrong with the link.
    """

    site: str
    broker: str
    flows: tuple[TopicFlow, ...] = ()
    hosts: dict[str, str] = {}
    links: dict[str, dict[str, str]] = {}


class TopicMessageView(Part, frozen=True, kw_only=True):
    """A message that a host handed up. `id` is its own for ever; `cursor` is its place in the hub's order.

    The payload is in `text` when it is UTF-8, in `base64` otherwise. `count` is how many messages it stands for.
    """

    id: str
    cursor: int
    site: str
    host: str
    application: str
    topic: str
    at: datetime
    received_at: datetime
    count: int = 1
    text: str | None = None
    base64: str | None = None


class TopicPage(Part, frozen=True, kw_only=True):
    """Messages in the order in which they came. Asking for what comes after `cursor` goes on from here."""

    messages: tuple[TopicMessageView, ...]
    cursor: int


class TopicSourceView(Part, frozen=True, kw_only=True):
    """What came of a host's queue of messages, as of `received_at`, and what it dropped or had left then.

    `missing_batches` are those that a relay gave up, or that are still on their way.
    """

    host: str
    site: str
    received_at: datetime
    batches: int
    missing_batches: int = 0
    waiting: int = 0
    dropped: tuple[TopicDrop, ...] = ()


class SendRequest(Part, frozen=True, kw_only=True):
    """A message for an application at the sites that are selected; `payload` is base64."""

    application: Name
    topic: Topic
    payload: Annotated[str, Meta(max_length=MAX_DOWNLINK_BYTES * 2)]
    selector: str = "*"
    expires_s: Annotated[int, Meta(ge=1, le=MAX_EXPIRES_S)] = 3600
    dry_run: bool = False


class SendAnswer(Part, frozen=True, kw_only=True):
    """Which sites get a message, and why others that were selected do not. After a dry run there is no `id`."""

    id: str
    sites: tuple[str, ...]
    expires_at: datetime
    refused: dict[str, str] = {}


class SentView(Part, frozen=True, kw_only=True):
    """A message that was sent to a site, and what the hosts there said of it; those that said nothing are not there."""

    id: str
    site: str
    application: str
    topic: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    expired: bool = False
    hosts: dict[str, DownlinkState] = {}
