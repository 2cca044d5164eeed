"""Hosts of a site share what they fetch: whoever begins, fails, lies or is away, and however their calls interleave."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.agent.sharing import DISTRUST_S, SETTLE_S
from skerry.kit.digests import digest_of
from skerry.kit.errors import Denied
from skerry.ports.sharing import NearPlace
from skerry.spec.sharing import SharingQuestion
from skerry.trust.keys import SigningKey
from skerry.trust.tokens import issue_blob_token
from tests.unit.delta_files_of import noise
from tests.unit.sharing_world import KEYS, NAMES, SITE, SharingHost, SharingHosts, sharing_hosts

pytestmark = pytest.mark.delivery

BLOB = noise(50_000, 7)
DIGEST = digest_of(BLOB)
FEW_S = 6.0


@pytest.mark.rule("SHARE-1")
async def test_three_hosts_fetch_one_copy_of_every_blob(tmp_path: Path) -> None:
    contents = [noise(4000 + number, number) for number in range(30)]
    async with sharing_hosts(tmp_path, *contents) as site:
        await site.until_all_have(*contents)
        assert site.above_bytes() == sum(map(len, contents))
        assert min(host.link.sent_bytes for host in site.hosts.values()) > 0, "all of them take part"


@pytest.mark.rule("SHARE-1")
async def test_who_comes_later_gets_it_from_those_who_have_it(tmp_path: Path) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        site[0].want(BLOB)
        await site.until(lambda: site[0].has(BLOB))
        await site.until_all_have(BLOB)
        assert [host.link.sent_bytes for host in site.hosts.values()] == [len(BLOB), 0, 0]


@pytest.mark.rule("SHARE-1")
@settings(max_examples=150, deadline=None)
@given(order=st.permutations(range(3)), breaks=st.lists(st.integers(0, 2), max_size=12), held=st.data())
def test_however_the_questions_interleave_at_most_one_begins(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], breaks: list[int], held: st.DataObject
) -> None:
    site = SharingHosts(tmp_path_factory.mktemp("site"), {})
    begun: list[str] = []
    running: set[int] = set()
    queue = list(breaks)

    def decide(number: int) -> None:
        if number in running or NAMES[number] in begun:
            return
        running.add(number)
        host = site[number]
        wanting.enter_context(host.sharing.wanting({DIGEST: len(BLOB)}))
        if host.sharing.source(DIGEST).kind == "above":
            begun.append(host.name)
        running.discard(number)

    def between(_: str, __: str) -> None:
        if queue:
            decide(queue.pop())

    wanting = ExitStack()
    for number in range(3):
        size = held.draw(st.integers(0, 2))
        if size:
            site[number].blobs.append(DIGEST, [BLOB[:size]], offset=0, limit=len(BLOB))
    site.doors.on_ask = between
    for _ in range(3):
        for number in order:
            decide(number)
    assert len(begun) == 1


@pytest.mark.rule("SHARE-2")
async def test_when_the_one_that_fetches_is_gone_another_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        site.real_ways = site.time_flies = True
        gates = {name: threading.Semaphore(30) for name in NAMES}
        for name, host in site.hosts.items():
            host.link.gate = gates[name]

        def partial(number: int) -> int:
            return site[number].blobs.partial_size(DIGEST)

        await site.until(lambda: all(partial(number) == 30_000 for number in range(3)), BLOB, step_s=0.01)
        (first,) = (host for host in site.hosts.values() if host.link.opened)
        site.kill(first.name)
        site.alive.discard(first.name)
        first.fetcher.forget(set())
        site.doors.cut = {(name, f"{first.name}:1") for name in NAMES}
        for gate in gates.values():
            gate.release(60)
        await site.until_all_have(BLOB)
        (second,) = (host for host in site.hosts.values() if host is not first and host.link.opened)
        assert [offset for _, offset in second.link.opened] == [30_000], "it went on where its own part ended"
        assert second.link.sent_bytes == len(BLOB) - 30_000


@pytest.mark.rule("SHARE-3")
async def test_wrong_bytes_of_a_neighbour_are_found_out_and_it_is_left_aside(tmp_path: Path) -> None:
    small = noise(9000, 3)
    async with sharing_hosts(tmp_path, BLOB, small) as site:
        one, liar, other = site.hosts.values()
        site.alive.discard(other.name)
        site.introduce()
        liar.want(BLOB, small)
        await site.until(lambda: liar.has(BLOB, small))
        site.doors.wrong = {at := f"{liar.name}:1"}
        await site.until(lambda: one.has(BLOB), BLOB)
        assert one.blobs.path(DIGEST).read_bytes() == BLOB
        asked = site.doors.sent_bytes[at]
        site.introduce()
        await site.until(lambda: one.has(small), small)
        assert site.doors.sent_bytes[at] == asked > 0
        site.clock.advance(DISTRUST_S)
        site.doors.wrong.clear()
        site.introduce()
        assert one.sharing.survey([DIGEST])[DIGEST].kind == "near"


def sees(host: SharingHost) -> str:
    return host.sharing.survey([DIGEST])[DIGEST].kind


@pytest.mark.rule("SHARE-4")
@pytest.mark.parametrize("how", ("unreachable", "stalled", "short", "silent"))
async def test_neighbours_that_give_nothing_cost_a_few_seconds_at_the_most(tmp_path: Path, how: str) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        site.real_ways, wanting = True, ExitStack()
        if how == "unreachable":
            site.doors.cut = {(name, f"{other}:1") for name in NAMES for other in NAMES}
        elif how == "stalled":
            site.doors.stalled = {f"{name}:1" for name in NAMES}
        elif how == "short":
            site.doors.limits = {f"{name}:1": 0 for name in NAMES}
        else:
            # They say that they want it and never begin, and one of them comes before the third.
            with ExitStack() as all_want:
                for host in site.hosts.values():
                    all_want.enter_context(host.sharing.wanting({DIGEST: 0}))
                waits = [host for host in site.hosts.values() if sees(host) == "later"]
            for host in site.hosts.values():
                if host is not waits[0]:
                    wanting.enter_context(host.sharing.wanting({DIGEST: len(BLOB)}))
            site.alive = {waits[0].name}
        took_s = await site.until_all_have(BLOB)
        assert took_s <= FEW_S
        expected = 1 if how == "silent" else 3
        assert site.above_bytes() == expected * len(BLOB)


@pytest.mark.rule("SHARE-4")
async def test_after_a_start_the_first_heartbeats_are_waited_for_and_not_for_long(tmp_path: Path) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        site[0].want(BLOB)
        await site.until(lambda: site[0].has(BLOB))
        late = site[1].sharing
        late.follow({}, named=())
        late.follow({}, named=("edge-1", "edge-3"))
        assert late.source(DIGEST).kind == "later"
        late.follow({"edge-1": NearPlace("edge-1:1", "0" * 64)}, named=("edge-1", "edge-3"))
        assert late.source(DIGEST).kind == "near"
        site.kill("edge-1")
        site.clock.advance(SETTLE_S)
        assert late.source(DIGEST).kind == "above"


async def test_who_has_used_up_its_budget_gets_what_another_fetches(tmp_path: Path) -> None:
    from skerry.spec.desired import LinkPolicy, SitePolicy

    contents = [noise(4000, 50 + number) for number in range(9)]
    async with sharing_hosts(tmp_path, *contents) as site:
        for number in (0, 1):
            site[number].limiter.follow(SitePolicy(link=LinkPolicy(hosts=3, per_day=3)), {})
        await site.until_all_have(*contents)
        assert site[0].link.sent_bytes + site[1].link.sent_bytes <= 2 * 1000
        assert site.above_bytes() <= sum(map(len, contents)) + 2 * 1000


@pytest.mark.rule("SHARE-5")
async def test_only_hosts_of_the_site_get_anything(tmp_path: Path) -> None:
    stranger = SigningKey.generate()
    async with sharing_hosts(tmp_path, BLOB) as site:
        shelf, later = site[0].shelf, site.clock.now() + timedelta(hours=1)
        assert shelf.admit(site[1].passes.own()) == "edge-2"
        for token in (
            "",
            "x.y",
            "\N{SNOWMAN}.\N{SNOWMAN}",
            issue_blob_token("edge-2", SITE, later, stranger),
            issue_blob_token("edge-3", SITE, later, KEYS["edge-2"]),
            issue_blob_token("edge-2", "elsewhere", later, KEYS["edge-2"]),
            issue_blob_token("edge-2", SITE, site.clock.now() - timedelta(seconds=1), KEYS["edge-2"]),
            site[0].passes.own(),
        ):
            with pytest.raises(Denied):
                shelf.admit(token)


@pytest.mark.rule("SHARE-3")
async def test_the_last_byte_of_what_is_not_verified_is_held_back(tmp_path: Path) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        host = site[0]
        host.blobs.append(DIGEST, [BLOB], offset=0, limit=len(BLOB))
        assert host.shelf.size(DIGEST) is None, "what is only left over from before is not served"
        with host.sharing.wanting({DIGEST: len(BLOB)}):
            host.sharing.follow({}, named=())
            assert host.sharing.source(DIGEST).kind == "above"
            assert host.shelf.size(DIGEST) == len(BLOB)
            given = b"".join(host.shelf.chunks(DIGEST, start=10, end=len(BLOB)))
            assert given == BLOB[10:-1], "after a while it ends early"
            host.blobs.finish(DIGEST)
            assert b"".join(host.shelf.chunks(DIGEST, start=49_000, end=len(BLOB))) == BLOB[49_000:]
            host.sharing.settle(DIGEST)


async def test_a_question_with_nothing_wanted_is_answered_with_nothing(tmp_path: Path) -> None:
    async with sharing_hosts(tmp_path, BLOB) as site:
        answer = site[0].sharing.answer("edge-2", SharingQuestion(wants={str(DIGEST): 5}))
        assert answer.holdings == {}
