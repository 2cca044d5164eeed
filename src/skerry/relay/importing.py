"""`skerry relay import`: takes a bundle at the relay, whether it serves or not.

All that can be refused is refused first, with nothing changed: the relay then judges once more for itself. Blobs are
verified and wait in `carried/blobs`, out of the way of what the relay fetches meanwhile; each is gone on with from the
byte where an earlier attempt stopped. Rule: only blobs are copied that the manifest, which the hub has signed, lists
for hosts of sites below this relay.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from skerry.carrier.bundle_file import BundleFile, Tell, open_bundle
from skerry.carrier.bundle_taking import ask_taker, check_bases, check_room, copy_blobs
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Unavailable
from skerry.kit.locking import hold
from skerry.kit.owning import acting_as_owner
from skerry.ports.blobs import LocalBlobs
from skerry.relay.carried import brought_bytes, carried_folder, judge_at_relay, too_small
from skerry.relay.identity import load_identity
from skerry.relay.standing import RelayStatus, read_status
from skerry.relay.wiring import open_blobs, open_staged
from skerry.spec.bundle import BundleEntry, RelayImportView, SiteImportView
from skerry.trust.bundle_relay import RelayJudged


def import_at_relay(
    data: Path, file: Path, *, dry_run: bool, timeout_s: float, tell: Tell
) -> RelayImportView:
    """Take a bundle; in a dry run verify all of it and change nothing.

    Raises:
        Missing: no relay has joined in this directory.
        Untrusted: it is for no site below this relay, altered, cut off, older than what the relay has, or expired;
            nothing of it is taken then.
        Rejected: it has deltas to files that are not here (`bundle.base_missing`), is larger than the cache
            (`relay.cache_too_small`), or is no bundle.
        Unavailable: no room (`disk.full`).
        Conflict: another import is under way (`bundle.importing`), or blobs were let go of meanwhile
            (`bundle.incomplete`).
    """
    identity = load_identity(data)
    status = read_status(data, identity.place)
    with open_bundle(file) as bundle:
        judged = judge_at_relay(
            bundle, identity, sites=frozenset(status.held), held=status.held, now=_believed_now(status)
        )
        blobs, staged = open_blobs(data), open_staged(data)
        entries = judged.entries()
        missing = [one for one in entries if not (blobs.has(one.brings) or staged.has(one.brings))]
        check_bases(missing, lambda digest: blobs.has(digest) or staged.has(digest))
        check_room(data, missing, staged)
        needed = sum(map(brought_bytes, entries))
        if needed > status.cache.limit_bytes:
            raise too_small(needed, status.cache.limit_bytes)
        view = _view(judged, status.relay, entries, missing)
        if dry_run:
            bundle.check(tell)
            return view
        with acting_as_owner(data):
            waiting = _put_down(data, bundle, missing, tell)
            answer = ask_taker(waiting, data / "relay.lock", timeout_s)
    return msgspec.structs.replace(view, process=answer)


def _put_down(data: Path, bundle: BundleFile, missing: Sequence[BundleEntry], tell: Tell) -> Path:
    """Put the bundle where the relay finds it, its blobs first; return the file that waits."""
    busy = Conflict("bundle.importing", "another import is under way", hint="wait for it")
    blobs, staged = open_blobs(data), open_staged(data)
    with hold(carried_folder(data) / "lock", conflict=busy):
        bases = {base for entry in missing for base in entry.base if not staged.has(base)}
        with _lent(bases, blobs, staged):
            copy_blobs(bundle, missing, staged, tell)
        waiting = carried_folder(data) / f"{bundle.head.claimed.id}.bundle"
        waiting.with_suffix(".answer").unlink(missing_ok=True)
        write_file(waiting, bundle.prefix())
    return waiting


@contextmanager
def _lent(bases: set[str], blobs: LocalBlobs, staged: LocalBlobs) -> Generator[None]:
    """Have blobs of the cache among the staged ones, so that the relay may let go of them meanwhile.

    Raises:
        Unavailable: they cannot be linked (`disk.unwritable`).
    """
    try:
        for base in bases:
            staged.path(base).parent.mkdir(parents=True, exist_ok=True)
            os.link(blobs.path(base), staged.path(base))
        yield
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot use {error.filename}: {error.strerror}") from error
    finally:
        for base in bases:
            staged.remove(base)


def _believed_now(status: RelayStatus) -> datetime:
    """Return the time that the relay believes: the clock here, with what it last added to it."""
    return datetime.now(UTC) + timedelta(seconds=status.clock_offset_s)


def _view(
    judged: RelayJudged, relay: str, entries: Sequence[BundleEntry], missing: Sequence[BundleEntry]
) -> RelayImportView:
    manifest = judged.manifest
    return RelayImportView(
        bundle=manifest.id,
        part=manifest.part,
        parts=manifest.parts,
        relay=relay,
        sites={
            name: SiteImportView(generation=one.generation, fresh=one.fresh)
            for name, one in judged.sites.items()
        },
        refused=dict(judged.refused),
        expires_at=manifest.expires_at,
        files=len(entries),
        copied=len(missing),
        copied_bytes=sum(entry.size_bytes for entry in missing),
        doubts=dict(judged.doubts),
    )
