"""A relay over real HTTPS: its certificate, its blobs and files, with the hub there and away."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from skerry.carrier.link import HttpLink, fetch_trust_root
from skerry.kit.digests import digest_of
from skerry.kit.errors import Denied, Unavailable
from skerry.relay.door import Certificate, new_server
from skerry.relay.loops import upstream
from skerry.spec.carrier import DeltaAnswer, DeltaQuestion, DeltaRequest, SyncRequest
from skerry.trust.certificates import make_pinned
from tests.unit.relay_world import Host, Segment, World

pytestmark = pytest.mark.delivery

T = TypeVar("T")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


class Door:
    """A relay that serves at a port, and a host that dials it."""

    def __init__(self, relay: Segment, host: Host, link: HttpLink, url: str) -> None:
        self.relay = relay
        self.host = host
        self.link = link
        self.url = url
        self.token = ""

    async def call(self, call: Callable[[], T]) -> T:
        """Make a call of the link in a thread."""
        return await asyncio.to_thread(call)

    async def get(self, digest: str, offset: int = 0, limit: int | None = None) -> bytes:
        """Read a blob."""

        def read() -> bytes:
            with self.link.blob(digest, offset=offset, token=self.token, limit=limit) as chunks:
                return b"".join(chunks)

        return await self.call(read)

    async def metadata(self, name: str) -> bytes | None:
        """Read a file of metadata."""
        return await self.call(lambda: self.link.metadata(name, token=self.token, max_bytes=1 << 20))


@contextlib.asynccontextmanager
async def opened(world: World) -> AsyncGenerator[Door]:
    """Serve a relay with the certificate that the hub has issued."""
    relay = await world.add_relay("l3")
    relay.write()
    world.harbour.backend.relays.issuing.mark("l3")
    await world.settle()
    host = await world.join("edge", relay)
    server = new_server(relay.process.app, relay.process.certificate)
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"https://127.0.0.1:{door.getsockname()[1]}"
        serving = asyncio.create_task(server._serve([door]))
        link = HttpLink(url, world.harbour.hub.keys.trust_root.ca_pem)
        made = Door(relay, host, link, url)
        made.token = (await host.sync(want_token=True)).blob_token
        try:
            yield made
        finally:
            link.close()
            server.should_exit = True
            await serving


async def test_a_host_speaks_with_a_relay_as_with_a_hub_and_goes_on_without_the_hub(world: World) -> None:
    content = random.Random(1).randbytes(700_000)
    digest = digest_of(content)
    await world.harbour.hub.blobs.put(digest, content)
    async with opened(world) as door:
        request = SyncRequest(reports=(door.host.report(),))
        answer = await door.call(lambda: door.link.sync(request))
        assert answer.held == door.host.sequence
        assert await door.get(digest) == content
        assert await door.get(digest, 500, 1000) == content[500:1500]
        assert await door.call(lambda: door.link.blob_size(digest, token=door.token)) == len(content)
        timestamp, root = await door.metadata("timestamp.json"), await door.metadata("1.root.json")
        assert timestamp and root
        assert await door.metadata("9.nobody.json") is None
        pinned = door.relay.process.identity.place.root
        _, raw = await door.call(lambda: fetch_trust_root(door.url, pinned))
        assert digest_of(raw) == pinned

        door.relay.link.away = True
        assert await door.get(digest, 3) == content[3:]
        assert await door.metadata("timestamp.json") == timestamp
        assert await door.metadata("1.root.json") == root
        assert await door.metadata("2.root.json") is None
        with pytest.raises(Unavailable):
            await door.get(digest_of(b"another"))
        questions = DeltaRequest(wanted=(DeltaQuestion(target=digest, bases=((),)),))
        assert await door.call(lambda: door.link.deltas(questions, token=door.token)) == DeltaAnswer()
        with pytest.raises(Unavailable):
            await door.call(lambda: door.link.enroll(door.host.member.request("s")))
        with pytest.raises(Denied):
            await door.call(lambda: door.link.blob_size(digest, token="bad"))


@pytest.mark.rule("RELAY-3")
async def test_a_reader_of_a_wrong_blob_sees_a_cut_and_not_an_end(world: World) -> None:
    content = random.Random(2).randbytes(900_000)
    digest = digest_of(content)
    await world.harbour.hub.blobs.put(digest, content)
    async with opened(world) as door:
        world.harbour.hub.blobs._blobs[digest] = content[:-1] + bytes([content[-1] ^ 1])  # type: ignore[attr-defined]
        with pytest.raises(Unavailable) as caught:
            await door.get(digest)
        assert caught.value.code in ("link.cut", "relay.bad_blob")
        assert door.relay.process.cache.view().blobs == 0


async def test_hosts_join_and_change_their_keys_by_a_relay(world: World) -> None:
    async with opened(world) as door:
        member = type(door.host.member)(world.harbour.clock, "new", "harbour")
        request = member.request(world.harbour.token("join"))
        assert (await door.call(lambda: door.link.enroll(request))).host == "new"
        with pytest.raises(Denied):
            await door.call(lambda: door.link.enroll(member.request("none")))


async def test_the_timestamp_is_asked_for_again_after_some_seconds_and_files_of_a_version_are_not(
    world: World,
) -> None:
    async with opened(world) as door:
        await asyncio.to_thread(world.harbour.hub.repository.renew)
        calls = door.relay.link.plan.calls
        for name in ("timestamp.json", "1.snapshot.json"):
            assert await door.metadata(name)
        before = calls("metadata")
        for name in ("timestamp.json", "1.snapshot.json"):
            assert await door.metadata(name)
        assert calls("metadata") == before
        world.harbour.clock.advance(3600.0)
        door.token = (await door.host.sync(want_token=True)).blob_token
        assert await door.metadata("1.snapshot.json")
        assert calls("metadata") == before
        await door.relay.poll()
        assert await door.metadata("timestamp.json")
        assert calls("metadata") == before + 1


async def test_a_certificate_of_another_key_is_left_alone(world: World, tmp_path: Path) -> None:
    async with opened(world) as door:
        certificate = door.relay.process.certificate
        before = certificate.file.read_bytes()
        state = door.relay.process.holdings.state
        assert state is not None
        _, foreign = make_pinned("somebody", world.harbour.clock.now())
        certificate.follow(msgspec.structs.replace(state, certificate_pem=foreign.decode()))
        assert certificate.file.read_bytes() == before
        assert certificate.trouble
        assert Certificate(door.relay.data).there.is_set()
        assert not Certificate(tmp_path).there.is_set()


async def test_too_many_unknown_hosts_at_a_time_are_told_to_come_again(world: World) -> None:
    relay = await world.add_relay("l3")
    await relay.poll()
    member = await world.harbour.join("edge")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(upstream.MAX_PASSING):
            await stack.enter_async_context(relay.process.upward._passing)
        with pytest.raises(Unavailable) as caught:
            await Host(member, relay).sync()
    assert caught.value.facts["retry_after_s"]
