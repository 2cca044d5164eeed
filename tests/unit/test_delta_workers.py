"""Deltas are made in processes of their own, which leave nothing behind however they end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.adapters.delta_workers import SLOWEST_BYTES_PER_S, DeltaWorkers
from skerry.adapters.object_blobs import ObjectBlobs
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Unavailable
from skerry.ports.blobs import Blobs
from skerry.ports.delta_maker import MadeDelta
from skerry.testing.memory import MemoryBlobs
from skerry.testing.processes import is_running, processes_of
from skerry.testing.waiting import eventually, eventually_sync
from tests.contract.tiny_disk import fill, tiny_disk
from tests.unit.delta_files_of import applied, noise

pytestmark = pytest.mark.delivery

LOW, HIGH = noise(150_000, 1), noise(90_000, 2)
NEW = HIGH[:50_000] + b"inserted" + LOW[4:]
SLOW_BYTES = 64 << 20
"""At level 19 this takes minutes: whoever is gone sooner was ended."""

KINDS: dict[str, Callable[[Path], Blobs]] = {
    "copies": lambda _: MemoryBlobs(),
    "files": lambda path: ObjectBlobs.in_directory(path / "blobs"),
}


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return KINDS[str(request.param)](tmp_path)


async def put(blobs: Blobs, *contents: bytes) -> list[str]:
    for content in contents:
        await blobs.put(digest_of(content), content)
    return [digest_of(content) for content in contents]


def wordy(size: int) -> bytes:
    """Return content that packs to a half, slowly."""
    return (
        random.Random(5)
        .randbytes(size)
        .translate(bytes(b"etaoin shrdlu.,\n"[value & 15] for value in range(256)))
    )


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def is_delta(file: str) -> bool:
    return file.endswith(".delta")


async def worker_of(folder: Path) -> int:
    """Return the process that works in a folder."""

    async def look() -> list[int]:
        return list(processes_of(folder))

    (pid,) = await eventually(look, what="the worker")
    return pid


async def until_ended(pid: int) -> None:
    async def look() -> bool:
        return not is_running(pid)

    await eventually(look, what="the worker's end")


async def test_a_delta_is_made_of_several_blobs_one_after_the_other(blobs: Blobs, tmp_path: Path) -> None:
    low, high, new = await put(blobs, LOW, HIGH, NEW)
    workers = DeltaWorkers(blobs, tmp_path / "making", level=1)
    for base, old in (((low, high), LOW + HIGH), ((high,), HIGH), ((), b"")):
        made = await workers.make(base, new)
        delta = made.file.read_bytes()
        assert (made.digest, made.size_bytes) == (digest_of(delta), len(delta))
        assert applied(delta, old) == NEW
        assert made.file.is_relative_to(tmp_path / "making"), "it can be moved to the deltas by its name"
        made.file.unlink()
    assert leftovers(tmp_path / "making") == []
    assert [await blobs.size(one) for one in (low, high, new)] == [len(LOW), len(HIGH), len(NEW)]


async def test_the_same_delta_comes_of_the_same_blobs(blobs: Blobs, tmp_path: Path) -> None:
    low, new = await put(blobs, LOW, NEW)
    workers = DeltaWorkers(blobs, tmp_path / "making", level=1)
    made = await asyncio.gather(*(workers.make((low,), new) for _ in range(2)))
    assert made[0].digest == made[1].digest
    assert made[0].file != made[1].file


async def test_a_blob_that_is_not_there_is_said_and_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    low, new = await put(blobs, LOW, NEW)
    workers = DeltaWorkers(blobs, tmp_path / "making", level=1)
    for base, target in (((low, digest_of(b"gone")), new), ((low,), digest_of(b"gone"))):
        with pytest.raises(Missing):
            await workers.make(base, target)
    assert leftovers(tmp_path / "making") == []


async def begin_slow(blobs: Blobs, staging: Path) -> tuple[asyncio.Task[MadeDelta], int]:
    """Begin a delta that takes minutes; return it and its process."""
    (slow,) = await put(blobs, wordy(SLOW_BYTES))
    task = asyncio.create_task(DeltaWorkers(blobs, staging).make((), slow))
    pid = await worker_of(staging)

    async def works() -> bool:
        return os.getpriority(os.PRIO_PROCESS, pid) == 19 and any(map(is_delta, leftovers(staging)))

    await eventually(works, what="a worker of low priority that writes")
    return task, pid


async def test_a_worker_that_is_killed_is_a_failure_to_try_again_and_leaves_nothing(
    blobs: Blobs, tmp_path: Path
) -> None:
    task, pid = await begin_slow(blobs, tmp_path / "making")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unavailable) as caught:
        await task
    assert caught.value.code == "delta.not_made"
    assert leftovers(tmp_path / "making") == []


async def test_a_delta_that_nobody_wants_any_more_ends_its_worker(blobs: Blobs, tmp_path: Path) -> None:
    task, pid = await begin_slow(blobs, tmp_path / "making")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(pid)
    assert leftovers(tmp_path / "making") == []


async def test_a_worker_that_takes_far_too_long_is_ended(blobs: Blobs, tmp_path: Path) -> None:
    (target,) = await put(blobs, NEW)
    workers = DeltaWorkers(blobs, tmp_path / "making", start_limit_s=-len(NEW) / SLOWEST_BYTES_PER_S + 0.001)
    with pytest.raises(Unavailable) as caught:
        await workers.make((), target)
    assert caught.value.code == "delta.too_slow"
    assert leftovers(tmp_path / "making") == []


async def test_a_full_disk_is_said_and_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    content = noise(3 << 20)
    (target,) = await put(blobs, content)
    with tiny_disk(tmp_path / "disk", size_bytes=4 << 20) as disk:
        workers = DeltaWorkers(blobs, disk / "making", level=1)
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - (1 << 20))
        with pytest.raises(Unavailable) as caught:
            await workers.make((), target)
        assert caught.value.code == "disk.full"
        assert leftovers(disk / "making") == []


async def test_what_a_crash_left_is_removed_by_the_next_process(tmp_path: Path) -> None:
    staging = tmp_path / "making"
    staging.mkdir()
    for name in ("one.delta", "two.copy"):
        (staging / name).write_bytes(b"left")
    DeltaWorkers(MemoryBlobs(), staging)
    assert leftovers(staging) == []


PARENT = """
import asyncio, sys
from pathlib import Path
from skerry.adapters.delta_workers import DeltaWorkers
from skerry.adapters.object_blobs import ObjectBlobs

blobs, staging, target = sys.argv[1:]
asyncio.run(DeltaWorkers(ObjectBlobs.in_directory(Path(blobs)), Path(staging)).make((), target))
"""


def test_a_worker_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    blobs, staging = ObjectBlobs.in_directory(tmp_path / "blobs"), tmp_path / "making"
    (slow,) = asyncio.run(put(blobs, wordy(SLOW_BYTES)))
    words = [sys.executable, "-c", PARENT, str(tmp_path / "blobs"), str(staging), slow]
    with subprocess.Popen(words, start_new_session=True) as parent:
        try:
            eventually_sync(lambda: any(staging.glob("*.delta")), what="a worker that writes")
            (worker,) = processes_of(staging).keys() - {parent.pid}
        finally:
            parent.kill()
    try:
        eventually_sync(lambda: not is_running(worker), limit_s=20, what="the worker's end")
    finally:
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)
