"""What the hub puts into bundles, how a host judges them, and what carried reports change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.carrier.bundle_file import open_bundle, read_reports, write_bundle, write_reports
from skerry.client.bundles import inspect_bundle, manifests_of, names_for
from skerry.hub.bundling import plan_bundle
from skerry.hub.carried_reports import take_carried
from skerry.hub.fleet_facts import FleetFacts
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Missing, Rejected, SkerryError, Unavailable, Untrusted
from skerry.ports.hub_store import DeltaRecord, ReleaseRecord, RolloutRecord
from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import Amount, Assign, HostFact, RolloutFact, SiteFact, WavePlan
from skerry.rollout.states import BY_HAND
from skerry.spec.api_rollout import Control
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component, ModelMount
from skerry.spec.bundle import BundleAnswer, BundleManifest, BundleRequest, CarriedReports
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.hardware import Requirements
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import REPORT_TYPE, ApplicationView, Event, Observed, Report, VariantChoice
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.signing import Publisher
from skerry.trust.bundle import Judged, Taker, judge_bundle
from skerry.trust.envelope import sign_document
from tests.unit.delta_files_of import delta_of
from tests.unit.test_hub_placing import SITE, Harbour, facts

pytestmark = pytest.mark.delivery
replace = msgspec.structs.replace

CODE = {version: f"the program {version}".encode() * 1000 for version in "12"}
WEIGHTS = {
    (v, name): f"{name} {v} ".encode() * 2000 + bytes(i % 251 for i in range(9000))
    for v in "12"
    for name in ("large", "small")
}


def file(path: str, content: bytes) -> FileSpec:
    return FileSpec(path=path, digest=digest_of(content), size_bytes=len(content))


def reader(version: str) -> Release:
    """Return a release with a variant of its model for hosts of 8 GiB, and one for all others."""
    variants = tuple(
        Variant(
            name=name,
            format="onnx",
            requires=Requirements(memory=memory),
            files=(file(f"{name}.onnx", WEIGHTS[version, name]),),
        )
        for name, memory in (("large", "8GiB"), ("small", "1MiB"))
    )
    model = Model(metadata=Metadata("sight"), spec=ModelSpec(version=version, variants=variants))
    main = Component(
        name="main",
        bundle=Bundle(files=(file("run", CODE[version]),)),
        command=("./run",),
        models=(ModelMount(name="sight", version=version),),
    )
    spec = ApplicationSpec(version=version, components=(main,))
    return Release(application=Application(metadata=Metadata("reader"), spec=spec), models=(model,))


class Mine(Harbour):
    """A hub with one site without a link, two hosts, and a publisher."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, hosts=2)
        self.site(reached_by="bundle")
        self.folder = folder
        self.root = self.hub.repository.load("root")
        self.publisher = Publisher().register(self.hub.repository, self.clock.now())

    async def assign(self, version: str) -> ReleaseRecord:
        """Publish a release and have the site run it."""
        wanted = reader(version)
        contents = (CODE[version], WEIGHTS[version, "large"], WEIGHTS[version, "small"])
        for content in (*contents, encode_canonical(wanted)):
            await self.hub.blobs.put(digest_of(content), content)
        signed = self.publisher.vouch(self.hub.repository.load, wanted, self.clock.now())
        document = signed.document
        record = ReleaseRecord(
            name=wanted.name,
            application="reader",
            version=version,
            digest=digest_of(document),
            document=document,
            size_bytes=1,
            created_at=self.clock.now(),
            created_by="ann",
            publisher=self.publisher.name,
        )
        given = {role.role: role.content for role in signed.metadata}
        self.hub.repository.publish(given, self.audit(), release=record)
        rollout = RolloutRecord(
            name=f"to-{version}",
            document=encode_canonical(
                Rollout(metadata=Metadata(f"to-{version}"), spec=RolloutSpec(release=wanted.name, sites="*"))
            ),
            release=wanted.name,
            application="reader",
            created_at=self.clock.now(),
            created_by="ann",
        )
        self.store.apply_documents(sites={}, rollouts=[rollout], audits=())
        await self.loop.step()
        return record

    async def runs(self, name: str, version: str, variant: str = "small") -> None:
        """Let a host report that it runs a release."""
        choice = VariantChoice(model="sight", version=version, variant=variant)
        view = ApplicationView(phase="running", release=f"reader@{version}", choices=(choice,))
        observed = Observed(generation=await self.generation(), applications={"reader": view})
        await self.report(name, observed=observed)

    async def plan(self, **asked: Any) -> BundleAnswer:
        request = BundleRequest(sites=(SITE,), **asked)
        record = self.store.site(SITE)
        assert record is not None
        return await plan_bundle(self.hub, request, [record])

    async def manifest(self, **asked: Any) -> BundleManifest:
        (found,) = manifests_of(await self.plan(**asked))
        return found

    async def write(self, answer: BundleAnswer) -> list[Path]:
        """Write the files of a bundle, as the command line does."""
        manifests = manifests_of(answer)
        names = names_for(self.folder / f"b{len(list(self.folder.glob('b*')))}", len(manifests))
        held = {
            entry.digest: b"".join([chunk async for chunk in self.hub.deltas.readable.read(entry.digest)])
            for manifest in manifests
            for entry in manifest.entries
            if entry.kind in ("blob", "delta")
        }
        for name, envelope, manifest in zip(names, answer.files, manifests, strict=True):
            blob: Callable[[str], Iterator[bytes]] = lambda digest: iter([held[digest]])  # noqa: E731
            write_bundle(name, envelope, manifest, answer.small, blob, tell=lambda _, __: None)
        return names

    def judge(self, path: Path, *, now: datetime | None = None, held: int = 0) -> Judged:
        """Judge a bundle as a host does that has heard of nothing yet."""
        assert self.root is not None
        taker = Taker(
            hub=self.hub.keys.trust_root.hub,
            site=SITE,
            host="edge-0",
            pinned=self.root,
            kept=lambda _: None,
            held_generation=held,
            now=now or self.clock.now(),
        )
        with open_bundle(path) as bundle:
            bundle.check(lambda _, __: None)
            return judge_bundle(bundle.head, bundle.small(), taker)

    def signed(self, name: str, sequence: int, **changes: Any) -> JsonEnvelope:
        at = changes.pop("at", self.clock.now())
        report = Report(host=name, site=SITE, sequence=sequence, sent_at=at, clock=at)
        return sign_document(msgspec.structs.replace(report, **changes), REPORT_TYPE, self.keys[name])


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    return Mine(tmp_path)


def brought(manifest: BundleManifest, host: str = "edge-0") -> set[str]:
    found = manifest.sites[SITE].hosts[host]
    return {manifest.entries[place].brings for place in found.entries}


def all_of(version: str, *names: str) -> set[str]:
    return {digest_of(CODE[version]), *(digest_of(WEIGHTS[version, name]) for name in names)}


async def test_a_host_gets_the_variants_it_will_choose_and_one_that_is_unknown_gets_all(mine: Mine) -> None:
    await mine.report("edge-0", facts=facts(0))
    record = await mine.assign("1")
    answer = await mine.plan()
    (manifest,) = manifests_of(answer)
    assert brought(manifest, "edge-0") == {record.digest, *all_of("1", "small")}
    assert brought(manifest, "edge-1") == {record.digest, *all_of("1", "small", "large")}
    assert any("edge-1 has told no facts" in note for note in answer.notes)
    assert [entry.kind for entry in manifest.entries].count("desired") == 1


@pytest.mark.rule("BUNDLE-1")
async def test_a_host_that_never_heard_of_the_hub_takes_it_after_the_whole_carrying_time(mine: Mine) -> None:
    await mine.assign("1")
    mine.clock.advance(29 * 86400.0)  # what is signed is halfway to its end
    (path,) = await mine.write(await mine.plan(valid_for_s=90 * 86400.0))
    judged = mine.judge(path, now=mine.clock.now() + timedelta(days=89))
    assert (judged.fresh, judged.doubts, judged.desired.generation) == (True, {}, await mine.generation())
    assert judged.desired.hosts == (await mine.desired()).hosts
    with pytest.raises(Untrusted) as caught:
        mine.judge(path, now=judged.manifest.expires_at + timedelta(seconds=1))
    assert caught.value.code == "bundle.expired"


async def test_what_is_signed_offline_for_less_long_is_told(mine: Mine) -> None:
    await mine.assign("1")
    mine.clock.advance(2 * 365 * 86400.0 - 40 * 86400.0)
    await mine.hub.issuer.renew_all()
    answer = await mine.plan()
    assert any("good until" in note for note in answer.notes)
    (manifest,) = manifests_of(answer)
    assert manifest.expires_at < mine.clock.now() + timedelta(days=60)


async def test_what_a_host_says_it_runs_is_left_out_unless_all_is_asked_for(mine: Mine) -> None:
    await mine.all_report_facts()
    await mine.assign("1")
    await mine.runs("edge-0", "1")
    manifest = await mine.manifest()
    assert brought(manifest, "edge-0") == set()
    assert all_of("1", "small") <= brought(manifest, "edge-1")
    assert all_of("1", "small") <= brought(await mine.manifest(full=True), "edge-0")


async def test_what_an_earlier_bundle_brought_is_left_out(mine: Mine) -> None:
    await mine.all_report_facts()
    await mine.assign("1")
    first = await mine.plan()
    again = await mine.manifest(since=first.files[0])
    assert brought(again) == set()
    record = await mine.assign("2")
    assert brought(await mine.manifest(since=first.files[0])) == {record.digest, *all_of("2", "small")}
    forged = sign_document(manifests_of(first)[0], "text/plain", mine.hub.keys.key)
    with pytest.raises(Untrusted):
        await mine.plan(since=forged)


async def test_a_delta_is_put_in_where_all_hosts_hold_what_it_is_made_from(mine: Mine) -> None:
    await mine.all_report_facts()
    await mine.assign("1")
    await mine.runs("edge-0", "1")
    await mine.assign("2")
    old, new = WEIGHTS["1", "small"], WEIGHTS["2", "small"]
    delta = delta_of(old, new)
    await mine.hub.deltas._deltas.put(digest_of(delta), delta)
    mine.store.put_delta(
        DeltaRecord(
            base=digest_of(old),
            target=digest_of(new),
            delta=digest_of(delta),
            size_bytes=len(delta),
            made_at=mine.clock.now(),
        )
    )
    mine.hub.deltas._known = None
    in_full = await mine.manifest()
    assert digest_of(new) in {entry.digest for entry in in_full.entries}, "edge-1 has nothing to make it from"
    await mine.runs("edge-1", "1")
    manifest = await mine.manifest()
    (entry,) = (entry for entry in manifest.entries if entry.kind == "delta")
    assert (entry.base, entry.target, entry.digest) == ((digest_of(old),), digest_of(new), digest_of(delta))
    assert not [entry for entry in (await mine.manifest(full=True)).entries if entry.kind == "delta"]


async def test_a_bundle_that_is_too_large_for_one_file_becomes_several_of_use_each(mine: Mine) -> None:
    await mine.assign("1")
    whole = await mine.manifest()
    answer = await mine.plan(max_size_bytes=100_000)
    paths = await mine.write(answer)
    assert len(paths) > 1
    assert all(path.stat().st_size <= 100_000 for path in paths)
    parts = [mine.judge(path).manifest for path in paths]
    assert [(one.part, one.parts) for one in parts] == [(n, len(paths)) for n in range(1, len(paths) + 1)]
    assert set().union(*(brought(one) for one in parts)) == brought(whole)
    with pytest.raises(Rejected) as caught:
        await mine.plan(max_size_bytes=1 << 16)
    assert caught.value.code == "bundle.too_large"


async def test_a_site_with_nothing_to_bring_or_that_is_held_gets_no_bundle(mine: Mine) -> None:
    with pytest.raises(Rejected) as caught:
        await mine.plan()
    assert caught.value.code == "bundle.nothing"
    await mine.assign("1")
    await mine.hub.blobs.remove(digest_of(CODE["1"]))
    with pytest.raises(Rejected) as caught:
        await mine.plan()
    assert caught.value.code == "release.incomplete"


async def test_a_bundle_is_looked_into_without_a_hub(mine: Mine) -> None:
    await mine.assign("1")
    (path,) = await mine.write(await mine.plan())
    found = inspect_bundle(path, lambda _, __: None)
    assert found.manifest.sites[SITE].hosts["edge-0"].releases == ("reader@1",)
    assert (found.size_bytes, found.signed_by) == (path.stat().st_size, (mine.hub.keys.key.key_id,))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Untrusted) as caught:
        inspect_bundle(path, lambda _, __: None)
    assert caught.value.code == "bundle.altered"


async def test_no_file_is_written_over_and_none_is_left_that_is_not_whole(mine: Mine) -> None:
    await mine.assign("1")
    answer = await mine.plan()
    (manifest,) = manifests_of(answer)
    target = mine.folder / "there"
    target.write_bytes(b"mine")

    def write(path: Path, content: bytes) -> SkerryError:
        with pytest.raises(SkerryError) as caught:
            write_bundle(
                path,
                answer.files[0],
                manifest,
                answer.small,
                lambda _: iter([content]),
                tell=lambda _, __: None,
            )
        return caught.value

    assert isinstance(write(target, b"wrong"), Conflict)
    assert write(mine.folder / "new", b"wrong").code == "bundle.altered"
    assert write(mine.folder / "new", b"wrong" * 10**6).code == "bundle.altered"
    assert isinstance(write(mine.folder / "no" / "folder", b""), Unavailable)
    assert target.read_bytes() == b"mine"
    assert not [path for path in mine.folder.iterdir() if path.name.startswith("new")]


# ── the way back ─────────────────────────────────────────────────────────────────────────────────────


async def bring(mine: Mine, *envelopes: JsonEnvelope) -> int:
    """Hand carried reports over as the API does; return how many were new."""
    return (await take_carried(mine.hub, CarriedReports(reports=envelopes))).taken


@pytest.mark.rule("BUNDLE-3")
async def test_carried_reports_count_once_and_as_of_when_they_were_written(mine: Mine) -> None:
    then = mine.clock.now()
    event = Event(at=then, kind="component.ended", message="once")
    envelopes = (
        mine.signed("edge-0", 5, events=(event,)),
        mine.signed("edge-0", 6, after=5, facts=facts(0), observed=Observed(generation=1)),
    )
    mine.clock.advance(20 * 86400.0)
    assert await bring(mine, *envelopes) == 2
    assert await bring(mine, *envelopes) == 0
    host = mine.store.host("edge-0")
    assert host is not None
    assert (host.sequence, host.last_seen_at, host.observed_at) == (6, then, then)
    assert [one.event.message for one in mine.store.events(host="edge-0", limit=9)] == ["once"]
    with pytest.raises(Conflict):
        await bring(mine, mine.signed("edge-0", 9, after=8))


async def test_carried_reports_that_a_stranger_signed_or_of_two_hosts_change_nothing(mine: Mine) -> None:
    other = mine.signed("edge-1", 5)
    forged = {**mine.signed("edge-0", 6), "payload": other["payload"]}
    for envelopes in ((forged,), (mine.signed("edge-0", 5), other)):
        with pytest.raises(Untrusted):
            await bring(mine, *envelopes)
    for name in ("edge-0", "edge-1"):
        record = mine.store.host(name)
        assert record is not None and record.last_seen_at is None


def test_reports_survive_their_file_in_order_and_in_parts_of_bounded_size(tmp_path: Path, mine: Mine) -> None:
    path = tmp_path / "reports"
    long = "x" * 4000
    events = tuple(Event(at=mine.clock.now(), kind="k", message=long) for _ in range(100))
    envelopes = [mine.signed("edge-0", n, events=events if n % 2 else ()) for n in range(1, 240)]
    write_reports(path, envelopes)
    parts = list(read_reports(path))
    assert [one for part in parts for one in part.reports] == envelopes
    whole = path.read_bytes()
    for length in (0, 5, 19, 400, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises((Rejected, Untrusted)) as caught:
            list(read_reports(path))
        assert caught.value.code in ("reports.foreign", "reports.truncated")
    with pytest.raises(Missing):
        list(read_reports(tmp_path / "absent"))


# ── rollouts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("BUNDLE-4")
async def test_a_rollout_offers_to_a_site_without_a_link_and_waits_for_its_reports(mine: Mine) -> None:
    await mine.assign("1")
    assert await mine.progress("to-1") == ("unreachable", BY_HAND)
    mine.clock.advance(60 * 86400.0)
    assert (await mine.progress("to-1"))[0] == "unreachable"
    rollout = mine.store.rollout("to-1")
    assert rollout is not None and rollout.state == "running"
    generation = await mine.generation()
    view = ApplicationView(phase="running", release="reader@1")
    observed = Observed(generation=generation, applications={"reader": view})
    then = mine.clock.now() - timedelta(days=40)
    for number, name in enumerate(("edge-0", "edge-1")):
        assert (await mine.progress("to-1"))[0] == "unreachable"
        await bring(mine, mine.signed(name, 5, at=then, facts=facts(number), observed=observed))
    assert (await mine.progress("to-1"))[0] == "succeeded"


@pytest.mark.rule("BUNDLE-4")
def test_a_site_without_a_link_takes_no_room_in_its_wave_and_holds_no_later_wave_up() -> None:
    now = SimulatedClock().now()
    waves = (
        WavePlan("first", size=Amount(count=3), max_in_flight=Amount(count=1)),
        WavePlan("rest"),
    )
    fleet = [
        SiteFact("linked", (HostFact("a", holds_offer=False),)),
        *(
            SiteFact(f"mine-{n}", (HostFact(f"b{n}", holds_offer=False),), reachable=False, by_hand=True)
            for n in "123"
        ),
    ]
    rollout = RolloutFact(name="r", release="reader@1", waves=waves)
    begun = decide_rollout(rollout, fleet, now=now)
    first = {name for name, one in begun.sites.items() if one.wave == 0}
    assert "linked" in first and len(first) == 3
    assert set(begun.effects) == {Assign(name, "reader@1") for name in first}
    assert {begun.sites[name].state for name in first} == {"offered", "unreachable"}
    given = [
        replace(site, assigned="reader@1", assigned_by="r") if site.name in first else site for site in fleet
    ]
    given[0] = replace(given[0], hosts=(HostFact("a", holds_offer=True, running="reader@1"),))
    stored = replace(rollout, sites=begun.sites, progress=begun.waves)
    after = decide_rollout(stored, given, now=now)
    (last,) = after.effects
    assert last == Assign(({site.name for site in fleet} - first).pop(), "reader@1"), (
        "the next wave has begun"
    )
    assert after.state == "running", "nobody knows yet what became of the others"
    assert not decide_rollout(replace(stored, control=Control(paused="wait")), given, now=now).effects


async def test_a_silent_site_with_a_link_is_offered_nothing(mine: Mine) -> None:
    mine.site()
    await mine.assign("1")
    assert (await mine.progress("to-1"))[0] == "unreachable"
    record = mine.store.rollout("to-1")
    assert record is not None
    fleet = FleetFacts(mine.store, mine.hub.issuer).load(
        record, mine.clock.now(), mine.hub.backend.presence.fresh
    )
    assert [(site.by_hand, site.assigned) for site in fleet.sites] == [(False, "")]
