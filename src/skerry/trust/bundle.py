"""Reads a bundle: its head, its signed manifest, and whether a host may take what is in it.

The bytes come from a function that reads at an offset, so that nothing here touches a file. Rules: every length is
bounded before it is believed; entries lie one after the other, so that none can overlap another or lie outside; a
manifest names nothing but digests, names of metadata and sites, never a path; what is not signed by the hub, not for
the host, older than what it holds or expired is refused before anything is taken.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from securesystemslib.signer import Key

from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected, Untrusted
from skerry.spec.bundle import BUNDLE_TYPE, MAX_SMALL_BYTES, BundleEntry, BundleManifest
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DesiredState, ReleaseRef
from skerry.trust.desired import verify_desired
from skerry.trust.envelope import MAX_PAYLOAD_BYTES, decode_document, verify_document
from skerry.trust.issued import CLOCK_TOLERANCE
from skerry.trust.metadata import (
    Keep,
    Local,
    Remote,
    Step,
    Trusted,
    desired_keys,
    find_target,
    refresh,
    run_steps,
)
from skerry.trust.repository import target_path

FAMILY = b"skerry-bundle-"
MAGIC = FAMILY + b"1\n"
START_BYTES = len(MAGIC) + 4
MAX_HEAD_BYTES = (MAX_PAYLOAD_BYTES * 4 // 3) + (64 << 10)
MAX_METADATA_BYTES = 5 << 20
MAX_DESIRED_BYTES = (MAX_PAYLOAD_BYTES * 4 // 3) + (64 << 10)
SMALL = frozenset({"metadata", "desired"})

_metadata_re = re.compile(r"(?:timestamp|[1-9][0-9]{0,11}\.[A-Za-z0-9%._~-]{1,255})\.json\Z")
_MINUTE = "%Y-%m-%d %H:%MZ"

ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes from an offset; fewer where the file ends."""


class BundleHead(msgspec.Struct, frozen=True):
    """A bundle's manifest, as it claims to be, and where its entries begin. `verify` says whether a hub signed it."""

    envelope: JsonEnvelope
    claimed: BundleManifest
    data_at: int

    @property
    def end(self) -> int:
        """How long the whole file is."""
        return self.data_at + self.claimed.size_bytes

    @property
    def small_end(self) -> int:
        """Where metadata and desired states end; a file that ends here has all but the blobs."""
        return self.data_at + sum(entry.size_bytes for entry in self.claimed.entries if entry.kind in SMALL)

    def at(self, entry: BundleEntry) -> int:
        """Where an entry begins in the file."""
        return self.data_at + entry.offset

    def verify(self, keys: Iterable[Key]) -> BundleManifest:
        """Return the manifest when one of `keys` signed it.

        Raises:
            Untrusted: none did (`envelope.*`).
        """
        return verify_document(self.envelope, BUNDLE_TYPE, BundleManifest, keys)


class Small:
    """The metadata and desired states of a bundle, in memory, each of the digest that the manifest states."""

    def __init__(self, metadata: Mapping[str, bytes], desired: Mapping[str, JsonEnvelope]) -> None:
        self.metadata = metadata
        self.desired = desired


class Judged(msgspec.Struct, frozen=True):
    """What a host may take of a bundle.

    `envelope` is the DesiredState, `fresh` when the host does not act on it yet. `keep` is signed metadata, to be kept
    in this order. `doubts` says of releases why what is signed of them does not let them run.
    """

    manifest: BundleManifest
    desired: DesiredState
    envelope: JsonEnvelope
    fresh: bool
    keep: tuple[Keep, ...]
    trusted: Trusted
    doubts: Mapping[str, str]


class Taker(msgspec.Struct, frozen=True):
    """The host that takes: whose it is, what it trusts, and the generation it holds.

    `pinned` is the root that its join token pinned; `kept` answers what it has kept of signed metadata.
    """

    hub: str
    site: str
    host: str
    pinned: bytes
    kept: Callable[[Step], bytes | None]
    held_generation: int
    now: datetime


def encode_start(envelope: bytes) -> bytes:
    """Return the first bytes of a bundle: magic, and how long the manifest's envelope is that follows."""
    return MAGIC + len(envelope).to_bytes(4, "big")


def read_head(read: ReadAt, size_bytes: int, *, prefix: bool = False) -> BundleHead:
    """Return the head of a bundle that has so many bytes; believed is nothing yet.

    A `prefix` has its metadata and desired states alone.

    Raises:
        Rejected: that is no bundle (`bundle.foreign`), or one of a newer format (`bundle.newer`).
        Untrusted: it is cut off (`bundle.truncated`), or not as any is made (`bundle.malformed`).
    """
    length = _head_length(read(0, START_BYTES))
    content = read(START_BYTES, length)
    if len(content) != length:
        raise _truncated()
    try:
        envelope = msgspec.json.decode(content, type=dict[str, Any])
    except UNREADABLE as error:
        raise _malformed("its manifest is no signed envelope") from error
    manifest = claimed_manifest(envelope)
    check_manifest(manifest)
    head = BundleHead(envelope, manifest, START_BYTES + length)
    expected = head.small_end if prefix else head.end
    if size_bytes < expected:
        raise _truncated()
    if size_bytes > expected:
        raise _malformed(f"{size_bytes - expected} bytes follow that its manifest does not list")
    return head


def claimed_manifest(envelope: JsonEnvelope) -> BundleManifest:
    """Return the manifest of an envelope, whoever signed it. Believe nothing of it.

    Raises:
        Untrusted: it is none (`bundle.malformed`).
    """
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        return decode_document(payload, BundleManifest)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed("its manifest is no signed envelope") from error
    except Untrusted as error:
        raise _malformed(error.message) from error


def check_manifest(manifest: BundleManifest) -> None:
    """Refuse a manifest that no hub writes.

    Raises:
        Untrusted: `bundle.malformed`.
    """
    offset = small = 0
    digests: set[str] = set()
    names: set[tuple[str, str]] = set()
    blobs_began = False
    for entry in manifest.entries:
        if entry.offset != offset:
            raise _malformed(f"{entry.name[:80]!r} does not follow on what is before it")
        offset += entry.size_bytes
        blobs_began = blobs_began or entry.kind not in SMALL
        if entry.kind in SMALL:
            small += entry.size_bytes
            _check_small(entry, manifest, late=blobs_began)
            if (entry.kind, entry.name) in names:
                raise _malformed(f"{entry.name[:80]!r} is in it twice")
            names.add((entry.kind, entry.name))
        elif entry.brings in digests:
            raise _malformed(f"{entry.brings} is in it twice")
        else:
            digests.add(entry.brings)
            _check_blob(entry)
    if small > MAX_SMALL_BYTES:
        raise _malformed(f"its metadata and desired states take {small} bytes")
    if manifest.part > manifest.parts:
        raise _malformed("it is a part of fewer")
    for name in manifest.sites:
        if ("desired", name) not in names:
            raise _malformed(f"the desired state of site {name} is not in it")
    _check_places(manifest)


def read_small(head: BundleHead, read: ReadAt) -> Small:
    """Return a bundle's metadata and desired states.

    Raises:
        Untrusted: some are cut off (`bundle.truncated`) or altered (`bundle.altered`).
    """
    metadata: dict[str, bytes] = {}
    desired: dict[str, JsonEnvelope] = {}
    for entry in head.claimed.entries:
        if entry.kind not in SMALL:
            break
        content = read(head.at(entry), entry.size_bytes)
        if len(content) != entry.size_bytes:
            raise _truncated()
        if digest_of(content) != entry.digest:
            raise altered(entry)
        if entry.kind == "metadata":
            metadata[entry.name] = content
        else:
            try:
                desired[entry.name] = msgspec.json.decode(content, type=JsonEnvelope)
            except UNREADABLE as error:
                raise _malformed(f"the desired state of {entry.name} is no envelope") from error
    return Small(metadata, desired)


def judge_bundle(head: BundleHead, small: Small, taker: Taker) -> Judged:
    """Return what a host may take of a bundle, by what it trusts. Nothing is kept by this.

    Raises:
        Untrusted: of another hub (`bundle.wrong_hub`), not for the host's site (`bundle.wrong_site`), not signed by the
            hub (`envelope.*`), older than what the host holds (`bundle.older`), expired (`bundle.expired`), dated ahead
            (`bundle.from_the_future`), or what is signed in it does not hold (`metadata.*`, `desired.*`).
    """
    claimed = head.claimed
    if claimed.hub != taker.hub:
        raise Untrusted("bundle.wrong_hub", "this bundle is of another hub than this host's")
    site = claimed.sites.get(taker.site)
    if site is None:
        named = ", ".join(sorted(claimed.sites)[:5])
        raise Untrusted("bundle.wrong_site", f"this bundle is for {named}, not for site {taker.site}")
    overlay = Overlay(small.metadata, taker.kept)
    # What it claims comes first, as far as it is a reason to refuse: who comes late is told that, and not which of
    # the files in it is too old. Nothing is taken before the signature holds.
    if site.generation < taker.held_generation:
        message = f"generation {site.generation} is older than {taker.held_generation}, which this host has"
        raise Untrusted("bundle.older", message, hint="is there a newer bundle?")
    check_dates(claimed, taker.now)
    trusted = run_steps(refresh(taker.pinned, now=taker.now), overlay.answer)
    keys = desired_keys(trusted.root)
    manifest = head.verify(keys)
    desired = desired_of(small, keys, site=taker.site, generation=site.generation, now=taker.now)
    doubts = dict(doubts_of(trusted, assigned_to(desired, taker.host), overlay))
    return Judged(
        manifest=manifest,
        desired=desired,
        envelope=small.desired[taker.site],
        fresh=site.generation > taker.held_generation,
        keep=overlay.kept,
        trusted=trusted,
        doubts=doubts,
    )


def desired_of(
    small: Small, keys: Iterable[Key], *, site: str, generation: int, now: datetime
) -> DesiredState:
    """Return the desired state that a bundle has of a site, of the generation that its manifest states.

    Raises:
        Untrusted: not signed by one of `keys` (`envelope.*`), of another site or generation, expired, or dated ahead.
    """
    # One that is held already is judged as one that may be taken: who imports twice is told the same.
    desired = verify_desired(small.desired[site], keys, site=site, held_generation=generation - 1, now=now)
    if desired.generation != generation:
        raise _malformed(f"it holds generation {desired.generation} in the place of {generation}")
    return desired


def entries_for(manifest: BundleManifest, site: str, host: str) -> list[BundleEntry]:
    """Return what a host gets of a verified bundle's blobs and deltas."""
    found = manifest.sites[site].hosts.get(host)
    return [manifest.entries[place] for place in found.entries] if found else []


def altered(entry: BundleEntry) -> Untrusted:
    """Return the refusal of an entry whose bytes are not those that the manifest states."""
    message = f"{entry.name[:120]} was altered: its bytes are not those that the hub signed"
    return Untrusted("bundle.altered", message, hint="take another copy of the bundle")


class Overlay:
    """Answers steps from a bundle in the place of upstream; what is to be kept is remembered and not kept."""

    def __init__(self, files: Mapping[str, bytes], kept: Callable[[Step], bytes | None]) -> None:
        """`kept` answers what was kept before."""
        self._files = files
        self._held = kept
        self._new: dict[str, bytes] = {}

    @property
    def kept(self) -> tuple[Keep, ...]:
        """What was verified, in the order in which it is to be kept."""
        return tuple(Keep(name, content) for name, content in self._new.items())

    def answer(self, step: Step) -> bytes | None:
        """Answer a step of `skerry.trust.metadata`."""
        match step:
            case Local():
                return self._new.get(step.name) or self._held(step)
            case Remote():
                content = self._files.get(step.name)
                return content if content is None or len(content) <= step.max_bytes else None
            case Keep():
                self._new[step.name] = step.content
                return None


def assigned_to(desired: DesiredState, host: str) -> dict[str, ReleaseRef]:
    """Return the releases that a host is to run, by name."""
    names = (assignment.release for assignment in desired.hosts.get(host, ()))
    return {name: desired.releases[name] for name in names if name in desired.releases}


def doubts_of(
    trusted: Trusted, releases: Mapping[str, ReleaseRef], overlay: Overlay
) -> Iterator[tuple[str, str]]:
    """Yield the releases of which a bundle does not prove that they are signed, and why."""
    for name, ref in releases.items():
        try:
            found = run_steps(find_target(trusted, target_path(ref.publisher, name)), overlay.answer)
        except Untrusted as error:
            yield name, error.message
            continue
        if found is None or f"sha256:{found.sha256}" != ref.digest:
            yield name, f"publisher {ref.publisher} has not signed it"


def check_dates(manifest: BundleManifest, now: datetime) -> None:
    """Refuse a bundle that has expired (`bundle.expired`) or is dated ahead (`bundle.from_the_future`)."""
    if now > manifest.expires_at:
        message = f"this bundle expired at {manifest.expires_at:{_MINUTE}}, now {now:{_MINUTE}}"
        raise Untrusted("bundle.expired", message, hint="export a new one; is the clock here right?")
    if manifest.made_at > now + CLOCK_TOLERANCE:
        message = f"this bundle was made at {manifest.made_at:{_MINUTE}}, now {now:{_MINUTE}}"
        raise Untrusted("bundle.from_the_future", message, hint="the clock here is behind: set it")


def _check_places(manifest: BundleManifest) -> None:
    hosts = [host for site in manifest.sites.values() for host in site.hosts.values()]
    for place in {place for host in hosts for place in host.entries}:
        if place >= len(manifest.entries) or manifest.entries[place].kind in SMALL:
            raise _malformed(f"it states entry {place}, which is no blob of it")


def _check_small(entry: BundleEntry, manifest: BundleManifest, *, late: bool) -> None:
    if late:
        raise _malformed("metadata and desired states come first")
    if entry.base or entry.target:
        raise _malformed(f"{entry.name[:80]!r} is no delta")
    if entry.kind == "desired":
        if entry.name not in manifest.sites:
            raise _malformed(f"it is not for site {entry.name[:80]!r}, and has its desired state")
        most = MAX_DESIRED_BYTES
    else:
        if not _metadata_re.match(entry.name):
            raise _malformed(f"{entry.name[:80]!r} is not the name of a metadata file")
        most = MAX_METADATA_BYTES
    if entry.size_bytes > most:
        raise _malformed(f"{entry.name[:80]!r} is longer than any is")


def _check_blob(entry: BundleEntry) -> None:
    if (entry.kind == "delta") != bool(entry.target):
        raise _malformed(f"{entry.name[:80]!r} states what a {entry.kind} does not have")
    if entry.kind == "blob" and (entry.base or entry.target_bytes):
        raise _malformed(f"{entry.name[:80]!r} is no delta")


def _head_length(start: bytes) -> int:
    if not start.startswith(MAGIC):
        known = start[len(FAMILY) : len(MAGIC) - 1]
        if start.startswith(FAMILY) and known.isdigit() and len(start) == START_BYTES:
            hint = "read it with the version that made it, or a newer one"
            raise Rejected("bundle.newer", f"this bundle has format {known.decode()}, known is 1", hint=hint)
        if start and (MAGIC.startswith(start) or start.startswith(FAMILY)):
            raise _truncated()
        raise Rejected("bundle.foreign", "this file is no bundle")
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if len(start) < START_BYTES:
        raise _truncated()
    if not 2 <= length <= MAX_HEAD_BYTES:
        raise _malformed(f"a manifest of {length} bytes")
    return length


def _truncated() -> Untrusted:
    hint = "copy it again; was the stick taken out too early?"
    return Untrusted("bundle.truncated", "the bundle is cut off", hint=hint)


def _malformed(why: str) -> Untrusted:
    return Untrusted("bundle.malformed", f"the bundle is not as any is made: {why}")
