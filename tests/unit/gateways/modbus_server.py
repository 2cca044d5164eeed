"""A Modbus unit with a few registers, in a process of its own: `modbus_server.py PORT`."""

from __future__ import annotations

import asyncio
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer


async def main(port: int) -> None:
    words = ModbusSequentialDataBlock(1, [0, 65436, 16256, 0, 9, 0, 0, 0])  # type: ignore[no-untyped-call]
    coils = ModbusSequentialDataBlock(1, [0, 1, 0, 0])  # type: ignore[no-untyped-call]
    device = ModbusDeviceContext(di=coils, co=coils, hr=words, ir=words)
    context = ModbusServerContext(devices=device, single=True)
    await ModbusTcpServer(context, address=("127.0.0.1", port)).serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
