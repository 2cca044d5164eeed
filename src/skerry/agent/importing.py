"""`skerry agent import`: takes a bundle at the host, whether its agent runs or not.

All that can be refused is refused first, with nothing changed: the agent then judges once more for itself. Blobs are
copied into their place among the host's, verified, each from the byte where an earlier attempt stopped; who is killed
at any step begins again and finds what there is. Rule: only blobs are copied that the manifest, which the hub has
signed, lists for this host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.agent.carried import (
    Spared,
    carried_folder,
    judge_carried,
    spare,
)
from skerry.agent.commands import believed_now, read_status
from skerry.agent.identity import Identity, load_identity
from skerry.agent.wiring.opening import open_blobs, open_guard
from skerry.carrier.bundle_file import BundleFile, Tell, open_bundle
from skerry.carrier.bundle_taking import ask_taker, check_bases, check_room, copy_blobs
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict
from skerry.kit.locking import hold
from skerry.kit.owning import acting_as_owner
from skerry.spec.bundle import BundleEntry, ImportView
from skerry.spec.report import Observed
from skerry.trust.bundle import Judged, entries_for


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
        check_bases(missing, blobs.has)
        check_room(data, missing, blobs)
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
        copy_blobs(bundle, taking.missing, open_blobs(data), tell)
        waiting = carried_folder(data) / f"{taking.judged.manifest.id}.bundle"
        waiting.with_suffix(".answer").unlink(missing_ok=True)
        write_file(waiting, bundle.prefix())
    return msgspec.structs.replace(taking.view, agent=ask_taker(waiting, data / "agent.lock", timeout_s))


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
