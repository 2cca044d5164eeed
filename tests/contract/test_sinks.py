"""What every place of a sink keeps, seen from the far side: in memory, an HTTP server and mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from skerry.adapters.sink_targets import SinkTargets
from skerry.kit.errors import Denied, Rejected, SkerryError, Unavailable
from skerry.ports.sink import SinkTarget
from skerry.spec.api_topics import TopicMessageView
from skerry.spec.metadata import Metadata
from skerry.spec.sink import MqttSpec, Sink, SinkSpec, WebhookSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_sink import MemorySink
from skerry.testing.waiting import eventually
from tests.contract.bus_world import HERE, LINE, RULES, BusWorld, Reader, make_tls, needs

pytestmark = pytest.mark.broker

SECRET = "of-the-sink"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def view(
    number: int, topic: str = "count", text: str | None = "7", raw: str | None = None
) -> TopicMessageView:
    return TopicMessageView(
        id=f"s.{number}",
        cursor=number,
        site="harbour",
        host="edge",
        application="line",
        topic=topic,
        at=NOW,
        received_at=NOW,
        text=text,
        base64=raw,
    )


class Place(Protocol):
    """A far side."""

    @property
    def target(self) -> SinkTarget: ...

    async def until(self, topics: Sequence[str]) -> None: ...

    async def end(self) -> None: ...

    async def close(self) -> None: ...


class MemoryPlace:
    def __init__(self) -> None:
        self.target = MemorySink()

    async def until(self, topics: Sequence[str]) -> None:
        assert [one.topic for batch in self.target.batches for one in batch] == list(topics)

    async def end(self) -> None:
        self.target.error = Unavailable("sink.unreachable", "gone")

    async def close(self) -> None:
        await self.target.close()


class WebPlace:
    """An HTTP server that answers `status`, or nothing at all."""

    def __init__(
        self, folder: Path, server: asyncio.Server, came: list[tuple[dict[str, str], bytes]]
    ) -> None:
        self.came = came
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.folder = folder
        self.server = server
        self.port = int(server.sockets[0].getsockname()[1])
        self.target = self.make(WebhookSpec(url=f"http://{HERE}:{self.port}/in?x=1", secret_file="key"))

    @classmethod
    async def open(cls, folder: Path) -> WebPlace:
        (folder / "key").write_text(f"{SECRET}\n")
        came: list[tuple[dict[str, str], bytes]] = []
        made: list[WebPlace] = []

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
                }
                body = await reader.readexactly(int(headers["content-length"]))
                came.append((headers | {"": head[0]}, body))
                writer.write(made[0].answer)
                if not made[0].answer:
                    await reader.read()  # until the other side gives up
            writer.close()

        server = await asyncio.start_server(take, HERE, 0)
        made.append(cls(folder, server, came))
        return made[0]

    def make(self, spec: WebhookSpec) -> SinkTarget:
        sink = Sink(metadata=Metadata("erp"), spec=SinkSpec(topics=("#",), webhook=spec))
        return SinkTargets(self.folder, SimulatedClock(NOW)).make(sink)

    async def until(self, topics: Sequence[str]) -> None:
        assert [one["topic"] for _, body in self.came for one in json.loads(body)["messages"]] == list(topics)

    async def end(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def close(self) -> None:
        self.server.close()
        await self.target.close()


class BusPlaceOutside:
    """A mosquitto and who reads there."""

    def __init__(self, folder: Path, bus: BusWorld) -> None:
        self.folder, self.bus = folder, bus
        (folder / "word").write_text(f"{LINE.password}\n")
        self.target = self.make()
        self.reader: Reader = bus.open(RULES)
        self.reader.client.subscribe(["plant/line1/#"])

    def make(self, *, word: str = "word", scheme: str = "mqtt", ca_file: str | None = None) -> SinkTarget:
        place = MqttSpec(
            url=f"{scheme}://{HERE}:{self.bus.settings.port}",
            prefix="plant/line1",
            username=LINE.user,
            password_file=word,
            ca_file=ca_file,
        )
        sink = Sink(metadata=Metadata("erp"), spec=SinkSpec(topics=("#",), mqtt=place))
        return SinkTargets(self.folder, SimulatedClock(NOW)).make(sink)

    async def until(self, topics: Sequence[str]) -> None:
        wanted = [f"plant/line1/harbour/{topic}" for topic in topics]

        async def here() -> bool:
            return [one.topic for one in self.reader.came] == wanted

        await eventually(here, what=f"{wanted} (came: {self.reader.came})")

    async def end(self) -> None:
        await self.bus.kill()

    async def close(self) -> None:
        await self.target.close()
        await self.bus.close()


async def open_bus(tmp_path: Path) -> BusPlaceOutside:
    needs("mosquitto")
    bus = BusWorld("mosquitto", tmp_path)
    await bus.apply()
    return BusPlaceOutside(tmp_path, bus)


@pytest.fixture(params=("memory", "webhook", "mqtt"))
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    made: Place
    if request.param == "memory":
        made = MemoryPlace()
    else:
        made = await (WebPlace.open if request.param == "webhook" else open_bus)(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebPlace]:
    made = await WebPlace.open(tmp_path)
    yield made
    await made.close()


async def failure(target: SinkTarget) -> SkerryError:
    with pytest.raises(SkerryError) as caught:
        await target.deliver([view(1)])
    assert SECRET not in repr(caught.value) + str(caught.value)
    return caught.value


@pytest.mark.rule("UPLINK-6")
async def test_what_is_delivered_is_there_in_order(place: Place) -> None:
    topics = [f"t{number}" for number in range(30)]
    await place.target.deliver([view(number, topic) for number, topic in enumerate(topics)])
    await place.until(topics)
    await place.target.deliver([view(99, "last")])
    await place.until([*topics, "last"])


@pytest.mark.rule("UPLINK-6")
async def test_what_is_not_taken_is_a_failure(place: Place) -> None:
    await place.target.deliver([view(1)])
    await place.end()
    assert isinstance(await failure(place.target), Unavailable)
    assert isinstance(await failure(place.target), Unavailable)


async def test_a_webhook_can_tell_who_sent_what_and_when(web: WebPlace) -> None:
    await web.target.deliver([view(1), view(2, text=None, raw="/w==")])
    ((headers, body),) = web.came
    signed = f"{int(NOW.timestamp())}.".encode() + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["skerry-signature"] == f"sha256={expected}"
    assert headers["skerry-timestamp"] == str(int(NOW.timestamp()))
    assert headers[""] == "POST /in?x=1 HTTP/1.1"
    told: dict[str, Any] = json.loads(body)
    assert told["sink"] == "erp"
    first, second = told["messages"]
    assert (first["id"], first["site"], first["text"]) == ("s.1", "harbour", "7")
    assert (second["id"], second["base64"], second.get("text")) == ("s.2", "/w==", None)
    assert SECRET.encode() not in body


@pytest.mark.parametrize(
    ("answer", "kind"),
    (
        (b"HTTP/1.1 503 Later\r\n\r\n", Unavailable),
        (b"HTTP/1.1 429 Later\r\n\r\n", Unavailable),
        (b"HTTP/1.1 400 Bad\r\n\r\n", Rejected),
        (b"HTTP/1.1 302 Found\r\nLocation: /in\r\n\r\n", Rejected),
        (b"SSH-2.0-what\r\n", Unavailable),
        (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\n\r\n", Unavailable),
        (b"x" * 100_000, Unavailable),
        (b"HTTP/1.1", Unavailable),
    ),
)
async def test_an_answer_of_a_webhook_that_is_no_success_is_a_failure(
    web: WebPlace, answer: bytes, kind: type[SkerryError]
) -> None:
    web.answer = answer
    assert type(await failure(web.target)) is kind
    assert len(web.came) == 1, "redirects are not followed"


async def test_a_webhook_that_says_nothing_is_given_up(web: WebPlace) -> None:
    web.answer = b""
    target = web.make(WebhookSpec(url=f"http://{HERE}:{web.port}", timeout="500ms"))
    assert "does not answer" in str(await failure(target))


async def test_a_secret_that_is_not_there_is_told_by_name(web: WebPlace) -> None:
    (web.folder / "key").unlink()
    assert "there is no file key" in str(await failure(web.target))
    assert web.came == []
    await asyncio.to_thread((web.folder / "key").write_text, "new")
    await web.target.deliver([view(1)])
    assert len(web.came) == 1


async def test_a_broker_gets_payloads_as_they_were_and_knows_who_comes(tmp_path: Path) -> None:
    outside = await open_bus(tmp_path)
    try:
        await outside.target.deliver([view(1, text=None, raw="/w=="), view(2, text="ö")])
        await outside.reader.until(b"\xff", "ö".encode())
        (tmp_path / "wrong").write_text(SECRET)
        wrong = outside.make(word="wrong")
        assert isinstance(await failure(wrong), Denied)
        await wrong.close()
    finally:
        await outside.close()


async def test_a_broker_with_tls_is_known_by_its_authorities(tmp_path: Path) -> None:
    needs("mosquitto")
    bus = BusWorld("mosquitto", tmp_path)
    bus.settings = msgspec.structs.replace(bus.settings, tls=make_tls(tmp_path))
    await bus.apply()
    outside = BusPlaceOutside(tmp_path, bus)
    secure = outside.make(scheme="mqtts", ca_file="ca.pem")
    try:
        await secure.deliver([view(1)])
        await outside.until(["count"])
        assert isinstance(await failure(outside.target), Unavailable), "without TLS nobody is let in"
    finally:
        await secure.close()
        await outside.close()
