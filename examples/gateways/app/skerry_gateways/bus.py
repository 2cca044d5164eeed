"""The message bus, over MQTT: publishes what a gateway has, and hands over what it is asked to write.

Rules: what cannot be sent waits in a queue of `MAX_QUEUED` messages, and is counted when it is dropped; so is what
comes faster than it is taken. The password is read anew at each connection. Connecting again is the library's work.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from skerry_gateways.standing import Standing

MAX_QUEUED = 1000
MAX_WRITES = 100
_log = logging.getLogger("gateway.bus")


class Bus:
    """A connection that is kept up. Use it from the event loop that `open` was called on."""

    def __init__(
        self, environment: Mapping[str, str], prefix: str, standing: Standing, *, takes_writes: bool
    ) -> None:
        """Take the address and credentials that the host gives: SKERRY_BUS_URL, _USER, _PASSWORD_FILE and _CA."""
        address = urlsplit(environment["SKERRY_BUS_URL"])
        if address.scheme not in ("mqtt", "mqtts") or not address.hostname:
            raise SystemExit(f"SKERRY_BUS_URL is no address of a bus: {environment['SKERRY_BUS_URL']!r}")
        self._secure = address.scheme == "mqtts"
        self._host, self._port = address.hostname, address.port or (8883 if self._secure else 1883)
        self._user = environment.get("SKERRY_BUS_USER", "")
        self._password_file = environment.get("SKERRY_BUS_PASSWORD_FILE", "")
        self._ca = environment.get("SKERRY_BUS_CA", "")
        self._prefix = prefix
        self._standing = standing
        self._takes_writes = takes_writes
        self._loop: asyncio.AbstractEventLoop | None = None
        self.writes: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WRITES)
        parts = (
            environment.get(name, "")
            for name in ("SKERRY_HOST_NAME", "SKERRY_APPLICATION", "SKERRY_COMPONENT")
        )
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="-".join(filter(None, parts))[:64])

    def open(self) -> None:
        """Begin to connect, and go on for ever."""
        self._loop = asyncio.get_running_loop()
        client = self._client
        client.max_queued_messages_set(MAX_QUEUED)
        client.reconnect_delay_set(1, 30)
        client.will_set(f"{self._prefix}/status", b"offline", qos=1, retain=True)
        client.on_pre_connect = self._before_connect
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        if self._secure:
            client.tls_set_context(ssl.create_default_context(cafile=self._ca or None))
        client.connect_async(self._host, self._port, keepalive=15)
        client.loop_start()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = True) -> None:
        """Send a message below the prefix. With `qos` 1 it is kept until there is a connection, with 0 it is lost."""
        sent = self._client.publish(f"{self._prefix}/{topic}", payload, qos=qos, retain=retain)
        dropped = sent.rc != mqtt.MQTT_ERR_SUCCESS if qos == 0 else sent.rc == mqtt.MQTT_ERR_QUEUE_SIZE
        self._standing.counts["dropped" if dropped else "published"] += 1

    async def close(self) -> None:
        """Say that the gateway is going, and hang up."""
        if self._client.is_connected():
            last = self._client.publish(f"{self._prefix}/status", b"offline", qos=1, retain=True)
            await asyncio.to_thread(last.wait_for_publish, 3)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _before_connect(self, client: mqtt.Client, _data: object) -> None:
        if not self._user:
            return
        try:
            file = self._password_file
            password = Path(file).read_text(encoding="utf-8").rstrip("\r\n") if file else None
        except OSError as error:
            # Raising would end the library's thread, and with it all further tries.
            _log.warning("no password for the bus: %s", error)
            return
        client.username_pw_set(self._user, password)

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if code.is_failure:
            _log.warning("the bus refuses: %s", code)
            return
        if self._takes_writes:
            client.subscribe(f"{self._prefix}/+/set", qos=1)
        client.publish(f"{self._prefix}/status", b"online", qos=1, retain=True)
        self._standing.bus = True

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if self._standing.bus:
            _log.warning("the bus is away: %s", code)
        self._standing.bus = False

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        name = message.topic.removeprefix(f"{self._prefix}/").removesuffix("/set")
        if self._loop is not None and not message.retain:  # what was said before we were there is not for us
            self._loop.call_soon_threadsafe(self._take, name, bytes(message.payload))

    def _take(self, name: str, payload: bytes) -> None:
        try:
            self.writes.put_nowait((name, payload))
        except asyncio.QueueFull:
            self._standing.counts["writes_refused"] += 1
