"""What the hub has made ahead is what hosts will ask for, because both look with the same eyes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.agent.releases import Releases
from skerry.hub.deltas import Pair
from skerry.hub.foreseeing import MIN_LAYER_BYTES, foresee_deltas, foresee_release
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import AppliedReport, Audit, HostRecord, HubStore, JoinTokenRecord, RolloutRecord
from skerry.spec.application import Bundle
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.hardware import GpuRequirement, Requirements
from skerry.spec.image import ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, Observed, VariantChoice
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import settle
from skerry.testing.hub_parts import memory_hub
from skerry.testing.memory import MemoryLocalBlobs
from skerry.testing.waiting import eventually
from tests.unit.matching_world import component, facts, gpus, release
from tests.unit.release_records import record_of

pytestmark = pytest.mark.delivery

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN: HostFacts = facts(arch="x86_64", engine="podman", gpu__count=0)
WITH_GPU: HostFacts = PLAIN | gpus(("nvidia", 8, "8.6", "550"))


CONTENTS: dict[str, bytes] = {}
"""What is behind the digests of the releases here."""


def blob(content: str, path: str = "blob", size_bytes: int = 9000) -> FileSpec:
    CONTENTS[digest_of(content.encode())] = content.encode()
    return FileSpec(path=path, digest=digest_of(content.encode()), size_bytes=size_bytes)


def version(number: int, *, layers: tuple[str, ...] = ("os", "app 1"), weights: str = "w1") -> Release:
    """Return a release with an image, a bundle, and a model with a variant for GPUs and one for all."""

    def picture(name: str, requires: Requirements) -> ImageVariant:
        contents = tuple(blob(f"{name} {layer}", f"{n}.tar") for n, layer in enumerate(layers))
        config = blob(f"{name} config {layers}", "config.json", 5000)
        return ImageVariant(name=name, requires=requires, config=config, layers=contents)

    def mind(name: str, requires: Requirements) -> Variant:
        files = (blob(f"{name} {weights}", f"{name}.onnx"), blob(f"{name} {weights} tiny", "tiny", 100))
        return Variant(name=name, format="onnx", requires=requires, files=files)

    gpu = Requirements(gpu=GpuRequirement())
    bundle = Bundle(files=(blob(f"run {number}", "run"), blob("kept", "kept")))
    made = release(
        component(images=(picture("cuda", gpu), picture("cpu", Requirements()))),
        msgspec.structs.replace(component("side", models=("mind",)), bundle=bundle),
        models={"mind": (mind("large", gpu), mind("small", Requirements()))},
    )
    replace = msgspec.structs.replace
    components = tuple(
        replace(one, models=tuple(replace(mount, version=str(number)) for mount in one.models))
        for one in made.application.spec.components
    )
    spec = replace(made.application.spec, version=str(number), components=components)
    models = tuple(replace(model, spec=replace(model.spec, version=str(number))) for model in made.models)
    return replace(made, application=replace(made.application, spec=spec), models=models)


OLD, NEW = version(1), version(2, layers=("os", "app 2"), weights="w2")


class Host:
    """The releases of one host, with everything it runs on its disk."""

    def __init__(self, folder: Path, known: HostFacts) -> None:
        self.blobs = MemoryLocalBlobs(folder / "blobs")
        self.releases = Releases(folder / "releases", self.blobs, device_is_there=lambda _: True)
        self.releases.set_facts(known, SitePolicy())

    def learn(self, of: Release) -> str:
        document = encode_canonical(of)
        self.blobs.put(digest_of(document), document)
        fact = self.releases.fact(digest_of(document))
        assert fact is not None
        assert not fact.problem, fact.problem
        return digest_of(document)

    def hold(self, of: Release) -> None:
        for file in self.releases.missing(self.learn(of)):
            self.blobs.put(str(file.digest), CONTENTS[str(file.digest)])

    def choices(self, of: Release) -> tuple[VariantChoice, ...]:
        fact = self.releases.fact(self.learn(of))
        assert fact is not None
        return fact.choices

    def asks_first(self, new: Release, old: Release) -> set[Pair]:
        bases = self.releases.bases(self.learn(new), self.learn(old))
        return {(options[0], target) for target, options in bases.items()}


def enroll(store: HubStore, name: str, site: str, view: ApplicationView | None) -> None:
    audit = Audit(at=NOW, who="test", action="host.enroll", subject=name)
    token = JoinTokenRecord(
        hash=name, site=site, created_at=NOW, expires_at=NOW + timedelta(hours=1), uses_left=1
    )
    store.add_join_token(token, audit)
    store.enroll_host(
        name, HostRecord(name=name, site=site, sign_key=name, seal_key=name, enrolled_at=NOW), audit
    )
    if view is not None:
        observed = Observed(applications={"app": view})
        report = AppliedReport(
            host=name,
            site=site,
            sequence=1,
            seen_at=NOW,
            sent_at=NOW,
            clock_offset_s=0.0,
            generation=0,
            observed=observed,
        )
        store.apply_reports([report])


def add_sites(store: HubStore, **labels: str) -> None:
    documents = {
        name: msgspec.json.encode(Site(metadata=Metadata(name, {"kind": kind}), spec=SiteSpec()))
        for name, kind in labels.items()
    }
    store.apply_documents(sites=documents, rollouts=(), audits=())


def add_release(store: HubStore, of: Release) -> None:
    store.add_release(record_of(of, NOW), Audit(at=NOW, who="ann", action="push", subject=of.name))


def rollout(to: Release = NEW, *, sites: str = "*", attempt: int = 1, name: str = "r1") -> RolloutRecord:
    document = Rollout(metadata=Metadata(name), spec=RolloutSpec(release=to.name, sites=sites))
    return RolloutRecord(
        name=name,
        document=msgspec.json.encode(document),
        release=to.name,
        application="app",
        created_at=NOW,
        created_by="ann",
        attempt=attempt,
    )


def runs(of: Release, choices: tuple[VariantChoice, ...]) -> ApplicationView:
    return ApplicationView(phase="running", release=of.name, choices=choices)


@pytest.fixture
def store() -> Generator[HubStore]:
    opened = SqlHubStore.open(None)
    fill(opened, OLD, NEW)
    yield opened
    opened.close()


def fill(store: HubStore, *releases: Release) -> None:
    add_sites(store, harbour="port", quarry="pit")
    for one in releases:
        add_release(store, one)


@pytest.mark.parametrize("known", (PLAIN, WITH_GPU), ids=("plain", "with a GPU"))
def test_what_is_foreseen_is_what_a_host_asks_for_first(
    store: HubStore, tmp_path: Path, known: HostFacts
) -> None:
    host = Host(tmp_path / "host", known)
    host.hold(OLD)
    enroll(store, "edge", "harbour", runs(OLD, host.choices(OLD)))
    asked = host.asks_first(NEW, OLD)
    foreseen = foresee_deltas(store, rollout())
    assert len(foreseen) == len(set(foreseen))
    assert set(foreseen) == asked
    chosen, image = ("large", "cuda") if known is WITH_GPU else ("small", "cpu")
    expected = {f"{chosen} w1": f"{chosen} w2", f"{image} app 1": f"{image} app 2", "run 1": "run 2"}
    pairs = {((str(blob(old).digest),), str(blob(new).digest)) for old, new in expected.items()}
    assert asked >= pairs
    assert len(asked) == len(pairs) + 1, (
        "and the image's configuration; what is tiny or kept is not asked for"
    )


@settings(max_examples=15)
@given(
    layers=st.sampled_from((("os", "app 1"), ("os", "app 2"), ("os",), ("os", "a", "b"))),
    weights=st.sampled_from(("w1", "w2")),
    gpu=st.booleans(),
)
def test_whatever_changes_both_find_the_same(
    layers: tuple[str, ...], weights: str, gpu: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("both")
    to = version(2, layers=layers, weights=weights)

    store = SqlHubStore.open(None)
    fill(store, OLD, to)
    host = Host(folder / "host", WITH_GPU if gpu else PLAIN)
    host.hold(OLD)
    enroll(store, "edge", "harbour", runs(OLD, host.choices(OLD)))
    assert set(foresee_deltas(store, rollout(to))) == host.asks_first(to, OLD)
    store.close()


def test_what_most_hosts_need_comes_first_however_they_say_why_they_chose(
    store: HubStore, tmp_path: Path
) -> None:
    plain, gpu = Host(tmp_path / "plain", PLAIN), Host(tmp_path / "gpu", WITH_GPU)
    for number in range(5):
        host = plain if number < 3 else gpu
        choices = tuple(
            msgspec.structs.replace(choice, why=(f"host {number} has 8 GiB",)) for choice in host.choices(OLD)
        )
        enroll(store, f"edge-{number}", "harbour", runs(OLD, choices))
    foreseen = foresee_deltas(store, rollout())
    by_all = ((str(blob("run 1").digest),), str(blob("run 2").digest))
    assert foreseen[0] == by_all
    needed = Counter[str]()
    for pairs, hosts in ((plain.asks_first(NEW, OLD), 3), (gpu.asks_first(NEW, OLD), 2)):
        needed.update({target: hosts for _, target in pairs})
    counts = [needed[target] for _, target in foreseen]
    assert counts == sorted(counts, reverse=True)
    assert {target for _, target in foreseen} == {
        target for target in needed if any(target == to for _, to in foreseen)
    }


def test_hosts_elsewhere_without_the_application_or_there_already_need_nothing(
    store: HubStore, tmp_path: Path
) -> None:
    choices = Host(tmp_path / "host", PLAIN).choices(OLD)
    enroll(store, "silent", "harbour", None)
    enroll(store, "without", "harbour", ApplicationView(phase="pending"))
    enroll(store, "there", "harbour", runs(NEW, choices))
    enroll(store, "unknown", "harbour", ApplicationView(phase="running", release="app@0", choices=choices))
    assert foresee_deltas(store, rollout()) == []
    enroll(store, "elsewhere", "quarry", runs(OLD, choices))
    assert foresee_deltas(store, rollout(sites="kind=port")) == []
    assert foresee_deltas(store, rollout(sites="kind=pit")) != []
    assert foresee_deltas(store, rollout(version(9))) == [], "a release that is not there"


def test_layers_that_are_worth_it_are_packed_as_soon_as_a_release_is_there() -> None:
    large, small = blob("large", size_bytes=MIN_LAYER_BYTES), blob("small", size_bytes=MIN_LAYER_BYTES - 1)
    both = tuple(
        ImageVariant(
            name=name, requires=Requirements(), config=blob("config", "config.json"), layers=(large, small)
        )
        for name in ("one", "two")
    )
    assert set(foresee_release(release(component(images=both)))) == {((), str(large.digest))}
    assert foresee_release(version(1)) == [], "neither bundles nor models, nor layers of some kilobytes"


async def test_the_loop_looks_once_for_a_rollout_and_again_for_its_next_attempt(tmp_path: Path) -> None:
    hub = memory_hub(tmp_path / "hub")
    fill(hub.store, OLD, NEW)
    host = Host(tmp_path / "host", PLAIN)
    host.hold(OLD)
    enroll(hub.store, "edge", "harbour", runs(OLD, host.choices(OLD)))
    loop, looked = hub.ahead, list[tuple[str, str]]()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(loop.run_forever())

        async def until_looked(times: int) -> None:
            async def look() -> bool:
                looked[:] = [(log["event"], log["rollout"]) for log in logs if "rollout" in log]
                return len(looked) >= times

            await eventually(look)
            await settle()
            assert len(looked) == times

        for _ in range(3):
            loop.follow([rollout()])
        await until_looked(1)
        loop.follow([rollout()])
        loop.follow([rollout(), rollout(name="r2")])
        await until_looked(2)
        broken = msgspec.structs.replace(rollout(name="r3"), document=b"{}")
        for more in ((), (), (rollout(name="r4"),)):
            loop.follow([rollout(attempt=2), broken, rollout(name="r2"), *more])
        await until_looked(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    hub.store.close()
    assert looked == [
        ("deltas.foreseen", "r1"),
        ("deltas.foreseen", "r2"),
        ("deltas.foreseen", "r1"),
        ("deltas.not_foreseen", "r3"),
        ("deltas.foreseen", "r4"),
    ]


async def test_what_is_foreseen_waits_in_the_queue_when_hosts_ask_for_it(tmp_path: Path) -> None:
    hub = memory_hub(tmp_path / "hub")
    fill(hub.store, OLD, NEW)
    host = Host(tmp_path / "host", PLAIN)
    host.hold(OLD)
    enroll(hub.store, "edge", "harbour", runs(OLD, host.choices(OLD)))
    for file in (*OLD.files(), *NEW.files()):
        await hub.blobs.put(str(file.digest), CONTENTS[str(file.digest)])
    asked = host.asks_first(NEW, OLD)
    assert await hub.deltas.sizes(asked) == {}
    await hub.deltas.prepare(foresee_deltas(hub.store, rollout()))
    assert await hub.deltas.sizes(asked) == dict.fromkeys(asked)
    hub.store.close()
