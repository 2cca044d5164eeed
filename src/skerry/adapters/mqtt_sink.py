"""SinkTarget by MQTT 3.1.1: each message is published with quality of service 1 and acknowledged before the next.

Blocking calls are in a thread of its own, so that a broker that stalls holds up nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from skerry.adapters.sink_files import read_sink_secret, sink_file
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BusClient, BusMessage, BusPlace
from skerry.ports.clock import Clock
from skerry.ports.sink import SinkTarget
from skerry.spec.api_topics import TopicMessageView
from skerry.spec.sink import MqttSpec

_ANSWER_S = 5.0
BATCH_S = 30.0
"""A batch that is not through by then is begun anew; with connecting it stays below a minute."""


class MqttSink(SinkTarget):
    """One broker."""

    def __init__(self, name: str, spec: MqttSpec, folder: Path, clock: Clock) -> None:
        self._name = name
        self._spec = spec
        self._folder = folder
        self._clock = clock
        self._url = urlsplit(spec.url)
        self._client: BusClient | None = None
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{name}")

    async def deliver(self, messages: Sequence[TopicMessageView]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._deliver, messages)

    async def close(self) -> None:
        self._closing = True
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=False)

    def _deliver(self, messages: Sequence[TopicMessageView]) -> None:
        try:
            client = self._opened()
            until = self._clock.monotonic() + BATCH_S
            for one in messages:
                if self._closing or self._clock.monotonic() > until:
                    raise Unavailable("sink.busy", f"{self._url.netloc} takes messages too slowly")
                client.publish(f"{self._spec.prefix}/{one.site}/{one.topic}", payload_of(one))
        except BaseException:
            self._drop()
            raise

    def _opened(self) -> BusClient:
        # The library is loaded where there is such a sink.
        from skerry.adapters.mqtt_client import MqttClient

        if self._client is not None and self._client.is_open:
            return self._client
        self._drop()
        secure, ca_file = self._url.scheme == "mqtts", self._spec.ca_file
        place = BusPlace(
            address=self._url.hostname or "",
            port=self._url.port or (8883 if secure else 1883),
            user=self._spec.username,
            password=read_sink_secret(self._folder, self._spec.password_file).decode(errors="replace"),
            client=f"skerry-{self._name[:40]}-{secrets.token_hex(4)}",
            authorities=sink_file(self._folder, ca_file) if secure and ca_file else None,
        )
        client = MqttClient(limit_s=_ANSWER_S)
        client.open(place, take=_ignore)
        self._client = client
        return client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def payload_of(message: TopicMessageView) -> bytes:
    """Return what an application had sent."""
    return message.text.encode() if message.text is not None else base64.b64decode(message.base64 or "")


def _ignore(_message: BusMessage) -> None:
    """Nothing was asked for."""
