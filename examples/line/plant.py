"""Plays what is at the site: a counter with a camera before it, a panel (Modbus) and a press (OPC UA).

    python examples/line/plant.py run         until Ctrl-C
    python examples/line/plant.py show 7      another counter before the camera
    python examples/line/plant.py limit 5000  turn the knob on the panel
    python examples/line/plant.py look        what the counter, the panel and the press say

The last three are clients of their own, which know nothing of Skerry. What they share with the first is the directory
`plant` where they are run. The camera's stream is made by ffmpeg from the pictures that the meter reader's build has
drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncua.common.node import Node
    from asyncua.server.server import Server
    from pymodbus.server import ModbusTcpServer

COUNTERS = Path(__file__).resolve().parents[1] / "meter-reader" / "build" / "counters"
FOLDER = Path("plant")
# Two of the same: ffmpeg loads a single one once for all, and takes turns with more.
SHOWN = (FOLDER / "shown0.png", FOLDER / "shown1.png")
PLACES = FOLDER / "places.json"
NODE = "ns=2;s=Press.Stop"
FIRST_COUNTER, FIRST_LIMIT = 3, 99_999
TIMEOUT_S = 5.0


def show(number: int) -> None:
    """Put another counter before the camera."""
    FOLDER.mkdir(exist_ok=True)
    for path in SHOWN:
        unfinished = path.with_suffix(".new")
        shutil.copy(COUNTERS / f"counter-{number:03d}.png", unfinished)
        unfinished.replace(path)


async def run(ports: list[int]) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(kind, stop.set)
    opcua, modbus, camera = ports
    show(FIRST_COUNTER)
    server, node = await make_press(opcua)
    unit = make_panel(modbus)
    filming = ThreadingHTTPServer(("127.0.0.1", camera), Camera)
    filming.daemon_threads = True
    threading.Thread(target=filming.serve_forever, daemon=True).start()
    async with server:
        serving = asyncio.create_task(unit.serve_forever())
        PLACES.write_text(json.dumps(ports))
        print(f"press  opc.tcp://127.0.0.1:{opcua}\npanel  127.0.0.1:{modbus}", flush=True)
        print(f"camera http://127.0.0.1:{camera}/stream\nthe plant runs", flush=True)
        telling = asyncio.create_task(tell(node))
        await stop.wait()
        telling.cancel()
        await unit.shutdown()  # type: ignore[no-untyped-call]
        await asyncio.wait([serving, telling])
    PLACES.unlink(missing_ok=True)


async def make_press(port: int) -> tuple[Server, Node]:
    """An OPC UA server with one node that says whether the press stands still."""
    # Libraries are loaded where they are used: the commands that need none of them answer at once.
    from asyncua import ua
    from asyncua.server.server import Server

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    index = await server.register_namespace("urn:example:press")
    press = await server.nodes.objects.add_object(index, "Press")
    stop = await press.add_variable(ua.NodeId.from_string(NODE), "Stop", False)
    await stop.set_writable()
    return server, stop


def make_panel(port: int) -> ModbusTcpServer:
    """A Modbus unit with the limit in the first two registers, its high word first."""
    from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
    from pymodbus.server import ModbusTcpServer

    # The library counts registers from 1.
    words = ModbusSequentialDataBlock(1, [FIRST_LIMIT >> 16, FIRST_LIMIT & 0xFFFF])  # type: ignore[no-untyped-call]
    return ModbusTcpServer(
        ModbusServerContext(devices=ModbusDeviceContext(hr=words), single=True), address=("127.0.0.1", port)
    )


async def tell(node: Node) -> None:
    """Say when the press stops and goes."""
    before = False
    while True:
        stopped = bool(await node.read_value())
        if stopped != before:
            print(f"the press {'stops' if stopped else 'goes'}", flush=True)
        before = stopped
        await asyncio.sleep(0.2)


class Camera(BaseHTTPRequestHandler):
    """Streams what is before it, five pictures a second, to each client."""

    def do_GET(self) -> None:
        """Answer any path with the stream."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=ffmpeg")
        self.end_headers()
        # Without probing and buffers: what is before the camera is in the stream a third of a second later.
        command = [
            "ffmpeg",
            "-nostdin",
            "-loglevel",
            "error",
            "-probesize",
            "32",
            "-fflags",
            "nobuffer",
            "-re",
        ]
        command += ["-loop", "1", "-framerate", "5", "-threads", "1", "-i", str(FOLDER / "shown%d.png")]
        command += [
            "-vf",
            "scale=iw*4:ih*4:flags=neighbor",
            "-threads",
            "1",
            "-q:v",
            "2",
            "-flush_packets",
            "1",
        ]
        command += ["-f", "mpjpeg", "pipe:1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as made:
            assert made.stdout is not None
            try:
                with contextlib.suppress(OSError):
                    while data := os.read(made.stdout.fileno(), 1 << 16):
                        self.wfile.write(data)
            finally:
                made.kill()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each client."""


async def set_limit(limit: int) -> None:
    """Write the limit, as a hand on the panel does."""
    from pymodbus.client import AsyncModbusTcpClient

    async with AsyncModbusTcpClient("127.0.0.1", port=places()[1], timeout=TIMEOUT_S) as client:
        answer = await client.write_registers(0, [limit >> 16, limit & 0xFFFF])
        if answer.isError():
            raise SystemExit(f"the panel refuses: {answer}")


async def look() -> dict[str, Any]:
    """Ask the panel and the press, and see what the counter shows."""
    from asyncua.client.client import Client
    from pymodbus.client import AsyncModbusTcpClient

    opcua, modbus, _ = places()
    async with AsyncModbusTcpClient("127.0.0.1", port=modbus, timeout=TIMEOUT_S) as panel:
        high, low = (await panel.read_holding_registers(0, count=2)).registers
    async with Client(f"opc.tcp://127.0.0.1:{opcua}", timeout=TIMEOUT_S) as press:
        stopped = await press.get_node(NODE).read_value()
    shown = SHOWN[0].read_bytes()
    truth = json.loads((COUNTERS / "counters.json").read_text())["counters"]
    counter = next(one["digits"] for one in truth if (COUNTERS / one["file"]).read_bytes() == shown)
    return {"counter": int(counter), "limit": high << 16 | low, "press": "stands" if stopped else "runs"}


def places() -> list[int]:
    """The ports of the plant that runs here."""
    try:
        found: list[int] = json.loads(PLACES.read_text())
    except OSError:
        raise SystemExit("no plant runs here: python examples/line/plant.py run") from None
    return found


def main() -> int:
    """Do what is asked; the exit code for the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="serve until Ctrl-C")
    running.add_argument("--ports", type=int, nargs=3, default=[4840, 5020, 8090], metavar="PORT")
    verbs.add_parser("show", help="another counter before the camera").add_argument("number", type=int)
    verbs.add_parser("limit", help="turn the knob on the panel").add_argument("limit", type=int)
    verbs.add_parser("look", help="what the counter, the panel and the press say")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if asked.verb == "run":
        asyncio.run(run(asked.ports))
    elif asked.verb == "show":
        show(asked.number)
    elif asked.verb == "limit":
        asyncio.run(set_limit(asked.limit))
    else:
        print(json.dumps(asyncio.run(look())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
