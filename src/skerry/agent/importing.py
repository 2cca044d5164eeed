"""`skerry agent import`: takes a bundle at the host, whether its agent runs or not.

All that can be refused is refused first, with nothing changed: the agent then judges once more for itself. Blobs are
copied into their place among the host's, verified, each from the byte where an earlier attempt stopped; who is killed
at any step begins again and finds what there is. Rule: only blobs are copied that the manifest, which the hub has
signed, lists for this host.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.agent.carried import (
    Spared,
    TakenAnswer,
    carried_folder,
    judge_carried,
    spare,
)
from skerry.agent.commands import believed_now, read_status
from skerry.agent.identity import Identity, load_identity
from skerry.agent.owning import acting_as_owner
from skerry.agent.wiring import open_blobs, open_guard
from skerry.carrier.bundle_file import BundleFile, Tell, open_bundle
from skerry.kit.durable import write_file
from skerry.kit.errors import FAMILIES, Conflict, Missing, Rejected, Unavailable, Untrusted
from skerry.kit.locking import hold, is_held
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.spec.bundle import BundleEntry, ImportView
from skerry.spec.report import Observed
from skerry.trust.bundle import Judged, altered, entries_for

SPARE_BYTES = 32 << 20
POLL_S = 0.1


def import_bundle(data: Path, file: Path, *, dry_run: bool, timeout_s: float, tell: Tell) -> ImportView:
    """Take a bundle; in a dry run verify all of it and change nothing.

    Raises:
        Untrusted: it is not for this host, altered, cut off, older than what the host has, or expired; nothing of its
            desired state and metadata is taken then.
        Rejected: it has deltas to files that are not here (`bundle.base_missing`), or is no bundle.
        Unavailable: no room (`disk.full`).
        Conflict: another import is under way (`bundle.importing`).
    """
    status = read_status(data)
    identity = load_identity(data, open_guard())
    with open_bundle(file) as bundle:
        judged = judge_carried(
            bundle,
            identity,
            held_generation=_held_generation(status),
            now=believed_now(status),
        )
        blobs = open_blobs(data)
        entries = entries_for(judged.manifest, identity.place.site, identity.place.host)
        missing = [entry for entry in entries if not blobs.has(entry.brings)]
        _check_bases(missing, blobs)
        _check_room(data, missing, blobs)
        view = _view(judged, identity, entries, missing)
        if dry_run:
            bundle.check(tell)
            return view
        with acting_as_owner(data):
            return _take(data, bundle, _Taking(judged, identity, entries, missing, view), timeout_s, tell)


class _Taking(msgspec.Struct, frozen=True):
    """A bundle that may be taken: all entries for this host, and those that are not here yet."""

    judged: Judged
    identity: Identity
    entries: Sequence[BundleEntry]
    missing: Sequence[BundleEntry]
    view: ImportView


def _take(data: Path, bundle: BundleFile, taking: _Taking, timeout_s: float, tell: Tell) -> ImportView:
    busy = Conflict("bundle.importing", "another import is under way", hint="wait for it")
    with hold(carried_folder(data) / "lock", conflict=busy):
        spare(data, _spared(taking.judged, taking.identity, taking.entries))
        _copy(bundle, taking.missing, open_blobs(data), tell)
        waiting = carried_folder(data) / f"{taking.judged.manifest.id}.bundle"
        waiting.with_suffix(".answer").unlink(missing_ok=True)
        write_file(waiting, bundle.prefix())
    return msgspec.structs.replace(taking.view, agent=_ask_agent(data, waiting, timeout_s))


def _held_generation(status: Mapping[str, Any]) -> int:
    """Return the generation that the agent last said it acts on; 0 before it ran."""
    try:
        observed = msgspec.convert(status.get("observed") or {}, type=Observed)
    except msgspec.ValidationError:
        return 0  # of another version; the agent judges for itself
    return observed.generation


def _view(
    judged: Judged, identity: Identity, entries: Sequence[BundleEntry], missing: Sequence[BundleEntry]
) -> ImportView:
    manifest, place = judged.manifest, identity.place
    return ImportView(
        bundle=manifest.id,
        part=manifest.part,
        parts=manifest.parts,
        site=place.site,
        host=place.host,
        generation=judged.desired.generation,
        fresh=judged.fresh,
        releases=tuple(one.release for one in judged.desired.hosts.get(place.host, ())),
        expires_at=manifest.expires_at,
        files=len(entries),
        copied=len(missing),
        copied_bytes=sum(entry.size_bytes for entry in missing),
        doubts=dict(judged.doubts),
    )


def _spared(judged: Judged, identity: Identity, entries: Sequence[BundleEntry]) -> Spared:
    desired = judged.desired
    named = (one.release for one in desired.hosts.get(identity.place.host, ()))
    return Spared(
        generation=desired.generation,
        blobs=frozenset(digest for entry in entries for digest in (entry.brings, entry.digest, *entry.base)),
        releases=frozenset(desired.releases[name].digest for name in named if name in desired.releases),
    )


def _check_bases(missing: Sequence[BundleEntry], blobs: LocalBlobs) -> None:
    for entry in missing:
        if not all(blobs.has(base) for base in entry.base):
            message = f"{entry.name} is in it as a delta to files that are not here"
            raise Rejected(
                "bundle.base_missing",
                message,
                hint="export it with --full, or import the ones before it first",
            )


def _check_room(data: Path, missing: Sequence[BundleEntry], blobs: LocalBlobs) -> None:
    needed = sum(
        entry.size_bytes - min(entry.size_bytes, blobs.partial_size(entry.digest)) + entry.target_bytes
        for entry in missing
    )
    free = shutil.disk_usage(data).free
    if missing and free < needed + SPARE_BYTES:
        message = f"{format_size(needed)} to copy, {format_size(free)} free on this disk"
        raise Unavailable("disk.full", f"disk full: {message}")


def _copy(bundle: BundleFile, missing: Sequence[BundleEntry], blobs: LocalBlobs, tell: Tell) -> None:
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


def _ask_agent(
    data: Path, waiting: Path, timeout_s: float
) -> Literal["took it", "does not run", "has not answered"]:
    """Wait until the agent has taken what was put there for it.

    Raises:
        SkerryError: what it refuses it with.
    """
    answer = waiting.with_suffix(".answer")
    deadline = time.monotonic() + timeout_s
    while not answer.exists():
        if not is_held(data / "agent.lock"):
            return "does not run"
        if time.monotonic() > deadline:
            return "has not answered"
        time.sleep(POLL_S)
    found = msgspec.json.decode(answer.read_bytes(), type=TakenAnswer)
    answer.unlink(missing_ok=True)
    if found.code:
        raise FAMILIES.get(found.family, Rejected)(found.code, found.problem, hint=found.hint)
    return "took it"
