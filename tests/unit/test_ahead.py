"""What a host fetches ahead: after everything else, kept while it is named, and never started before it is assigned."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skerry.agent.fetcher import Fetcher, Priority
from skerry.agent.fetching_progress import TELL_EVERY_S, ProgressMeter
from skerry.kit.digests import digest_of
from skerry.spec.desired import DiskPolicy, SitePolicy
from skerry.spec.hardware import Requirements
from skerry.spec.report import FetchProgress
from tests.unit.agent_world import Agent, Upstream, agent

pytestmark = pytest.mark.delivery

OLD, NEW, NEXT = (random.Random(number).randbytes(30_000) for number in (1, 2, 3))


def priority(made: Agent, digest: str) -> Priority | None:
    download = made.fetcher._downloads.get(digest)  # pyright: ignore[reportPrivateUsage]
    return download.priority if download else None


async def test_it_is_fetched_and_neither_laid_out_nor_started_and_assigned_later_it_is_here(
    tmp_path: Path,
) -> None:
    link = Upstream()
    old, new = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old})
        await made.until(lambda: made.runs("1"))
        await made.desire(2, {"1": old}, {"2": new})
        await made.until(lambda: made.ahead("2") == "fetched", what="fetching ahead")
        await made.steps()
        assert made.blobs.has(digest_of(NEW))
        assert made.releases.laid_out() == {old.digest}
        assert {view.labels["release"] for view in (await made.runtime.instances()).values()} == {old.digest}
        assert made.observed.applications["reader"].candidate == ""

        asked = list(link.fetched)
        await made.desire(3, {"2": new})
        await made.until(lambda: made.runs("2"))
        assert link.fetched == asked, "nothing is fetched a second time"
        assert made.observed.ahead == {}


async def test_it_goes_after_everything_else(tmp_path: Path) -> None:
    link = Upstream()
    old, new, later = link.release("1", OLD), link.release("2", NEW), link.release("3", NEXT)
    seen: list[Priority | None] = []
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old})
        await made.until(lambda: made.runs("1"))
        await made.desire(2, {"2": new}, {"3": later})

        def done() -> bool:
            seen.append(priority(made, later.digest))
            return made.runs("2") and made.ahead("3") == "fetched"

        await made.until(done)
    assert set(seen) - {None} == {Priority.PREFETCH}
    # The document of what comes later may have been asked for first; its files were not.
    assert link.fetched.index(digest_of(NEW)) < link.fetched.index(digest_of(NEXT))


async def test_how_far_it_is_is_said_in_steps(tmp_path: Path) -> None:
    """Each change of it is a report, which a weak link has to carry."""
    link = Upstream()
    new = link.release("2", NEW, layers=tuple(random.Random(f"layer {n}").randbytes(500) for n in range(100)))
    said: list[str] = []
    async with agent(tmp_path, link) as made:
        await made.desire(1, {}, {"2": new})

        def done() -> bool:
            said.append(made.ahead("2"))
            return said[-1] == "fetched"

        await made.until(done)
    figures = {text for text in said if text.startswith("fetching, ")}
    assert all(re.fullmatch(r"fetching, [0-9.]+ (B|KiB) of [0-9.]+ KiB", text) for text in figures), figures
    assert set(said) - figures <= {
        "waiting for what is signed of it",
        "fetching its document",
        "fetching",
        "fetched",
    }


def test_a_figure_moves_a_twentieth_at_a_time_or_every_few_seconds() -> None:
    meter = ProgressMeter()
    meter.begin({"a": 100_000}, 100_000, full={"a": 100_000})
    told: list[FetchProgress] = []
    for second in range(400):
        meter.note(250)
        told.append(meter.tell(float(second), flowing=True))
    assert len(set(told)) <= 1 + 400 / TELL_EVERY_S
    burst = {_told_after(meter, 1000, 400.0 + step * 0.01) for step in range(100)}
    assert len(burst) <= 2, "no more than one a second"


def _told_after(meter: ProgressMeter, size: int, now: float) -> FetchProgress:
    meter.note(size)
    return meter.tell(now, flowing=True)


async def test_it_becomes_as_urgent_as_any_release_when_it_is_assigned_under_way(tmp_path: Path) -> None:
    link = Upstream()
    new = link.release("1", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {}, {"1": new})
        await made.loop.step()
        assert priority(made, new.digest) == Priority.PREFETCH
        await made.desire(2, {"1": new})
        await made.loop.step()
        assert priority(made, new.digest) in (Priority.RELEASE, None)
        await made.until(lambda: made.runs("1"))


async def test_it_is_kept_while_it_is_named_and_tidied_away_when_it_is_not(tmp_path: Path) -> None:
    link = Upstream()
    old, new = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old}, {"2": new})
        await made.until(lambda: made.runs("1") and made.ahead("2") == "fetched")
        # Another policy makes the agent tidy.
        other = SitePolicy(disk=DiskPolicy(blobs=1 << 30))
        await made.desire(2, {"1": old}, {"2": new}, policy=other)
        await made.steps()
        assert made.blobs.has(digest_of(NEW)) and made.blobs.has(new.digest)
        await made.desire(3, {"1": old}, policy=other)
        await made.until(lambda: not made.blobs.has(digest_of(NEW)))
        assert not made.blobs.has(new.digest)
        assert made.blobs.has(old.digest) and made.blobs.has(digest_of(OLD))
        assert made.observed.ahead == {}


async def test_what_fits_no_variant_is_not_fetched_and_says_so(tmp_path: Path) -> None:
    link = Upstream()
    new = link.release("2", NEW, layers=(b"layer",), requires=Requirements(arch=("aarch64",)))
    async with agent(tmp_path, link) as made:
        await made.desire(1, {}, {"2": new})
        await made.until(lambda: made.ahead("2").startswith("not fetched: "))
        await made.steps()
        assert "arch" in made.ahead("2") or "aarch64" in made.ahead("2")
    assert link.fetched == [new.digest], "its document alone"


@pytest.mark.rule("DISK-2")
async def test_what_the_disk_has_no_room_for_is_not_begun_and_says_so(tmp_path: Path) -> None:
    link = Upstream()
    old, new = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old})
        await made.until(lambda: made.runs("1"))
        little = SitePolicy(disk=DiskPolicy(blobs=len(OLD) + old.size_bytes + new.size_bytes + 1000))
        await made.desire(2, {"1": old}, {"2": new}, policy=little)
        await made.until(lambda: made.ahead("2").startswith("disk full: "))
        assert "lacking" in made.ahead("2")
        assert digest_of(NEW) not in link.fetched
        assert made.blobs.has(digest_of(OLD))
        await made.desire(3, {"1": old}, {"2": new}, policy=SitePolicy())
        await made.until(lambda: made.ahead("2") == "fetched")


async def test_another_agent_goes_on_with_it_and_keeps_what_came(tmp_path: Path) -> None:
    link = Upstream()
    old, new = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old}, {"2": new})
        await made.until(lambda: made.runs("1") and made.ahead("2") == "fetched")
        store = made.store
    asked = list(link.fetched)
    async with agent(tmp_path, link, store=store) as again:
        await again.steps()
        assert again.ahead("2") == "fetched"
        assert again.releases.laid_out() == {old.digest}
    assert link.fetched == asked


class HastyFetcher(Fetcher):
    """A fetcher that makes room as soon as it is asked: a real one does while the agent's look still goes on."""

    def want(self, release: str, blobs: Sequence[tuple[str, int]], **how: Any) -> None:
        """Make room, then do as always."""
        self.make_room(sum(size for _, size in blobs), frozenset(digest for digest, _ in blobs))
        super().want(release, blobs, **how)


@pytest.mark.rule("DISK-1")
async def test_an_agent_that_starts_again_knows_what_it_needs_before_it_makes_room(tmp_path: Path) -> None:
    link = Upstream()
    old, new, later = link.release("1", OLD), link.release("2", NEW), link.release("3", NEXT)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": old}, {"2": new})
        await made.until(lambda: made.runs("1") and made.ahead("2") == "fetched")
        await made.desire(2, {"3": later}, {"2": new})
        store = made.store
    async with agent(tmp_path, link, store=store, fetcher=HastyFetcher) as again:
        await again.loop.step()
        assert {old.digest, digest_of(OLD), new.digest, digest_of(NEW)} <= again.blobs.digests()
