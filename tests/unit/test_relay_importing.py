"""A relay takes a bundle for the sites below it: what is refused and why, what it serves then, and cuts at any step."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.cli.relay import relay as command
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Rejected, SkerryError, Unavailable
from skerry.kit.locking import hold
from skerry.relay.guests import unverified
from skerry.relay.wiring import open_staged
from skerry.spec.bundle import BundleEntry, BundleManifest
from skerry.spec.desired import DesiredState
from skerry.testing.faults import FaultPlan
from skerry.testing.memory_relay import FaultyRelayStore
from skerry.testing.waiting import eventually
from skerry.trust.keys import SigningKey
from tests.unit.delta_files_of import delta_of
from tests.unit.relay_stick import Plant, manifest_of, standing, start_of
from tests.unit.relay_world import Host, Segment

pytestmark = pytest.mark.trust

CONTENT = bytes(range(256)) * 300
replace = msgspec.structs.replace


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(tmp_path)
    yield made
    await made.close()


class Below:
    """A relay that has heard of host edge of site harbour, and then lost its link."""

    def __init__(self, relay: Segment, host: Host) -> None:
        self.relay = relay
        self.host = host

    @property
    def generation(self) -> int:
        """The generation that the relay holds."""
        return self.relay.process.holdings.desired.get("harbour", 0)


@pytest.fixture
async def below(plant: Plant) -> Below:
    relay = await plant.add_relay("l3")
    host = await plant.join("edge", relay)
    relay.link.away = True
    return Below(relay, host)


async def refused(plant: Plant, relay: Segment, content: bytes) -> SkerryError:
    with pytest.raises(SkerryError) as caught:
        await plant.carry(relay, content)
    return caught.value


@pytest.mark.rule("BUNDLE-5")
async def test_what_came_in_a_bundle_while_the_relay_did_not_run_is_served_from_its_start(
    plant: Plant, below: Below
) -> None:
    relay, before = below.relay, below.generation
    record = await plant.assign("1", CONTENT, "harbour")
    view = await plant.carry(relay, await plant.bundle("harbour"))
    assert (view.process, view.files, view.copied, view.refused, view.doubts) == (
        "does not run",
        2,
        2,
        {},
        {},
    )
    assert (view.sites["harbour"].generation, view.sites["harbour"].fresh) == (before + 1, True)
    await relay.end()
    relay.begin()
    relay.link.away = True
    assert (await plant.look(relay))["code"] == ""
    answer = await below.host.sync()
    assert below.host.read(answer).hosts["edge"][0].release == record.name
    assert await plant.read(relay, digest_of(CONTENT)) == CONTENT
    assert await plant.read(relay, record.digest) == record.document
    found = await plant.vouched(relay, record)
    assert found is not None
    assert f"sha256:{found.sha256}" == record.digest
    assert not list((relay.data / "carried").rglob("*.bundle"))
    assert open_staged(relay.data).digests() == frozenset()


@pytest.mark.rule("BUNDLE-5")
async def test_hosts_that_wait_at_a_relay_that_serves_hear_of_it_at_once(plant: Plant, below: Below) -> None:
    record = await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    waiting = asyncio.create_task(below.host.sync(wait_s=3600.0))
    running = asyncio.create_task(below.relay.process.carried.run_forever())
    with hold(below.relay.data / "relay.lock", conflict=Conflict("relay.running", "")):
        view = asyncio.create_task(plant.carry(below.relay, content))

        async def done() -> bool:
            plant.clock.advance(0.5)
            return view.done()

        await eventually(done)
    running.cancel()
    assert (await view).process == "took it"
    assert below.host.read(await waiting).hosts["edge"][0].release == record.name


@pytest.mark.rule("BUNDLE-5")
async def test_the_same_bundle_a_second_time_copies_and_changes_nothing(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    assert (await plant.take(below.relay, content))["code"] == ""
    before = standing(below.relay)
    view = await plant.carry(below.relay, content)
    assert (view.copied, view.sites["harbour"].fresh) == (0, False)
    assert (await plant.look(below.relay))["code"] == ""
    assert standing(below.relay) == before


@pytest.mark.rule("BUNDLE-5")
async def test_of_a_bundle_for_several_sites_those_below_are_taken_and_the_others_refused(
    plant: Plant, below: Below
) -> None:
    await plant.harbour.join("far", "airport")
    await plant.assign("1", CONTENT, "harbour", "airport")
    before = standing(below.relay)
    error = await refused(plant, below.relay, await plant.bundle("airport"))
    assert error.code == "bundle.wrong_site"
    assert "airport" in error.message
    assert standing(below.relay) == before
    view = await plant.carry(below.relay, await plant.bundle("harbour", "airport"))
    assert list(view.sites) == ["harbour"]
    assert view.refused == {"airport": "it is not below this relay"}
    await plant.look(below.relay)
    assert set(below.relay.process.holdings.desired) == {"harbour"}


@pytest.mark.rule("RELAY-4")
@pytest.mark.rule("BUNDLE-5")
async def test_an_older_generation_than_the_relay_has_is_refused(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    old = await plant.bundle("harbour")
    await plant.assign("2", b"another", "harbour")
    await plant.take(below.relay, await plant.bundle("harbour"))
    before = standing(below.relay)
    assert (await refused(plant, below.relay, old)).code == "bundle.older"
    assert standing(below.relay) == before


def made_long_ago(manifest: BundleManifest) -> BundleManifest:
    return replace(manifest, expires_at=manifest.made_at - timedelta(seconds=1))


def made_ahead(manifest: BundleManifest) -> BundleManifest:
    return replace(manifest, made_at=manifest.made_at + timedelta(hours=1))


def other_hub(manifest: BundleManifest) -> BundleManifest:
    return replace(manifest, hub="another")


def other_generation(manifest: BundleManifest) -> BundleManifest:
    site = manifest.sites["harbour"]
    return replace(manifest, sites={"harbour": replace(site, generation=site.generation + 1)})


def overlapping(manifest: BundleManifest) -> BundleManifest:
    *first, last = manifest.entries
    return replace(manifest, entries=(*first, replace(last, offset=0)))


FORGED = [
    (made_long_ago, "bundle.expired"),
    (made_ahead, "bundle.from_the_future"),
    (other_hub, "bundle.wrong_hub"),
    (other_generation, "desired.not_newer"),
    (overlapping, "bundle.malformed"),
]


@pytest.mark.rule("BUNDLE-5")
@pytest.mark.parametrize(("change", "code"), FORGED, ids=[change.__name__ for change, _ in FORGED])
async def test_what_is_not_as_the_hub_makes_it_is_refused_and_changes_nothing(
    plant: Plant, below: Below, change: Callable[[BundleManifest], BundleManifest], code: str
) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    before = standing(below.relay)
    assert (await refused(plant, below.relay, plant.forge(content, change))).code == code
    assert standing(below.relay) == before


@pytest.mark.rule("BUNDLE-5")
async def test_what_was_altered_or_cut_off_anywhere_is_refused_and_changes_nothing(
    plant: Plant, below: Below
) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    before = standing(below.relay)
    stranger = plant.forge(content, lambda manifest: manifest, key=SigningKey.generate())
    assert (await refused(plant, below.relay, stranger)).code == "envelope.bad_signature"
    data, entries = start_of(content), manifest_of(content).entries
    # The first byte of what is signed, one in the middle of metadata, and the last of the largest file.
    for at in (data, data + entries[1].offset + 50, len(content) - 1):
        flipped = content[:at] + bytes((content[at] ^ 4,)) + content[at + 1 :]
        for dry_run in (True, False):
            with pytest.raises(SkerryError) as caught:
                await plant.carry(below.relay, flipped, dry_run=dry_run)
            assert caught.value.code == "bundle.altered"
    for length in (10, 30, data - 1, data + 100, len(content) - 1):
        assert (await refused(plant, below.relay, content[:length])).code == "bundle.truncated"
    assert await plant.look(below.relay) == {}
    assert standing(below.relay) == before


@pytest.mark.rule("BUNDLE-5")
async def test_expired_metadata_is_refused_although_the_bundle_claims_to_be_good(
    plant: Plant, below: Below
) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    plant.clock.advance(61 * 86_400.0)
    later = plant.clock.now() + timedelta(days=1)
    forged = plant.forge(content, lambda manifest: replace(manifest, expires_at=later))
    before = standing(below.relay)
    assert (await refused(plant, below.relay, forged)).code == "metadata.expired"
    assert standing(below.relay) == before


@pytest.mark.rule("BUNDLE-5")
async def test_the_relay_judges_for_itself_what_was_put_before_it(plant: Plant, below: Below) -> None:
    """Whoever may write the directory may leave anything there, and time goes on between the two."""
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    await plant.carry(below.relay, content)
    below.relay.link.away = False
    await plant.assign("2", b"another", "harbour")
    await below.relay.poll()
    below.relay.link.away = True
    before = below.generation
    assert (await plant.look(below.relay))["code"] == "bundle.older"
    assert open_staged(below.relay.data).digests() == frozenset(), "nobody needs what was refused"
    for garbage, code in ((b"anything", "bundle.foreign"), (content, "bundle.malformed")):
        (below.relay.data / "carried" / f"{manifest_of(content).id}.bundle").write_bytes(garbage)
        assert (await plant.look(below.relay))["code"] == code
    assert below.generation == before


@pytest.mark.rule("BUNDLE-5")
async def test_a_desired_state_is_not_taken_without_the_files_it_asks_for(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    before = below.generation
    await plant.carry(below.relay, await plant.bundle("harbour"))
    open_staged(below.relay.data).remove(digest_of(CONTENT))
    assert (await plant.look(below.relay))["code"] == "bundle.incomplete"
    assert below.generation == before


@pytest.mark.rule("BUNDLE-5")
async def test_an_import_that_was_cut_short_goes_on_where_it_stopped(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    staged, digest = open_staged(below.relay.data), digest_of(CONTENT)
    staged.append(digest, [CONTENT[:5000]], offset=0, limit=len(CONTENT))
    assert (await plant.take(below.relay, content))["code"] == ""
    assert await plant.read(below.relay, digest) == CONTENT


@pytest.mark.rule("BUNDLE-5")
async def test_a_relay_whose_disk_is_full_takes_it_later(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    plan, before = FaultPlan(), below.generation
    await below.relay.end()
    below.relay.store = FaultyRelayStore(below.relay.store, plan)
    below.relay.begin()
    below.relay.link.away = True
    plan.fail("put_signed", Unavailable("disk.full", "no room"))
    with pytest.raises(Unavailable):
        await plant.take(below.relay, await plant.bundle("harbour"))
    assert below.generation == before
    assert (await plant.look(below.relay))["code"] == ""
    assert below.generation == before + 1
    assert await plant.read(below.relay, digest_of(CONTENT)) == CONTENT


async def test_what_came_stays_when_the_cache_has_no_room_for_all(plant: Plant, below: Below) -> None:
    cache = below.relay.process.cache
    old = bytes(50_000)
    file = DirectoryBlobs(below.relay.data / "blobs").put(digest_of(old), old)
    yesterday = plant.clock.now().timestamp() - 86_400.0
    os.utime(file, (yesterday, yesterday))
    cache.load()
    cache.limit_bytes = 100_000
    await plant.assign("1", CONTENT, "harbour")
    assert (await plant.take(below.relay, await plant.bundle("harbour")))["code"] == ""
    assert cache.has(digest_of(CONTENT))
    assert not cache.has(digest_of(old)), "what was not used for longest goes"


async def test_more_than_the_cache_can_keep_is_refused(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    content = await plant.bundle("harbour")
    before = standing(below.relay)
    await plant.carry(below.relay, content)
    below.relay.process.cache.limit_bytes = 50_000
    assert (await plant.look(below.relay))["code"] == "relay.cache_too_small"
    assert (await refused(plant, below.relay, content)).code == "relay.cache_too_small"
    assert standing(below.relay) == before


async def test_a_delta_is_applied_to_what_the_cache_has(plant: Plant, below: Below) -> None:
    old, new = CONTENT, CONTENT[:30_000] + b"another" + CONTENT[30_000:]
    await plant.assign("1", new, "harbour")
    content = delta_bundle(plant, await plant.bundle("harbour"), old, new)
    assert (await refused(plant, below.relay, content)).code == "bundle.base_missing"
    DirectoryBlobs(below.relay.data / "blobs").put(digest_of(old), old)
    below.relay.process.cache.load()
    assert (await plant.take(below.relay, content))["code"] == ""
    assert await plant.read(below.relay, digest_of(new)) == new
    assert await plant.read(below.relay, digest_of(old)) == old


def delta_bundle(plant: Plant, content: bytes, old: bytes, new: bytes) -> bytes:
    """Return a bundle whose last file, `new`, is in it as a delta to `old`."""
    delta = delta_of(old, new)

    def change(manifest: BundleManifest) -> BundleManifest:
        *first, last = manifest.entries
        assert last.digest == digest_of(new)
        entry = BundleEntry(
            kind="delta",
            name=last.name,
            digest=digest_of(delta),
            size_bytes=len(delta),
            offset=last.offset,
            base=(digest_of(old),),
            target=digest_of(new),
            target_bytes=len(new),
        )
        return replace(manifest, entries=(*first, entry))

    return plant.forge(content[: -len(new)] + delta, change)


async def test_a_newer_timestamp_is_replaced_neither_by_a_bundle_nor_from_above(
    plant: Plant, below: Below
) -> None:
    relay = below.relay
    await plant.assign("1", CONTENT, "harbour")
    older = await plant.bundle("harbour")
    old = plant.hub.repository.file("timestamp.json")
    record = await plant.assign("2", b"another", "harbour")
    await plant.take(relay, await plant.bundle("harbour"))
    kept = await relay.backend.metadata("timestamp.json")
    assert kept == plant.hub.repository.file("timestamp.json") != old
    # A relay above that has been cut off itself: it has the old timestamp, and not the new files.
    above = await plant.add_relay("l4")
    await above.process.files.take_in({"timestamp.json": old or b""})
    above.link.away = True
    relay.link.backend, relay.link.away = above.backend, False
    plant.clock.advance(3600.0)
    assert await relay.backend.metadata("timestamp.json") == kept
    assert await plant.vouched(relay, record) is not None
    await relay.process.files.take_in({"timestamp.json": old or b""})
    assert await relay.backend.metadata("timestamp.json") == kept
    assert (await refused(plant, relay, older)).code == "bundle.older"


async def test_what_the_hub_has_of_reports_is_forgotten_and_told(plant: Plant, below: Below) -> None:
    relay, host = below.relay, below.host
    host.tell("one")
    await host.sync()
    assert (host.answer.held, host.answer.acknowledged, list(host.kept)) == (4, 0, [3])
    # They are carried to the hub by hand.
    await plant.harbour.sync(*host.kept.values())
    await plant.assign("1", CONTENT, "harbour")
    plant.clock.advance(60.0)
    await plant.take(relay, await plant.bundle("harbour"))
    assert relay.process.queue.size().reports == 1, "the heartbeat alone waits to be handed up"
    await host.sync()
    assert (host.answer.acknowledged, list(host.kept)) == (3, [])


@pytest.mark.rule("RELAY-1")
async def test_a_bundle_older_than_the_relay_state_acknowledges_nothing(plant: Plant, below: Below) -> None:
    """A host may have other keys under its name since, whose reports the hub does not have."""
    relay, host = below.relay, below.host
    host.tell("one")
    await host.sync()
    await plant.assign("1", CONTENT, "harbour")
    bundled = plant.forge(await plant.bundle("harbour"), acknowledging(1_000))
    long_ago = plant.clock.now() - timedelta(days=1)
    stale = plant.forge(bundled, lambda manifest: replace(manifest, made_at=long_ago))
    assert (await plant.take(relay, stale))["code"] == ""
    await host.sync()
    assert host.kept, "the host keeps it"


def acknowledging(sequence: int) -> Callable[[BundleManifest], BundleManifest]:
    def change(manifest: BundleManifest) -> BundleManifest:
        site = manifest.sites["harbour"]
        hosts = {name: replace(one, acknowledged=sequence) for name, one in site.hosts.items()}
        return replace(manifest, sites={"harbour": replace(site, hosts=hosts)})

    return change


@pytest.mark.rule("RELAY-4")
async def test_what_is_held_is_taken_again_when_it_was_signed_to_last_for_longer(
    plant: Plant, below: Below
) -> None:
    relay, held = below.relay, below.generation
    await plant.assign("1", CONTENT, "harbour")
    short = await plant.bundle("harbour", valid_for_s=86_400 * 30)
    lasting = await plant.bundle("harbour", valid_for_s=86_400 * 150)

    async def expires_at() -> datetime:
        envelope = await relay.process.holdings.envelope("desired", "harbour")
        found = unverified(envelope, DesiredState) if envelope is not None else None
        assert found is not None
        assert found.generation == below.generation
        return found.expires_at

    assert (await plant.take(relay, short))["code"] == ""
    taken, before = below.generation, await expires_at()
    assert taken > held
    await plant.take(relay, lasting)
    after = await expires_at()
    assert below.generation == taken
    assert after - before > timedelta(days=60)
    await plant.take(relay, short)
    assert await expires_at() == after, "and never one that ends earlier"
    await relay.end()
    relay.begin()
    assert await expires_at() == after, "also after a restart"


async def test_a_relay_below_gets_what_was_carried_to_the_one_above(plant: Plant) -> None:
    l3 = await plant.add_relay("l3")
    l2 = await plant.add_relay("l2", l3)
    host = await plant.join("edge", l2)
    await plant.settle()
    l3.link.away = True
    record = await plant.assign("1", CONTENT, "harbour")
    assert (await plant.take(l3, await plant.bundle("harbour")))["code"] == ""
    await l2.poll()
    assert host.read(await host.sync()).hosts["edge"][0].release == record.name
    assert await plant.read(l2, digest_of(CONTENT)) == CONTENT
    assert await plant.vouched(l2, record) is not None


async def test_the_command_says_what_it_would_take(plant: Plant, below: Below) -> None:
    await plant.assign("1", CONTENT, "harbour")
    file = plant.folder / "stick.bundle"
    file.write_bytes(await plant.bundle("harbour"))
    plant.say(below.relay)
    arguments = ["import", str(file), "--data", str(below.relay.data), "--dry-run"]
    shown = await asyncio.to_thread(CliRunner().invoke, command, arguments)
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("relay l3: 1 site; good until ")
    assert lines[1:] == [
        f"  harbour: generation {below.generation + 1}",
        "  2 files to be copied (75.3 KiB), 0 here already",
        "whole and unaltered; nothing was changed",
    ]
    found = json.loads(
        (await asyncio.to_thread(CliRunner().invoke, command, [*arguments, "-o", "json"])).stdout
    )
    assert found["sites"] == {"harbour": {"generation": below.generation + 1, "fresh": True}}
    assert found["process"] == "was not asked"


async def test_a_relay_that_nobody_has_come_by_takes_nothing(plant: Plant) -> None:
    relay = await plant.add_relay("l3")
    await relay.poll()
    await plant.harbour.join("edge", "harbour")
    await plant.assign("1", CONTENT, "harbour")
    error = await refused(plant, relay, await plant.bundle("harbour"))
    assert (error.code, isinstance(error, Rejected)) == ("bundle.wrong_site", False)
