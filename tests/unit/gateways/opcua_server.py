"""An OPC UA server with three values, in a process of its own: `opcua_server.py PORT`."""

from __future__ import annotations

import asyncio
import sys

from asyncua import ua
from asyncua.server.server import Server


async def main(port: int) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    index = await server.register_namespace("urn:press")
    press = await server.nodes.objects.add_object(index, "Press")
    speed = await press.add_variable(ua.NodeId.from_string(f"ns={index};s=Speed"), "Speed", 1.5)
    reject = await press.add_variable(ua.NodeId.from_string(f"ns={index};s=Reject"), "Reject", False)
    fixed = await press.add_variable(
        ua.NodeId.from_string(f"ns={index};s=Fixed"), "Fixed", 7, ua.VariantType.Int32
    )
    for node in (speed, reject, fixed):
        await node.set_writable()
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
