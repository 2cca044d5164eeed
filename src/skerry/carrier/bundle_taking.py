"""Takes the blobs of a bundle: what must be here for it, room, and copying, each blob from where it stopped.

Then whoever runs on the data directory is asked to take the rest: `<id>.bundle` waits for it, `<id>.answer` is what it
says. Rules: a blob is one only once its bytes are those that the hub signed; nothing that waits is gone before it was
taken or refused, so that whoever takes it may be killed at any step.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from skerry.carrier.bundle_file import BundleFile, Tell
from skerry.kit.durable import write_file
from skerry.kit.errors import (
    FAMILIES,
    Bug,
    Missing,
    Rejected,
    SkerryError,
    Unavailable,
    Untrusted,
    as_failure,
)
from skerry.kit.locking import is_held
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.spec.bundle import BundleEntry, Takeover
from skerry.trust.bundle import altered

_log = structlog.get_logger()

LOOK_EVERY_S = 0.5
RETRY_S = 10.0
SPARE_BYTES = 32 << 20
POLL_S = 0.1


class TakenAnswer(msgspec.Struct, frozen=True):
    """What was said of a bundle that waited: the generation that a host acts on, or why it was refused."""

    generation: int = 0
    family: str = ""
    code: str = ""
    problem: str = ""
    hint: str = ""


async def look_forever(clock: Clock, step: Callable[[], Awaitable[None]]) -> None:
    """Make a step about twice a second, for ever; after a failure, which is logged once, wait longer."""
    failing = ""
    while True:
        wait_s = LOOK_EVERY_S
        try:
            await step()
            failing = ""
        except Exception as caught:
            error, wait_s = as_failure(caught), RETRY_S
            if failing != error.code:
                cause = error.__cause__ if isinstance(error, Bug) else None
                _log.error("carried.failing", code=error.code, reason=str(error), exc_info=cause)
            failing = error.code
        await clock.sleep(wait_s)


async def take_waiting(folder: Path, take: Callable[[Path], Awaitable[int]]) -> int:
    """Take the bundles that wait in a folder, and answer each; return how many. `take` returns a generation.

    Raises:
        Unavailable: `take` cannot now; what was not taken waits on.
    """
    files = await asyncio.to_thread(lambda: sorted(folder.glob("*.bundle")))
    for file in files:
        try:
            answer = TakenAnswer(generation=await take(file))
        except Unavailable:
            raise
        except SkerryError as error:
            _log.warning("bundle.refused", code=error.code, reason=error.message)
            answer = TakenAnswer(family=error.family, code=error.code, problem=error.message, hint=error.hint)
        await asyncio.to_thread(_settle, file, answer)
    return len(files)


def _settle(file: Path, answer: TakenAnswer) -> None:
    write_file(file.with_suffix(".answer"), msgspec.json.encode(answer))
    file.unlink(missing_ok=True)


def check_bases(missing: Sequence[BundleEntry], has: Callable[[str], bool]) -> None:
    """Refuse deltas to files that are not here.

    Raises:
        Rejected: `bundle.base_missing`.
    """
    for entry in missing:
        if not all(has(base) for base in entry.base):
            message = f"{entry.name} is in it as a delta to files that are not here"
            raise Rejected(
                "bundle.base_missing",
                message,
                hint="export it with --full, or import the ones before it first",
            )


def check_room(data: Path, missing: Sequence[BundleEntry], blobs: LocalBlobs) -> None:
    """Refuse what the disk has no room for.

    Raises:
        Unavailable: `disk.full`.
    """
    needed = sum(
        entry.size_bytes - min(entry.size_bytes, blobs.partial_size(entry.digest)) + entry.target_bytes
        for entry in missing
    )
    free = shutil.disk_usage(data).free
    if missing and free < needed + SPARE_BYTES:
        message = f"{format_size(needed)} to copy, {format_size(free)} free on this disk"
        raise Unavailable("disk.full", f"disk full: {message}")


def copy_blobs(bundle: BundleFile, missing: Sequence[BundleEntry], blobs: LocalBlobs, tell: Tell) -> None:
    """Bring all that these entries bring.

    Raises:
        Untrusted: bytes are not those that were signed (`bundle.altered`).
        Rejected: what a delta is made from is damaged (`bundle.base_damaged`).
        Unavailable: no room (`disk.full`).
    """
    total = sum(entry.size_bytes for entry in missing)
    done = 0
    for entry in missing:
        before = done

        def count(size: int, before: int = before) -> None:
            tell(before + size, total)

        _take_entry(bundle, entry, blobs, count)
        done += entry.size_bytes


def _take_entry(
    bundle: BundleFile, entry: BundleEntry, blobs: LocalBlobs, count: Callable[[int], None]
) -> None:
    """Bring what an entry brings.

    Raises:
        Untrusted: its bytes are not those that were signed (`bundle.altered`), or the delta does not lead there.
    """
    if not blobs.has(entry.digest):
        _copy_blob(bundle, entry, blobs, count)
    if not entry.target:
        return
    try:
        blobs.make_by_delta(entry.target, entry.target_bytes, base=entry.base, delta=entry.digest)
    except (Untrusted, Missing) as error:
        for base in entry.base:
            blobs.verify(base)  # what is damaged goes
        message = f"{entry.name} cannot be made from what is here: {error.message}"
        raise Rejected("bundle.base_damaged", message, hint="export it with --full") from error
    blobs.remove(entry.digest)


def _copy_blob(
    bundle: BundleFile, entry: BundleEntry, blobs: LocalBlobs, count: Callable[[int], None]
) -> None:
    if entry.size_bytes == 0:
        blobs.put(entry.digest, b"")
        return
    offset = blobs.partial_size(entry.digest)
    if offset > entry.size_bytes:
        blobs.remove(entry.digest)
        offset = 0
    for start in (offset, 0) if offset else (0,):
        blobs.append(
            entry.digest, _counted(bundle, entry, start, count), offset=start, limit=entry.size_bytes
        )
        try:
            blobs.finish(entry.digest)
            return
        except Untrusted as error:
            # What was here of it may come from another, damaged copy: once more from its beginning.
            if not start:
                raise altered(entry) from error


def _counted(
    bundle: BundleFile, entry: BundleEntry, start: int, count: Callable[[int], None]
) -> Iterator[bytes]:
    done = start
    for chunk in bundle.chunks(entry, start=start):
        done += len(chunk)
        yield chunk
        count(done)


def ask_taker(waiting: Path, lock: Path, timeout_s: float) -> Takeover:
    """Wait until whoever holds `lock` has taken what is `waiting` for it, for `timeout_s` seconds at most.

    Raises:
        SkerryError: what it refuses it with.
    """
    answer = waiting.with_suffix(".answer")
    deadline = time.monotonic() + timeout_s
    while not answer.exists():
        if not is_held(lock):
            return "does not run"
        if time.monotonic() > deadline:
            return "has not answered"
        time.sleep(POLL_S)
    found = msgspec.json.decode(answer.read_bytes(), type=TakenAnswer)
    answer.unlink(missing_ok=True)
    if found.code:
        raise FAMILIES.get(found.family, Rejected)(found.code, found.problem, hint=found.hint)
    return "took it"
