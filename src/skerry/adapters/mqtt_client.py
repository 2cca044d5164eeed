"""BusClient by paho-mqtt, in MQTT 3.1.1, which every broker here speaks.

The library runs a thread for each connection. It never connects again by itself: its owner knows better when, and with
which password.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from skerry.kit.errors import Denied, Unavailable
from skerry.ports.broker import BusMessage, BusPlace

_LIMIT_S = 10.0
_KEEP_ALIVE_S = 30
_REFUSALS = frozenset({"Bad user name or password", "Not authorized"})


class _Answer:
    """What the broker answers to one question; None is a refusal."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.granted = False


class MqttClient:
    """One connection to a broker; opened again it is a new one."""

    def __init__(self, *, limit_s: float = _LIMIT_S) -> None:
        self._limit_s = limit_s
        self._client: mqtt.Client | None = None
        self._answers: dict[int, _Answer] = {}
        self._lock = threading.Lock()

    def open(self, place: BusPlace, *, take: Callable[[BusMessage], None], durable: bool = False) -> None:
        """See `BusClient.open`."""
        self.close()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=place.client,
            clean_session=not durable,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.username_pw_set(place.user, place.password)
        if place.authorities is not None:
            context = ssl.create_default_context(cafile=str(place.authorities))
            _check_tls(place, context, self._limit_s)
            client.tls_set_context(context)
        entered = _Answer()
        reason: list[str] = []

        def on_connect(
            _client: mqtt.Client,
            _data: object,
            _flags: mqtt.ConnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            entered.granted = not code.is_failure
            reason.append(str(code))
            entered.came.set()

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            take(_as_message(message))

        client.on_connect = on_connect
        client.on_message = on_message
        client.on_subscribe = self._on_subscribed
        client.connect_timeout = self._limit_s
        try:
            client.connect(place.address, place.port, keepalive=_KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            raise Unavailable("bus.unreachable", f"{place!r}: {error}") from error
        client.loop_start()
        entered.came.wait(self._limit_s)
        if not entered.granted:
            client.disconnect()
            client.loop_stop()
            if reason and reason[0] in _REFUSALS:
                raise Denied("bus.refused", f"{place!r}: {reason[0]}")
            raise Unavailable("bus.unreachable", f"{place!r}: {reason[0] if reason else 'no answer'}")
        self._client = client

    def subscribe(self, patterns: Sequence[str]) -> None:
        """See `BusClient.subscribe`."""
        client = self._opened()
        for pattern in patterns:
            answer = _Answer()
            with self._lock:
                code, number = client.subscribe(pattern, qos=1)
                if number is not None:
                    self._answers[number] = answer
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or not answer.came.wait(self._limit_s):
                raise Unavailable("bus.unreachable", "the broker does not answer")
            if not answer.granted:
                raise Denied("bus.refused", f"not allowed to read {pattern}")

    def unsubscribe(self, patterns: Sequence[str]) -> None:
        """See `BusClient.unsubscribe`."""
        client = self._opened()
        for pattern in patterns:
            client.unsubscribe(pattern)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """See `BusClient.publish`."""
        sent = self._opened().publish(topic, payload, qos=1, retain=retain)
        try:
            sent.wait_for_publish(self._limit_s)
            done = sent.is_published()
        except (RuntimeError, ValueError):
            done = False
        if not done:
            raise Unavailable("bus.unreachable", "the broker does not acknowledge")

    def taken(self, message: BusMessage) -> None:
        """See `BusClient.taken`."""
        if message.number and self._client is not None:
            self._client.ack(message.number, 1)

    @property
    def is_open(self) -> bool:
        """See `BusClient.is_open`."""
        return self._client is not None and self._client.is_connected()

    def close(self) -> None:
        """See `BusClient.close`."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _opened(self) -> mqtt.Client:
        if self._client is None or not self._client.is_connected():
            raise Unavailable("bus.unreachable", "not connected")
        return self._client

    def _on_subscribed(
        self,
        _client: mqtt.Client,
        _data: object,
        number: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        with self._lock:
            answer = self._answers.pop(number, None)
        if answer is not None:
            answer.granted = not any(code.is_failure for code in codes)
            answer.came.set()


def _check_tls(place: BusPlace, context: ssl.SSLContext, limit_s: float) -> None:
    """Shake hands once before the library does: it leaves the socket of one that fails to the garbage collector."""
    try:
        with (
            socket.create_connection((place.address, place.port), timeout=limit_s) as raw,
            context.wrap_socket(raw, server_hostname=place.address),
        ):
            pass
    except OSError as error:
        raise Unavailable("bus.unreachable", f"{place!r}: {error}") from error


def _as_message(message: mqtt.MQTTMessage) -> BusMessage:
    number = message.mid if message.qos else 0
    return BusMessage(message.topic, bytes(message.payload), number, message.retain, message.dup)
