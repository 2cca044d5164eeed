"""Reads pictures that come over the site's message bus, and says on it what they show.

A picture is a message of the camera gateway: JSON with `jpeg` in base64, `sequence`, `quality` and `source_time`. The
reading has the same last three, `value` (a whole number), `digits`, `score` (of the least certain digit) and `model`.
`camera/counter/picture` is told as `reading/counter`. One that cannot be read is told as a value of null, `bad`, and
`why`.

Rules: connecting again is the library's work; the password is read anew each time. Messages are read one at a time, as
they come: one that is older than the next does no harm, and takes a millisecond.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

MAX_MESSAGE_BYTES = 256 * 1024
log = logging.getLogger("meter_reader.bus")

Read = Callable[[bytes], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Where the bus is and who we are there; `pictures` is the pattern of what is read, `readings` the first level."""

    url: str
    user: str
    password_file: str
    ca: str
    client: str
    pictures: str
    readings: str


def parse_bus_settings(env: Mapping[str, str]) -> BusSettings | None:
    """Read what the host says of its bus, and `READER_PICTURES`; None where it is not asked for."""
    pictures = env.get("READER_PICTURES", "")
    if not pictures or not env.get("SKERRY_BUS_URL"):
        return None
    return BusSettings(
        url=env["SKERRY_BUS_URL"],
        user=env.get("SKERRY_BUS_USER", ""),
        password_file=env.get("SKERRY_BUS_PASSWORD_FILE", ""),
        ca=env.get("SKERRY_BUS_CA", ""),
        client="-".join(env.get(f"SKERRY_{name}", "reader") for name in ("HOST_NAME", "APPLICATION")),
        pictures=pictures,
        readings=env.get("READER_READINGS", "reading"),
    )


def answer_to(payload: bytes, read: Read) -> dict[str, Any] | None:
    """Return what is to be said of a message; None of one that is none of a camera gateway's."""
    try:
        if len(payload) > MAX_MESSAGE_BYTES:
            return None
        message = json.loads(payload)
        picture = base64.b64decode(message["jpeg"], validate=True)
        told = {name: message.get(name) for name in ("sequence", "quality", "source_time")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    try:
        return {**told, **read(picture)}
    except Exception as error:  # whatever is wrong with one picture, the next is read
        return {**told, "value": None, "quality": "bad", "why": str(error)}


class BusReader:
    """A connection that is kept up, in a thread of the library's own."""

    def __init__(self, settings: BusSettings, read: Read) -> None:
        """`read` returns what a JPEG picture shows, or raises an error that says why it cannot be read."""
        self._settings = settings
        self._read = read
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=settings.client[:64])

    def open(self) -> None:
        """Begin to connect, and go on for ever."""
        address = urlsplit(self._settings.url)
        client = self._client
        client.on_pre_connect = self._before_connect
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 30)
        if address.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context(cafile=self._settings.ca or None))
        client.connect_async(address.hostname or "127.0.0.1", address.port or 1883, keepalive=15)
        client.loop_start()

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()

    def _before_connect(self, client: mqtt.Client, _data: object) -> None:
        try:
            password = Path(self._settings.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            log.warning("no password for the bus: %s", error)
            return
        client.username_pw_set(self._settings.user, password)

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if code.is_failure:
            log.warning("the bus refuses: %s", code)
            return
        client.subscribe(self._settings.pictures, qos=0)

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        answer = answer_to(bytes(message.payload), self._read)
        levels = message.topic.split("/")
        if answer is not None and len(levels) > 1:
            topic = f"{self._settings.readings}/{levels[-2]}"
            client.publish(topic, json.dumps(answer).encode(), qos=1, retain=True)
