"""Relays that are killed, full or malicious: what hosts told arrives once, and what the hub said is not altered."""

from __future__ import annotations

import base64
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from skerry.agent.identity import Identity
from skerry.agent.loops.sync import Syncer
from skerry.carrier.link import HttpLink
from skerry.carrier.upstreams import FAILURES, STAY_S, Upstream, Upstreams
from skerry.kit.digests import Digest, digest_of, hex_of
from skerry.kit.errors import Unavailable
from skerry.relay.identity import load_identity
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.report import REPORT_TYPE, Report
from skerry.testing.clock import SimulatedClock
from skerry.testing.fleet import AgentProcess
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.segmented import RelayProcess
from skerry.trust.envelope import sign_document
from tests.contract.tiny_disk import fill, tiny_disk
from tests.e2e.conftest import SITE
from tests.e2e.link_counting import whole_blobs
from tests.e2e.lying_carrier import LyingCarrier
from tests.e2e.narrow_way import NarrowWay
from tests.e2e.relay_fleet import RelayFleet, logged, url_of
from tests.e2e.releases import write_release

pytestmark = [pytest.mark.e2e, pytest.mark.delivery]

BLOB = 4 << 20
SMALL_BLOB = 32 << 10
"""Too small for a delta to be worth waiting for."""
NARROW = 2 << 20
"""Bytes per second."""
SMALL = 256 << 10
"""More than all else that a relay is told meanwhile."""
WAIT_S = 5.0
"""For so long a host that is played waits for news at the most."""

NOTED = {
    "agent.started", "pki.taken", "release.offered", "release.fetched", "release.trial", "release.proven",
    "sync.untrusted",
}  # fmt: skip
"""What the hosts of these tests note for the hub."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayFleet]:
    """A hub with a relay `left`, which dials it by `way`, and a relay `right`, which does so straight."""
    with RelayFleet(tmp_path_factory.mktemp("faults")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def way(fleet: RelayFleet) -> Iterator[NarrowWay]:
    """What is between the relay `left` and the hub."""
    with NarrowWay(fleet.hub.port) as made:
        yield made


@pytest.fixture(scope="module")
def left(fleet: RelayFleet, way: NarrowWay) -> RelayProcess:
    return fleet.add_relay("left", above=way.url)


@pytest.fixture(scope="module")
def right(fleet: RelayFleet) -> RelayProcess:
    return fleet.add_relay("right")


def push(fleet: RelayFleet, version: str, *, size: int = 0) -> Digest:
    """Push a release with some bytes that do not pack, and return their digest."""
    content = random.Random(version).randbytes(size)
    ballast = {"weights.bin": content} if size else None
    fleet.run("release", "push", str(write_release(fleet.folder / "release", version, ballast=ballast)))
    return digest_of(content)


def assert_heard_once(fleet: RelayFleet, agent: AgentProcess) -> None:
    """Check that the hub has all that a host noted, each once, in the order in which it happened."""
    heard = fleet.events(agent.name)
    assert [event.kind for event in heard] == [name for name in logged(agent) if name in NOTED]
    assert [event.at for event in heard] == sorted(event.at for event in heard)
    assert max(Counter(map(repr, heard)).values()) == 1


def upstream_of(agent: AgentProcess) -> str:
    """Return the upstream that an agent says it uses."""
    return next((view["url"] for view in agent.status().get("upstreams", []) if view["in_use"]), "")


def restart(fleet: RelayFleet, agent: AgentProcess) -> None:
    """Start an agent anew, which is an event, and wait until it has had contact."""
    agent.stop()
    (agent.data / "status.json").unlink()
    agent.start()
    fleet.until(lambda: agent.status().get("last_contact"))


def queued(relay: RelayProcess) -> int:
    """Return how many reports a relay says that it holds and are not above."""
    return int(relay.status()["queue"].get("reports", 0))


def until_succeeded(fleet: RelayFleet, rollout: str) -> None:
    fleet.until(lambda: fleet.rollout_state(rollout) == "succeeded")


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
def test_a_host_goes_on_by_its_other_relay_and_what_the_dead_one_held_is_heard_once(
    fleet: RelayFleet, way: NarrowWay, left: RelayProcess, right: RelayProcess
) -> None:
    fleet.make_site("mill", region="mill")
    push(fleet, "1.0.0")
    agent = fleet.add_agent_by("mill", "miller", [url_of(left), url_of(right)])
    fleet.until_knows(left, "miller")
    way.cut()
    restart(fleet, agent)
    fleet.until(lambda: queued(left) > 0)
    left.kill()
    fleet.until(lambda: upstream_of(agent) == url_of(right))
    rollout = fleet.roll_out("1.0.0", sites="region=mill")
    fleet.until_runs(agent, "1.0.0")
    until_succeeded(fleet, rollout)
    before = fleet.events("miller")
    way.heal()
    left.start()
    fleet.until(lambda: queued(left) == 0)
    assert fleet.events("miller") == before, "the hub has heard all of it already"
    assert_heard_once(fleet, agent)


@pytest.mark.rule("SYNC-6")
async def test_a_host_comes_back_to_the_relay_that_it_prefers_and_is_heard_once_and_in_order(
    fleet: RelayFleet, left: RelayProcess, right: RelayProcess
) -> None:
    fleet.make_site("harbour", region="harbour")
    identity = fleet.join_host("harbour", "pilot", left)
    clock = SimulatedClock(datetime.now(UTC))
    ways = [Upstream(url, HttpLink(url, identity.trust_root.ca_pem)) for url in (url_of(left), url_of(right))]
    link = Upstreams(ways, clock)
    syncer = Syncer(identity, MemoryAgentStore(), link, clock)

    async def tell(*names: str) -> None:
        for name in names:
            syncer.note("pilot.said", name)
            syncer.settle()
            await syncer.exchange(WAIT_S)

    try:
        await tell("one", "two")
        left.kill()
        for _ in range(FAILURES - 1):
            with pytest.raises(Unavailable):
                await tell("three")
        await tell("four")
        assert link.url == url_of(right)
        left.start()
        await tell("five")
        assert link.url == url_of(right), "it does not go to and fro"
        await clock.elapse(2 * STAY_S)
        await tell("six")
        assert link.url == url_of(left)
    finally:
        link.close()
    said = ["one", "two", "three", "three", "four", "five", "six"]
    fleet.until(lambda: [event.message for event in fleet.events("pilot")] == said)


def test_a_relay_that_is_killed_with_half_of_a_blob_goes_on_at_the_byte(
    fleet: RelayFleet, way: NarrowWay, left: RelayProcess
) -> None:
    fleet.make_site("quarry", region="quarry")
    agent = fleet.add_agent_by("quarry", "carver", [url_of(left)])
    digest = push(fleet, "2.0.0", size=BLOB)
    partial = left.data / "blobs" / "partial" / hex_of(digest)
    before, way.rate = way.bytes_down, NARROW
    rollout = fleet.roll_out("2.0.0", sites="region=quarry")
    fleet.until(lambda: partial.exists() and partial.stat().st_size > BLOB // 2)
    left.kill()
    assert BLOB // 2 < partial.stat().st_size < BLOB
    way.rate = None
    left.start()
    fleet.until_runs(agent, "2.0.0")
    until_succeeded(fleet, rollout)
    assert way.bytes_down - before < 1.1 * BLOB + SMALL
    assert whole_blobs(agent)[digest] == BLOB


@pytest.mark.rule("RELAY-1")
def test_a_relay_whose_disk_is_full_says_so_takes_nothing_and_goes_on_when_there_is_room(
    fleet: RelayFleet,
) -> None:
    fleet.make_site("loft", region="loft")
    with tiny_disk(fleet.folder / "disk", size_bytes=BLOB) as disk:
        relay = fleet.add_relay("small", data=disk)
        agent = fleet.add_agent_by("loft", "dweller", [url_of(relay)])
        fleet.until_knows(relay, "dweller")
        push(fleet, "3.0.0", size=BLOB)
        rollout = fleet.roll_out("3.0.0", sites="region=loft")
        # A blob that has no room is not begun: what there is of it is for reports, which tell the hub why.
        fleet.until(lambda: "no room" in agent.application("talker").get("why", ""))
        fleet.until(lambda: "no room" in str(fleet.host("dweller").applications.get("talker")))
        fleet.until(lambda: "no room" in relay.status().get("trouble", ""))

        ballast = fill(disk)
        before = fleet.events("dweller")
        restart(fleet, agent)
        fleet.until(lambda: "queue.failing" in logged(relay))
        assert fleet.events("dweller") == before, "what the relay could not take is the host's"
        ballast.unlink()
        subprocess.run(["mount", "-o", f"remount,size={4 * BLOB}", str(disk)], check=True)
        restart(fleet, agent)
        fleet.until_runs(agent, "3.0.0")
        until_succeeded(fleet, rollout)
        assert_heard_once(fleet, agent)

        newcomer = fleet.join_host("loft", "newcomer", relay)
        fleet.until_knows(relay, "newcomer")
        fill(disk)
        relay.kill()
        relay.start()
        digest, content = largest_blob(relay)
        assert fetched(newcomer, digest) == content
        relay.stop()


def largest_blob(relay: RelayProcess) -> tuple[str, bytes]:
    """Return the digest and the bytes of the largest blob that a relay has on its disk."""
    file = max((relay.data / "blobs" / "sha256").glob("??/*"), key=lambda one: one.stat().st_size)
    return f"sha256:{file.name}", file.read_bytes()


def fetched(identity: Identity, digest: str) -> bytes:
    """Return a blob as a host gets it from its upstream."""
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    now = datetime.now(UTC)
    report = Report(host=identity.place.host, site=identity.place.site, sequence=2, sent_at=now, clock=now)
    try:
        signed = sign_document(report, REPORT_TYPE, identity.key)
        token = link.sync(SyncRequest(reports=(signed,), want_token=True)).blob_token
        with link.blob(digest, offset=0, token=token) as chunks:
            return b"".join(chunks)
    finally:
        link.close()


@pytest.mark.parametrize("years", (-3, 3))
async def test_a_host_whose_clock_is_years_off_learns_the_time_through_its_relay(
    fleet: RelayFleet, right: RelayProcess, years: int
) -> None:
    fleet.make_site("mine", region="mine")
    name = f"digger-{'early' if years < 0 else 'late'}"
    identity = fleet.join_host("mine", name, right)
    link, store = HttpLink(identity.place.upstream, identity.trust_root.ca_pem), MemoryAgentStore()
    wrong = datetime.now(UTC) + timedelta(days=365 * years)
    try:
        # A relay that has not heard of it from the hub lets the hub answer; one that has hands the time on.
        for known in (False, True):
            if known:
                fleet.until_knows(right, name)
                store.save({"time": None, "desired": None})
            syncer = Syncer(identity, store, link, SimulatedClock(wrong))
            for _ in range(3):
                if syncer.desired is None:
                    await syncer.exchange(WAIT_S)
            assert abs(syncer.now() - datetime.now(UTC)) < timedelta(minutes=1)
            assert syncer.desired is not None
    finally:
        link.close()
    seen = fleet.host(name)
    assert seen.last_seen_at is not None
    assert abs(seen.last_seen_at - datetime.now(UTC)) < timedelta(minutes=1), "the hub goes by its own clock"


@pytest.fixture(scope="module")
def liar(fleet: RelayFleet, right: RelayProcess) -> Iterator[LyingCarrier]:
    """Somebody with the certificate of the relay `right`, between it and the host `minter`."""
    ca_pem = load_identity(right.data).trust_root.ca_pem
    with LyingCarrier(right, ca_pem) as made:
        yield made


@pytest.fixture(scope="module")
def minter(fleet: RelayFleet, liar: LyingCarrier) -> AgentProcess:
    fleet.make_site("mint", region="mint")
    return fleet.add_agent_by("mint", "minter", [liar.url])


class Lie:
    """A change of what is carried; `told` counts how often there was something to change."""

    def __init__(self, change: Callable[[JsonEnvelope], JsonEnvelope | None]) -> None:
        self._change = change
        self.told = 0
        self.seen: list[JsonEnvelope] = []

    def __call__(self, answer: SyncAnswer) -> SyncAnswer:
        """Change the state of an answer that has one."""
        if answer.desired is None:
            return answer
        self.told += 1
        self.seen.append(answer.desired)
        return msgspec.structs.replace(answer, desired=self._change(answer.desired))


def altered(envelope: JsonEnvelope) -> JsonEnvelope:
    """Return a signed state in which a variable has another value."""
    payload = base64.b64decode(envelope["payload"])
    assert b"hello from mint" in payload
    return {**envelope, "payload": base64.b64encode(payload.replace(b"hello", b"howdy")).decode()}


def change_site(fleet: RelayFleet, number: int) -> None:
    """Have the hub issue a newer state for the site `mint`."""
    fleet.make_site("mint", region=f"mint-{number}")
    site = SITE.format(name="mint", region="mint").replace("hello from mint", f"hello from mint {number}")
    fleet.run("apply", "-f", "-", stdin=site)


def holds_the_newest(fleet: RelayFleet, host: str) -> bool:
    """Tell whether the hub has heard that a host holds what it wants of it."""
    view = fleet.host(host)
    return view.generation_held == view.generation_wanted


def refusals(fleet: RelayFleet, host: str) -> set[str]:
    """Return the codes for which a host has said that it did not believe its upstream."""
    return {event.message.split(":")[0] for event in fleet.events(host) if event.kind == "sync.untrusted"}


@pytest.mark.rule("SYNC-1")
@pytest.mark.rule("SYNC-2")
def test_a_relay_that_alters_a_state_or_brings_an_older_one_is_not_believed_and_the_hub_hears_of_it(
    fleet: RelayFleet, liar: LyingCarrier, minter: AgentProcess
) -> None:
    fleet.until(lambda: holds_the_newest(fleet, "minter"))
    honest = Lie(lambda envelope: envelope)
    liar.on_answer = honest
    change_site(fleet, 1)
    fleet.until(lambda: honest.told and holds_the_newest(fleet, "minter"))
    held = fleet.host("minter").generation_held

    liar.on_answer = lie = Lie(altered)
    change_site(fleet, 2)
    fleet.until(lambda: "envelope.bad_signature" in refusals(fleet, "minter"))
    assert lie.told
    assert fleet.host("minter").generation_held == held < fleet.host("minter").generation_wanted
    liar.be_honest()
    fleet.until(lambda: holds_the_newest(fleet, "minter"))

    old = honest.seen[0]
    liar.on_answer = lambda answer: msgspec.structs.replace(answer, desired=old)
    fleet.until(lambda: "desired.not_newer" in refusals(fleet, "minter"))
    liar.be_honest()
    assert fleet.host("minter").generation_held > held


def test_a_state_that_a_relay_withholds_is_shown_as_not_there_and_not_as_well(
    fleet: RelayFleet, liar: LyingCarrier, minter: AgentProcess
) -> None:
    push(fleet, "5.0.0")
    fleet.until(lambda: holds_the_newest(fleet, "minter"))
    liar.on_answer = lie = Lie(lambda _: None)
    rollout = fleet.roll_out("5.0.0", sites="region=mint")
    fleet.until(lambda: lie.told)
    view = fleet.host("minter")
    assert view.generation_held < view.generation_wanted
    assert fleet.rollout_state(rollout) == "running"
    assert "talker" not in view.applications
    liar.be_honest()
    fleet.until_runs(minter, "5.0.0")
    until_succeeded(fleet, rollout)


class Swallowing:
    """Says of all reports that it holds them, and hands none on."""

    def __init__(self) -> None:
        self.reports = 0

    def __call__(self, request: SyncRequest) -> SyncAnswer:
        self.reports += len(request.reports)
        newest = msgspec.json.decode(base64.b64decode(request.reports[-1]["payload"]), type=dict[str, object])
        return SyncAnswer(acknowledged=0, held=int(str(newest["sequence"])), keeper="right/of-nobody")


class Reversing:
    """Hands reports on in the wrong order."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, request: SyncRequest) -> SyncRequest:
        self.requests += len(request.reports) > 1
        return msgspec.structs.replace(request, reports=request.reports[::-1])


@pytest.mark.rule("RELAY-2")
@pytest.mark.rule("SYNC-6")
def test_reports_that_a_relay_swallows_or_hands_on_in_another_order_are_heard_once_and_in_order(
    fleet: RelayFleet, liar: LyingCarrier, minter: AgentProcess
) -> None:
    liar.on_request = swallowing = Swallowing()
    fleet.until(lambda: swallowing.reports and not liar.under_way)
    silent_since = datetime.now(UTC)
    for _ in range(2):
        restart(fleet, minter)
    seen = fleet.host("minter").last_seen_at
    assert seen is not None
    assert seen <= silent_since, "what nobody heard does not count as having been there"
    assert datetime.fromisoformat(minter.status()["last_contact"]) > silent_since
    liar.on_request = reversing = Reversing()
    fleet.until(lambda: reversing.requests >= 2)
    liar.be_honest()
    fleet.until(lambda: [e.kind for e in fleet.events("minter")].count("agent.started") >= 3)
    fleet.until(lambda: (fleet.host("minter").last_seen_at or silent_since) > silent_since)
    assert_heard_once(fleet, minter)


class WrongBlob:
    """Gives other bytes of a blob at first, then too few, and then what is asked for."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self.given: list[int] = []

    def __call__(self, digest: str, content: bytes) -> bytes:
        if digest != self._digest or not content:
            return content
        self.given.append(len(content))
        if len(self.given) == 1:
            return content[:-1] + bytes([content[-1] ^ 1])
        return content[: len(content) // 2] if len(self.given) == 2 else content


@pytest.mark.rule("BLOB-1")
def test_a_blob_that_a_relay_alters_or_cuts_short_is_never_used(
    fleet: RelayFleet, liar: LyingCarrier, minter: AgentProcess
) -> None:
    digest = push(fleet, "6.0.0", size=SMALL_BLOB)
    liar.on_blob = wrong = WrongBlob(digest)
    rollout = fleet.roll_out("6.0.0", sites="region=mint")
    fleet.until(lambda: wrong.given[1:])
    assert digest not in whole_blobs(minter)
    fleet.until_runs(minter, "6.0.0")
    until_succeeded(fleet, rollout)
    assert wrong.given == [SMALL_BLOB, SMALL_BLOB, SMALL_BLOB // 2], (
        "what was altered is fetched anew, what was cut short is gone on with"
    )
    assert "blob.mismatch" in logged(minter)
    liar.be_honest()
