"""`Sink`: where the hub hands on messages that sites' applications sent up.

Secrets are never in the document: it names files in the directory `sinks` of the hub's data.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from skerry.kit.quantities import parse_duration
from skerry.spec.checks_files import check_unique
from skerry.spec.metadata import Document, Duration, Part
from skerry.spec.problems import Problem
from skerry.spec.rollout import SitesSelector
from skerry.spec.topic_patterns import covers
from skerry.spec.topics import MAX_TOPIC_LENGTH, TOPIC_FILTER_PATTERN, TOPIC_PATTERN

MAX_SINKS = 32
MAX_SINK_BATCH = 100
MAX_TIMEOUT_S = 30.0
_PLACE = r"://[A-Za-z0-9._\[\]:-]{1,270}"
FILE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

SinkFile = Annotated[
    str,
    Meta(
        pattern=FILE_NAME_PATTERN,
        description="the name of a file in the directory sinks of the hub's data, without any /",
    ),
]
SinkTopic = Annotated[
    str,
    Meta(
        pattern=rf"^#$|{TOPIC_FILTER_PATTERN}",
        max_length=MAX_TOPIC_LENGTH,
        description="a pattern of topics such as plant/+/count or plant/#; # alone is every topic",
    ),
]


class WebhookSpec(Part, frozen=True, kw_only=True):
    """Batches of at most `batch` messages are posted as JSON; each answer comes within `timeout`.

    With a `secret_file` they are signed. `insecure` allows http to another machine.
    """

    url: Annotated[str, Meta(pattern=rf"^https?{_PLACE}(/[!-~]*)?$", max_length=1024)]
    secret_file: SinkFile | None = None
    timeout: Duration = "10s"
    batch: Annotated[int, Meta(ge=1, le=MAX_SINK_BATCH)] = MAX_SINK_BATCH
    insecure: bool = False


class MqttSpec(Part, frozen=True, kw_only=True):
    """Messages are published to PREFIX/SITE/TOPIC. `insecure` allows mqtt, without TLS, to another machine."""

    url: Annotated[str, Meta(pattern=rf"^mqtts?{_PLACE}$", max_length=300)]
    prefix: Annotated[str, Meta(pattern=TOPIC_PATTERN, max_length=MAX_TOPIC_LENGTH)]
    username: Annotated[str, Meta(min_length=1, max_length=256)]
    password_file: SinkFile
    ca_file: SinkFile | None = None
    insecure: bool = False


class SinkSpec(Part, frozen=True, kw_only=True):
    """Which messages go there: of these topics, from the sites that `sites` selects; and where: one of the two."""

    topics: Annotated[tuple[SinkTopic, ...], Meta(min_length=1, max_length=64)]
    sites: SitesSelector = "*"
    webhook: WebhookSpec | None = None
    mqtt: MqttSpec | None = None


class Sink(Document, frozen=True, kw_only=True, tag="Sink"):
    """A place outside that gets messages of sites, at least once and in order."""

    spec: SinkSpec


def check_sink(sink: Sink) -> Iterator[Problem]:
    """Yield the problems of a sink: no place or two, places that are open to listeners, topics that say nothing."""
    spec = sink.spec
    yield from check_unique("spec.topics", "pattern", spec.topics)
    for index, topic in enumerate(spec.topics):
        wider = next((one for one in spec.topics if one != topic and covers(one, topic)), None)
        if wider is not None:
            yield Problem(f"spec.topics[{index}]", f"{wider} takes it in already", "leave it out")
    if (spec.webhook is None) == (spec.mqtt is None):
        yield Problem("spec", "names not exactly one place", "write webhook: {url: ...} or mqtt: {url: ...}")
    if spec.webhook is not None:
        place = spec.webhook
        yield from _check_place("spec.webhook", place.url, "https", insecure=place.insecure)
        if not 0 < parse_duration(place.timeout) <= MAX_TIMEOUT_S:
            yield Problem("spec.webhook.timeout", f"must be from 0 to {MAX_TIMEOUT_S:g} s", "such as 10s")
    if spec.mqtt is not None:
        yield from _check_place("spec.mqtt", spec.mqtt.url, "mqtts", insecure=spec.mqtt.insecure)
        if spec.mqtt.url.startswith("mqtts:") and spec.mqtt.ca_file is None:
            hint = "name a PEM file with the authorities of the broker's certificate"
            yield Problem("spec.mqtt.ca_file", "mqtts needs it", hint)


def _check_place(path: str, url: str, safe: str, *, insecure: bool) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        yield Problem(
            f"{path}.url", f"names no host and port: {url[:120]!r}", f"such as {safe}://example.com"
        )
    elif not url.startswith(f"{safe}:") and not insecure and not _is_here(host):
        hint = f"write {safe}://, or insecure: true where nobody can listen on the way"
        yield Problem(f"{path}.url", "what is sent would be open to whoever listens", hint)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
