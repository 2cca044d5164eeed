"""Modbus: registers of a unit to topics, and topics to those registers that the site marks writable.

Registers are read one after another each period. A value is published when it has changed, and every `SAY_AGAIN_S`.
Modbus has no time and no quality of its own: the time is that of the answer, and what the unit refuses is `bad`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from datetime import UTC, datetime
from typing import Any

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from skerry_gateways.binding import Binding
from skerry_gateways.bus import Bus
from skerry_gateways.points import Point, Value, parse_write
from skerry_gateways.standing import Standing

TIMEOUT_S = 3.0
SAY_AGAIN_S = 30.0
_log = logging.getLogger("gateway.modbus")
ModbusClient = AsyncModbusTcpClient | AsyncModbusSerialClient


class ModbusGateway:
    """One unit."""

    kind = "modbus"

    def __init__(self, binding: Binding, bus: Bus, standing: Standing, *, period_s: float) -> None:
        self._binding = binding
        self._bus = bus
        self._standing = standing
        self._period_s = period_s
        self._wanted = binding.points("registers")
        self._unit = int(binding.text("unit") or 1)
        self._last: dict[str, tuple[Point, float]] = {}

    async def run_once(self) -> None:
        """Serve one connection until it breaks.

        Raises:
            OSError, TimeoutError, pymodbus.ModbusException: it broke, or could not be had.
        """
        client = self._client()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if not await client.connect():
                    raise ConnectionError("the unit does not answer")
            while True:
                for name, spec in self._wanted.items():
                    self._publish(await self._read(client, name, spec))
                self._standing.source = True
                await self._serve_writes(client)
        finally:
            client.close()

    def gone(self) -> None:
        """Say of everything known that it may be anything now."""
        for point, _ in list(self._last.values()):
            self._publish(point.gone_bad())

    def _client(self) -> ModbusClient:
        if serial := self._binding.text("serial"):
            baud = int(self._binding.text("baud") or 19200)
            return AsyncModbusSerialClient(
                serial, baudrate=baud, timeout=TIMEOUT_S, retries=0, reconnect_delay=0
            )
        host, port = self._binding.text("host"), int(self._binding.text("port") or 502)
        return AsyncModbusTcpClient(host, port=port, timeout=TIMEOUT_S, retries=0, reconnect_delay=0)

    async def _read(self, client: ModbusClient, name: str, spec: dict[str, Any]) -> Point:
        kind, address = str(spec["kind"]), int(spec["address"])
        read = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "input": client.read_input_registers,
            "holding": client.read_holding_registers,
        }[kind]
        answer = await read(address, count=width(spec), device_id=self._unit)
        now = datetime.now(UTC)
        if answer.isError():
            return Point(name, None, "bad", now)
        value: Value
        if kind in ("coil", "discrete"):
            value = bool(answer.bits[0])
        else:
            raw = client.convert_from_registers(
                list(answer.registers), client.DATATYPE[type_of(spec).upper()]
            )
            value = scaled(raw, spec) if isinstance(raw, int | float) else None
        return Point(name, value, "good", now)

    async def _serve_writes(self, client: ModbusClient) -> None:
        """Write what is asked for until it is time to read again."""
        until = time.monotonic() + self._period_s
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    name, payload = await self._bus.writes.get()
            except TimeoutError:
                return
            try:
                await self._write(client, name, parse_write(payload))
            except ValueError as error:
                _log.warning("%s was not written: %s", name, error)
                self._standing.counts["writes_refused"] += 1
            else:
                self._standing.counts["writes"] += 1

    async def _write(self, client: ModbusClient, name: str, value: Value) -> None:
        spec = self._wanted.get(name, {})
        if not spec.get("writable", False):
            raise ValueError("it is not writable")
        address = int(spec["address"])
        if spec["kind"] == "coil":
            if not isinstance(value, bool):
                raise ValueError("a coil is true or false")
            answer = await client.write_coil(address, value, device_id=self._unit)
        else:
            words = client.convert_to_registers(unscaled(value, spec), client.DATATYPE[type_of(spec).upper()])
            answer = await client.write_registers(address, words, device_id=self._unit)
        if answer.isError():
            raise ValueError(f"the unit refuses: {answer}")

    def _publish(self, point: Point) -> None:
        last, said_at = self._last.get(point.name, (None, 0.0))
        now = time.monotonic()
        same = last is not None and (last.value, last.quality) == (point.value, point.quality)
        if same and now - said_at < SAY_AGAIN_S:
            return
        self._last[point.name] = (point, now)
        self._bus.publish(point.name, point.encode(datetime.now(UTC)))


def type_of(spec: dict[str, Any]) -> str:
    """Return the type of a register's value."""
    return str(spec.get("type", "uint16"))


def width(spec: dict[str, Any]) -> int:
    """Return how many registers, or bits, a value takes."""
    return 2 if type_of(spec).endswith("32") else 1


def scaled(raw: float, spec: dict[str, Any]) -> int | float:
    """Return the value of a raw number."""
    scale, offset = float(spec.get("scale", 1.0)), float(spec.get("offset", 0.0))
    if (scale, offset) == (1.0, 0.0):
        return raw
    # Ten digits: the scale is meant in decimals, 0.1 * 3 as 0.3.
    return float(f"{raw * scale + offset:.10g}")


def unscaled(value: Value, spec: dict[str, Any]) -> int | float:
    """Return the raw number of a value.

    Raises:
        ValueError: it is no number, or more than the register holds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    raw = (value - float(spec.get("offset", 0.0))) / float(spec.get("scale", 1.0))
    kind = type_of(spec)
    if kind == "float32":
        return float(raw)
    bits = int(kind.removeprefix("u").removeprefix("int"))
    low, high = (0, (1 << bits) - 1) if kind.startswith("u") else (-(1 << bits - 1), (1 << bits - 1) - 1)
    whole = round(raw)
    if not low <= whole <= high:
        raise ValueError(f"{value!r} is more than {kind} holds")
    return whole
