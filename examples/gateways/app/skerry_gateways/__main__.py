"""Runs a gateway until SIGTERM: `skerry-gateways.pyz opcua --need plc --topics press --port 8080`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Protocol

from skerry_gateways.binding import Binding, load_binding
from skerry_gateways.bus import Bus
from skerry_gateways.pacing import Pacing
from skerry_gateways.standing import Standing
from skerry_gateways.web import Pages, serve

GOODBYE_S = 5.0
KINDS = ("opcua", "modbus", "camera")
_log = logging.getLogger("gateway")


class Gateway(Protocol):
    """What all gateways do."""

    async def run_once(self) -> None:
        """Serve one connection until it breaks."""
        ...

    def gone(self) -> None:
        """Tell that the source is away."""
        ...


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; the exit code for the process."""
    parser = argparse.ArgumentParser(description="Joins what is at a site to its message bus.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--need", required=True, help="name of the binding, as the application needs it")
    parser.add_argument("--topics", required=True, help="topics begin with this")
    parser.add_argument("--port", type=int, required=True, help="port of health and metrics")
    parser.add_argument("--period", type=float, default=1.0, help="seconds between looks (default: 1)")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncua").setLevel(logging.ERROR)  # each try to connect is told by us
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    if asked.period <= 0:
        parser.error("--period must be more than 0")
    asyncio.run(run(asked, os.environ))
    return 0


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, and hang up in order."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    binding = load_binding(environment.get("SKERRY_BINDINGS", ""), asked.need)
    standing = Standing(asked.kind)
    bus = Bus(environment, asked.topics.strip("/"), standing, takes_writes=asked.kind != "camera")
    gateway, pages = make_gateway(asked.kind, binding, bus, standing, period_s=asked.period)
    server = await serve(standing, asked.port, pages)
    bus.open()
    serving = asyncio.create_task(serve_forever(gateway, standing))
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    await asyncio.wait([serving], timeout=GOODBYE_S)
    server.close()
    await bus.close()
    if serving in done:
        sys.exit(70)  # it never ends by itself
    if not serving.done():
        os._exit(0)  # a library that does not let go must not keep the process


def make_gateway(
    kind: str, binding: Binding, bus: Bus, standing: Standing, *, period_s: float
) -> tuple[Gateway, Pages]:
    """Return a gateway and what it answers over HTTP. Its libraries are loaded here: each kind needs others."""
    if kind == "opcua":
        from skerry_gateways.opcua import OpcUaGateway

        return OpcUaGateway(binding, bus, standing, period_s=period_s), {}
    if kind == "modbus":
        from skerry_gateways.modbus import ModbusGateway

        return ModbusGateway(binding, bus, standing, period_s=period_s), {}
    from skerry_gateways.camera import CameraGateway

    camera = CameraGateway(binding, bus, standing, period_s=period_s)
    return camera, camera.pages


async def serve_forever(gateway: Gateway, standing: Standing) -> None:
    """Connect again and again, with growing pauses while the source is away."""
    pacing = Pacing()
    told = ""
    while True:
        try:
            await gateway.run_once()
        except Exception as error:  # whatever a library raises, the gateway tries again
            standing.counts["errors"] += 1
            why = f"{type(error).__name__}: {error}"
            if why != told:
                _log.warning("the source is away: %s", why)
            told = why
        if standing.source:
            pacing.reset()
            gateway.gone()
        standing.source = False
        await asyncio.sleep(pacing.next_s())
        standing.counts["reconnects"] += 1


if __name__ == "__main__":
    sys.exit(main())
