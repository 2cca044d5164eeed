"""What every way to announce applications keeps; an independent browser of DNS-SD looks at the real one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec

import pytest
from zeroconf import IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from skerry.adapters.zeroconf_announcer import ZeroconfAnnouncer
from skerry.ports.names import Announcer, ServicePlace
from skerry.testing.memory_names import MemoryAnnouncer
from skerry.testing.waiting import eventually

HERE = "127.0.0.1"
Found = Mapping[str, tuple[str, int, Mapping[str, str]]]
Look = Callable[[], Found]
World = Callable[[str], AbstractAsyncContextManager[tuple[Announcer, Look]]]


@asynccontextmanager
async def in_memory(kind: str) -> AsyncGenerator[tuple[Announcer, Look]]:
    made = MemoryAnnouncer()
    yield (
        made,
        lambda: {
            one.name: (made.at[0], one.port, dict(one.text)) for one in made.services if one.kind == kind
        },
    )


@asynccontextmanager
async def on_the_wire(kind: str) -> AsyncGenerator[tuple[Announcer, Look]]:
    """Look with a client of its own, over multicast on the loopback interface."""
    whole = f"{kind}.local."
    there: set[str] = set()
    network = AsyncZeroconf(interfaces=[HERE], ip_version=IPVersion.V4Only)

    def changed(name: str, state_change: ServiceStateChange, **_: object) -> None:
        (there.discard if state_change is ServiceStateChange.Removed else there.add)(name)

    def look() -> Found:
        found: dict[str, tuple[str, int, Mapping[str, str]]] = {}
        for name in there:
            info = AsyncServiceInfo(whole, name)
            if info.load_from_cache(network.zeroconf) and info.port:
                text = {key: value or "" for key, value in info.decoded_properties.items()}
                found[name.removesuffix(f".{whole}")] = (info.parsed_addresses()[0], info.port, text)
        return found

    browser = AsyncServiceBrowser(network.zeroconf, whole, handlers=[changed])
    made = ZeroconfAnnouncer()
    try:
        yield made, look
    finally:
        await made.close()
        await browser.async_cancel()
        await network.async_close()


without_zeroconf = pytest.mark.skipif(find_spec("zeroconf") is None, reason="needs the extra names")


@pytest.fixture(params=(in_memory, pytest.param(on_the_wire, marks=without_zeroconf)))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Announcer, Look]]:
    # Others may be on the same network at the same time.
    kind = f"_skerry-{secrets.token_hex(8)}._tcp"
    opened: World = request.param
    async with opened(kind) as (announcer, look):
        yield kind, announcer, look


@pytest.mark.rule("NAME-6")
async def test_what_is_announced_is_found_with_its_port_and_gone_when_it_is_named_no_more(
    world: tuple[str, Announcer, Look],
) -> None:
    kind, announcer, look = world

    async def until(*wanted: str) -> None:
        async def there() -> bool:
            return sorted(look()) == sorted(wanted)

        await eventually(there, what=f"{wanted} to be found")

    text = (("name", "reader.site.internal"), ("path", "/read"))
    one = ServicePlace(kind, f"one-{kind[8:16]}", 8443, text)
    two = ServicePlace(kind, f"two-{kind[8:16]}", 8444)
    await announcer.announce(HERE, f"h-{kind[8:16]}", [one, two])
    await until(one.name, two.name)
    assert look()[one.name] == (HERE, 8443, dict(text))
    await announcer.announce(HERE, f"h-{kind[8:16]}", [one])
    await until(one.name)
    await announcer.announce(HERE, f"h-{kind[8:16]}", [])
    await until()
    await announcer.announce(HERE, f"h-{kind[8:16]}", [two])
    await until(two.name)
    await announcer.close()
    await until()
