"""OPC UA: values of nodes to topics, and topics to those nodes that the site marks writable.

A node whose value cannot be had is published with quality `bad`. When the server is away, so is everything that was
known of it; the gateway connects again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.ua.uaerrors import UaError

from skerry_gateways.binding import Binding
from skerry_gateways.bus import Bus
from skerry_gateways.points import Point, Quality, Value, parse_write
from skerry_gateways.standing import Standing

TIMEOUT_S = 5.0
GOODBYE_S = 2.0
_log = logging.getLogger("gateway.opcua")


class OpcUaGateway:
    """One server."""

    kind = "opcua"

    def __init__(self, binding: Binding, bus: Bus, standing: Standing, *, period_s: float) -> None:
        self._binding = binding
        self._bus = bus
        self._standing = standing
        self._period_s = period_s
        self._wanted = binding.points("nodes")
        self._names: dict[ua.NodeId, str] = {}
        self._last: dict[str, Point] = {}

    async def run_once(self) -> None:
        """Serve one connection until it breaks.

        Raises:
            OSError, TimeoutError, asyncua.ua.UaError: it broke, or could not be had.
        """
        client = Client(self._binding.text("endpoint"), timeout=TIMEOUT_S)
        if username := self._binding.text("username"):
            client.set_user(username)
            client.set_password(self._binding.secret("password"))
        try:
            await client.connect()
            await self._serve(client)
        finally:
            # A server that is gone would have it wait for each of its answers.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(GOODBYE_S):
                    await client.disconnect()

    async def _serve(self, client: Client) -> None:
        self._names = {}
        nodes = {name: client.get_node(str(one["node"])) for name, one in self._wanted.items()}
        subscription = await client.create_subscription(self._period_s * 1000, self)
        for name, node in nodes.items():
            self._names[node.nodeid] = name
            try:
                await subscription.subscribe_data_change(node)
            except UaError as error:
                _log.warning("node %s cannot be read: %s", name, error)
                self._publish(Point(name, None, "bad"))
        self._standing.source = True
        while True:
            await self._serve_writes(nodes)
            await client.check_connection()

    def datachange_notification(self, node: Node, val: Any, data: Any) -> None:
        """Publish a value; called by the library for each change."""
        found: ua.DataValue = data.monitored_item.Value
        code = found.StatusCode
        quality: Quality = (
            "bad" if code and code.is_bad() else "uncertain" if code and code.is_uncertain() else "good"
        )
        value = val if isinstance(val, bool | int | float | str) else None
        self._publish(Point(self._names[node.nodeid], value, quality, found.SourceTimestamp))

    def gone(self) -> None:
        """Say of everything known that it may be anything now."""
        for point in list(self._last.values()):
            if point.quality != "bad":
                self._publish(point.gone_bad())

    async def _serve_writes(self, nodes: dict[str, Node]) -> None:
        try:
            async with asyncio.timeout(1.0):
                name, payload = await self._bus.writes.get()
        except TimeoutError:
            return
        spec = self._wanted.get(name)
        if spec is None or not spec.get("writable", False):
            _log.warning("%s is not writable", name)
            self._standing.counts["writes_refused"] += 1
            return
        try:
            wanted = parse_write(payload)
            kind = await nodes[name].read_data_type_as_variant_type()
            value = ua.DataValue(ua.Variant(converted(wanted, kind), kind))
            await nodes[name].write_value(value)
        except (ValueError, UaError) as error:
            _log.warning("%s was not written: %s", name, error)
            self._standing.counts["writes_refused"] += 1
        else:
            self._standing.counts["writes"] += 1

    def _publish(self, point: Point) -> None:
        self._last[point.name] = point
        self._bus.publish(point.name, point.encode(datetime.now(UTC)))


_whole = {
    ua.VariantType.SByte,
    ua.VariantType.Byte,
    ua.VariantType.Int16,
    ua.VariantType.UInt16,
    ua.VariantType.Int32,
    ua.VariantType.UInt32,
    ua.VariantType.Int64,
    ua.VariantType.UInt64,
}


def converted(value: Value, kind: ua.VariantType) -> Value:
    """Return a value as the node has it.

    Raises:
        ValueError: it is none of that type.
    """
    if kind == ua.VariantType.Boolean and isinstance(value, bool):
        return value
    if kind == ua.VariantType.String and isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind in (ua.VariantType.Float, ua.VariantType.Double):
            return float(value)
        if kind in _whole and value == int(value):
            return int(value)
    raise ValueError(f"{value!r} is no {kind.name}")
