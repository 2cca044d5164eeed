"""What every way to find hosts of the same network keeps: who announces is found, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from skerry.adapters.zeroconf_discovery import ZeroconfDiscovery
from skerry.ports.discovery import Announced, Discovery
from skerry.testing.memory_sharing import MemoryDiscovery, MemoryMulticast
from skerry.testing.waiting import eventually

HERE = "127.0.0.1"
ONE, OTHER = Announced("0" * 15 + "1", f"{HERE}:40001"), Announced("0" * 15 + "2", f"{HERE}:40002")


def memory_network() -> Callable[[], Discovery]:
    net = MemoryMulticast()
    return lambda: MemoryDiscovery(net)


KINDS: dict[str, Callable[[], Callable[[], Discovery]]] = {
    "memory": memory_network,
    "zeroconf": lambda: ZeroconfDiscovery,
}
without_zeroconf = pytest.mark.skipif(find_spec("zeroconf") is None, reason="needs the extra lan")


@pytest.mark.parametrize("kind", ("memory", pytest.param("zeroconf", marks=without_zeroconf)))
async def test_hosts_find_each_other_and_not_themselves(kind: str) -> None:
    make = KINDS[kind]()
    one, other = make(), make()
    found: dict[str, set[Announced]] = {"one": set(), "other": set()}

    async def both() -> bool:
        return found == {"one": {OTHER}, "other": {ONE}}

    try:
        await one.open(ONE, found["one"].add)
        await other.open(OTHER, found["other"].add)
        await eventually(both, what="hosts to find each other")
    finally:
        await one.close()
        await other.close()
