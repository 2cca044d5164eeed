"""What bringing a release takes, over the operator API: against another release, over links, and file by file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH, OperatorApi
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import DeltaRecord, TokenRecord
from skerry.spec.api import Role
from skerry.spec.api_delivery import (
    DeltaOrdered,
    FieldChange,
    HostDelivery,
    ReleaseDiff,
    SiteTraffic,
    TrafficPreview,
)
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component, ModelMount
from skerry.spec.hardware import Requirements
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, VariantChoice
from skerry.spec.site import LinkWindow, Site, SiteLink, SiteSpec
from skerry.trust.tokens import hash_secret
from tests.unit.test_hub_preview import Fleet, host_facts

pytestmark = pytest.mark.delivery

KIB = 1 << 10
ROLES: tuple[Role, ...] = ("viewer", "operator")
V = TypeVar("V")


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def placed(path: str, content: bytes) -> FileSpec:
    return FileSpec(path=path, digest=digest_of(content), size_bytes=len(content))


CODE = {version: noise(f"code {version}", 64 * KIB) for version in "12"}
WEIGHTS = {
    (version, variant): noise(f"{variant} {version}", size)
    for version in "12"
    for variant, size in (("int8", 100 * KIB), ("fp16", 200 * KIB))
}
SAME = noise("same", 10 * KIB)


def reader(version: str) -> Release:
    """Return a release of a program and a model with a variant for everybody and one for large hosts."""
    variants = tuple(
        Variant(
            name=name,
            format="onnx",
            requires=Requirements(memory=memory),
            files=(placed(f"{name}.onnx", WEIGHTS[version, name]),),
        )
        for name, memory in (("fp16", "8GiB"), ("int8", "1GiB"))
    )
    model = Model(metadata=Metadata("sight"), spec=ModelSpec(version=version, variants=variants))
    main = Component(
        name="main",
        bundle=Bundle(files=(placed("run", CODE[version]), placed("same", SAME))),
        command=("./run",),
        models=(ModelMount(name="sight", version=version),),
    )
    spec = ApplicationSpec(version=version, components=(main,))
    return Release(application=Application(metadata=Metadata("reader"), spec=spec), models=(model,))


class World(Fleet):
    """A hub with releases 1 and 2 of the reader."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for role in ROLES:
            now = self.clock.now()
            record = TokenRecord(id=role, name=role, hash=hash_secret(role), role=role, created_at=now)
            self.hub.store.add_token(record, self.audit())
        for version in "12":
            self.push(reader(version))

    async def upload(self) -> None:
        """Let the hub hold the files of both releases, so that deltas can be made."""
        for content in (*CODE.values(), *WEIGHTS.values(), SAME):
            await self.hub.blobs.put(digest_of(content), content)

    def linked(self, name: str, **link: Any) -> None:
        site = Site(metadata=Metadata(name), spec=SiteSpec(link=SiteLink(**link)))
        self.hub.store.apply_documents(sites={name: encode_canonical(site)}, rollouts=[], audits=[])

    def runs(self, name: str, site: str, memory: int = 4, *, version: str = "1", why: str = "fits") -> None:
        """Add a host that runs a release of the reader, or none."""
        variant = "fp16" if memory >= 8 else "int8"
        choice = VariantChoice(model="sight", version=version, variant=variant, why=(why,))
        view = ApplicationView(phase="running", release=f"reader@{version}", choices=(choice,))
        self.host(name, site, host_facts(memory), {"reader": view} if version else None)

    async def know(self, base: tuple[bytes, ...], target: bytes, size: int) -> None:
        """Let the hub know of a delta that was made."""
        delta = noise(f"{size}", size)
        await self.hub.deltas._deltas.put(digest_of(delta), delta)  # pyright: ignore[reportPrivateUsage]
        record = DeltaRecord(
            base="+".join(map(digest_of, base)),
            target=digest_of(target),
            delta=digest_of(delta),
            size_bytes=size,
            made_at=self.clock.now(),
        )
        self.hub.store.put_delta(record)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Caller:
    """Somebody with a role."""

    def __init__(self, client: httpx2.AsyncClient, role: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {role}"}

    async def get(self, path: str, kind: type[V], **params: str) -> V:
        answer = await self._client.get(path, params=params, headers=self._headers)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=kind)

    async def fails(self, path: str, **params: str) -> tuple[int, str]:
        answer = await self._client.get(path, params=params, headers=self._headers)
        return answer.status_code, answer.json()["code"]

    async def order(self, release: str, **body: str) -> httpx2.Response:
        return await self._client.post(f"/releases/{release}/deltas", json=body, headers=self._headers)


@pytest.fixture
async def client(world: World) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(OperatorApi(world.hub))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=f"https://hub{API_PATH}") as made:
        yield made


@pytest.fixture
def viewer(client: httpx2.AsyncClient) -> Caller:
    return Caller(client, "viewer")


@pytest.fixture
def operator(client: httpx2.AsyncClient) -> Caller:
    return Caller(client, "operator")


async def traffic(viewer: Caller, selector: str = "*", release: str = "reader@2") -> TrafficPreview:
    return await viewer.get(f"/releases/{release}/traffic", TrafficPreview, selector=selector)


FIRST_INT8 = len(CODE["2"]) + len(WEIGHTS["2", "int8"]) + len(SAME)
NEXT_INT8 = len(CODE["2"]) + len(WEIGHTS["2", "int8"])
NEXT_FP16 = len(CODE["2"]) + len(WEIGHTS["2", "fp16"])


# ── traffic ──────────────────────────────────────────────────────────────────────────────────────────


async def test_each_site_fetches_what_its_hosts_do_not_hold_by_the_variant_they_would_take(
    world: World, viewer: Caller
) -> None:
    for site in ("harbour", "airport", "empty"):
        world.linked(site)
    world.runs("small", "harbour", why="has 4 GiB")
    world.runs("large", "harbour", 16)
    world.runs("new", "airport", version="")
    found = await traffic(viewer)
    assert found.sites == (
        SiteTraffic(
            site="harbour", hosts=2, size_bytes=NEXT_INT8 + NEXT_FP16, full_bytes=NEXT_INT8 + NEXT_FP16
        ),
        SiteTraffic(site="airport", hosts=1, size_bytes=FIRST_INT8, full_bytes=FIRST_INT8),
    )
    assert (found.size_bytes, found.full_bytes) == (
        NEXT_INT8 + NEXT_FP16 + FIRST_INT8,
        NEXT_INT8 + NEXT_FP16 + FIRST_INT8,
    )
    assert found.oldest_facts_at == world.clock.now()
    assert [site.site for site in (await traffic(viewer, "name=airport")).sites] == ["airport"]
    (again,) = (await traffic(viewer, "name=harbour", release="reader@1")).sites
    assert (again.size_bytes, again.full_bytes) == (0, 0), "all of them run it"


async def test_the_host_with_most_to_fetch_says_how_long_a_site_takes_on_its_share_of_the_link(
    world: World, viewer: Caller
) -> None:
    world.linked("harbour", rate="64KiB/s")
    world.runs("small", "harbour")
    world.runs("large", "harbour", 16)
    world.host("odd", "harbour", host_facts(0))
    (site,) = (await traffic(viewer)).sites
    assert (site.hosts, site.unmatched, site.never) == (2, 1, False)
    assert site.duration_s == pytest.approx(NEXT_FP16 / (64 * KIB / 3), rel=0.01), "a third is each host's"


async def test_a_budget_spreads_it_over_days_and_a_closed_link_lets_nothing_through(
    world: World, viewer: Caller
) -> None:
    world.linked("daily", per_day="100KiB")
    world.linked("closed", rate="0")
    world.linked("nightly", rate="0", windows=(LinkWindow(cron="0 22 * * *", duration="1h", rate="1MiB/s"),))
    world.linked("free")
    for site in ("daily", "closed", "nightly", "free"):
        world.runs(f"h-{site}", site)
    found = (await traffic(viewer)).sites
    assert [site.site for site in found] == ["closed", "daily", "nightly", "free"]
    closed, daily, nightly, free = found
    assert (closed.never, closed.duration_s) == (True, None)
    assert nightly.duration_s == pytest.approx(22 * 3600, abs=60), "the clock of the test begins at midnight"
    assert daily.duration_s == pytest.approx(86400, abs=1), "164 KiB at 100 KiB a day"
    assert (free.never, free.duration_s) == (False, None), "no rate is stated"


async def test_who_runs_it_already_waits_for_nothing_even_on_a_closed_link(
    world: World, viewer: Caller
) -> None:
    world.linked("closed", rate="0")
    world.runs("done", "closed", version="2")
    assert (await traffic(viewer)).sites == (SiteTraffic(site="closed", hosts=1, size_bytes=0, full_bytes=0),)


async def test_hosts_that_would_get_nothing_are_counted_apart(world: World, viewer: Caller) -> None:
    world.linked("harbour")
    world.host("small", "harbour", host_facts(0))
    world.host("unknown", "harbour", {})
    assert (await traffic(viewer)).sites == (
        SiteTraffic(site="harbour", hosts=0, size_bytes=0, full_bytes=0, unmatched=2),
    )


async def test_deltas_that_there_are_make_it_less_and_those_being_made_are_said(
    world: World, viewer: Caller, operator: Caller
) -> None:
    world.linked("harbour", rate="64KiB/s")
    world.runs("small", "harbour")
    await world.upload()
    await world.know((CODE["1"],), CODE["2"], 500)
    await world.know((), CODE["2"], 900)
    known = await traffic(viewer)
    (site,) = known.sites
    assert (site.size_bytes, site.full_bytes) == (500 + len(WEIGHTS["2", "int8"]), NEXT_INT8)
    assert (known.pending, known.left_s) == (0, 0.0)

    answer = await operator.order("reader@2", selector="*")
    assert answer.status_code == 202
    ordered = msgspec.json.decode(answer.content, type=DeltaOrdered)
    assert (ordered.deltas, ordered.pending) == (4, 2)
    assert ordered.left_s > 0
    pending = await traffic(viewer)
    assert (pending.pending, pending.sites[0].pending, pending.left_s > 0) == (2, 1, True)
    assert pending.size_bytes == known.size_bytes, "what is not made yet counts in full"


# ── the differences of two releases ──────────────────────────────────────────────────────────────────


async def test_a_diff_says_what_changed_and_what_each_way_takes(
    world: World, viewer: Caller, operator: Caller
) -> None:
    await world.upload()
    await world.know((CODE["1"],), CODE["2"], 500)
    await world.know((), CODE["2"], 900)
    diff = await viewer.get("/releases/reader@2/diff", ReleaseDiff, old="reader@1")
    assert (diff.old, diff.new, diff.pending) == ("reader@1", "reader@2", 0)
    assert FieldChange(path="application.spec.version", before="1", after="2") in diff.fields
    assert [(f.owner, f.path, f.change, f.compressed_bytes, f.delta_bytes) for f in diff.files] == [
        ("bundle main", "run", "changed", 900, 500),
        ("model sight (fp16)", "fp16.onnx", "changed", None, None),
        ("model sight (int8)", "int8.onnx", "changed", None, None),
    ]
    assert [(v.owner, v.files, v.full_bytes, v.size_bytes) for v in diff.variants] == [
        ("bundle main", 1, len(CODE["2"]), 500),
        ("model sight (fp16)", 1, 200 * KIB, 200 * KIB),
        ("model sight (int8)", 1, 100 * KIB, 100 * KIB),
    ]
    assert diff.unchanged_files == 1

    answer = await operator.order("reader@2", old="reader@1")
    assert msgspec.json.decode(answer.content, type=DeltaOrdered).pending == 4
    diff = await viewer.get("/releases/reader@2/diff", ReleaseDiff, old="reader@1")
    assert (diff.pending, [f.pending for f in diff.files]) == (4, [False, True, True])
    assert diff.left_s > 0
    queued = set(world.hub.deltas._ahead)  # pyright: ignore[reportPrivateUsage]
    assert queued == {
        (base, digest_of(WEIGHTS["2", name]))
        for name in ("fp16", "int8")
        for base in ((digest_of(WEIGHTS["1", name]),), ())
    }


async def test_a_release_does_not_differ_from_itself(world: World, viewer: Caller) -> None:
    diff = await viewer.get("/releases/reader@2/diff", ReleaseDiff, old="reader@2")
    assert (diff.fields, diff.files, diff.pending, diff.unchanged_files) == ((), (), 0, 4)


async def test_what_is_ordered_is_made_and_told(world: World, viewer: Caller, operator: Caller) -> None:
    await world.upload()
    base = CODE["1"]
    close = base[:30_000] + b"other" + base[30_000:]
    await world.hub.blobs.put(digest_of(close), close)
    main = Component(name="main", bundle=Bundle(files=(placed("run", close),)), command=("./run",))
    spec = ApplicationSpec(version="3", components=(main,))
    world.push(Release(application=Application(metadata=Metadata("reader"), spec=spec)))
    making = asyncio.create_task(world.hub.deltas.run_forever())
    try:
        for _ in range(2000):
            answer = await operator.order("reader@3", old="reader@1")
            if not msgspec.json.decode(answer.content, type=DeltaOrdered).pending:
                break
            await asyncio.sleep(0.01)
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    diff = await viewer.get("/releases/reader@3/diff", ReleaseDiff, old="reader@1")
    (run,) = [file for file in diff.files if file.path == "run"]
    assert run.delta_bytes is not None and run.delta_bytes < 2000
    assert run.compressed_bytes == run.size_bytes, "noise does not pack: it would be fetched as it is"


# ── how it comes to one host ─────────────────────────────────────────────────────────────────────────


async def test_a_host_is_told_file_by_file(world: World, viewer: Caller) -> None:
    world.linked("harbour")
    world.runs("small", "harbour")
    await world.upload()
    await world.know((CODE["1"],), CODE["2"], 500)
    await world.know((), CODE["2"], 900)
    await world.know((), WEIGHTS["2", "int8"], 800)
    view = await viewer.get("/releases/reader@2/delivery", HostDelivery, host="small")
    assert (view.host, view.release, view.before, view.here) == ("small", "reader@2", "reader@1", 1)
    assert (view.size_bytes, view.full_bytes) == (500 + 800, NEXT_INT8)
    assert view.as_of == world.clock.now()
    assert [(f.owner, f.path, f.way, f.way_bytes, f.bases) for f in view.files] == [
        ("bundles/main", "run", "delta", 500, 1),
        ("models/sight", "int8.onnx", "compressed", 800, 1),
    ]
    done = await viewer.get("/releases/reader@1/delivery", HostDelivery, host="small")
    assert (done.files, done.here, done.size_bytes) == ((), 3, 0)


async def test_a_host_that_has_nothing_fetches_all_of_it_in_full(world: World, viewer: Caller) -> None:
    world.linked("harbour")
    world.runs("new", "harbour", version="")
    view = await viewer.get("/releases/reader@2/delivery", HostDelivery, host="new")
    assert (view.before, view.here, view.size_bytes) == ("", 0, FIRST_INT8)
    assert {(f.way, f.bases) for f in view.files} == {("full", 0)}


async def test_a_host_that_would_get_nothing_is_told_why(world: World, viewer: Caller) -> None:
    world.linked("harbour")
    world.host("small", "harbour", host_facts(0))
    world.host("unknown", "harbour", {})
    small = await viewer.get("/releases/reader@2/delivery", HostDelivery, host="small")
    assert small.files == () and any("memory" in reason for reason in small.reasons)
    unknown = await viewer.get("/releases/reader@2/delivery", HostDelivery, host="unknown")
    assert unknown.reasons == ("no facts yet",)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_not_there_is_said_to_be_missing(
    world: World, viewer: Caller, operator: Caller
) -> None:
    world.linked("harbour")
    world.runs("small", "harbour")
    release, host = (404, "release.missing"), (404, "host.missing")
    assert await viewer.fails("/releases/reader@9/diff", old="reader@1") == release
    assert await viewer.fails("/releases/reader@2/diff", old="reader@9") == release
    assert await viewer.fails("/releases/reader@9/traffic") == release
    assert await viewer.fails("/releases/reader@9/delivery", host="small") == release
    assert await viewer.fails("/releases/reader@2/delivery", host="nobody") == host
    assert (await viewer.fails("/releases/reader@2/traffic", selector="="))[0] == 400
    assert (await operator.order("reader@9", old="reader@1")).status_code == 404
    assert (await operator.order("reader@2", old="reader@9")).status_code == 404
    assert (await operator.order("reader@2", selector="=")).status_code == 400
    assert (await operator.order("reader@2", other="x")).status_code == 400


async def test_who_may_only_look_orders_nothing(world: World, viewer: Caller, operator: Caller) -> None:
    await world.upload()
    assert (await viewer.order("reader@2", old="reader@1")).status_code == 403
    diff = await viewer.get("/releases/reader@2/diff", ReleaseDiff, old="reader@1")
    assert diff.pending == 0
    assert (await operator.order("reader@2", old="reader@1")).status_code == 202
