"""Plans bundles: what sites need and, as far as the hub knows, do not hold, to be carried to them by hand.

What is known of a host is what it last reported, and what an earlier bundle brought that is said to have arrived. A
host of which nothing is known gets every variant. A delta is put in where every host that wants the blob is known to
hold what it is made from. Everything is read in the way that a host will judge it, so that no bundle leaves that its
hosts would refuse.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.delivery.relatives import Base, PlacedFile, find_bases, place_files
from skerry.hub.previewing import Previewing
from skerry.hub.services import Hub
from skerry.kit.digests import digest_of, short
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.kit.quantities import format_size
from skerry.matching.answering import Previewer, PreviewHost
from skerry.matching.selector import Selector
from skerry.ports.hub_store import HostRecord, ReleaseRecord, SiteRecord
from skerry.spec.bundle import (
    BUNDLE_TYPE,
    MAX_BUNDLE_ENTRIES,
    MAX_BUNDLE_HOSTS,
    MAX_SMALL_BYTES,
    BundleAnswer,
    BundleEntry,
    BundleHost,
    BundleManifest,
    BundleRequest,
    BundleSite,
)
from skerry.spec.carrier import MAX_DELTA_QUESTIONS, DeltaAvailable, DeltaQuestion, DeltaRequest, JsonEnvelope
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.spec.site import Site
from skerry.trust.bundle import check_manifest
from skerry.trust.envelope import MAX_PAYLOAD_BYTES, sign_document, verify_document
from skerry.trust.metadata import Remote, Step, find_target, refresh, run_steps
from skerry.trust.repository import target_path

HEAD_ROOM = 64 << 10
"""What a file of a bundle takes beside its entries, at least."""
PACKED = ("metadata", "desired", "blob", "delta")


class _File(msgspec.Struct, frozen=True):
    """A blob that a host needs, and what it is, for people."""

    size_bytes: int
    name: str


class _HostNeeds(msgspec.Struct, frozen=True):
    """What a host needs: blobs by digest, and by digest what deltas to them may be made from."""

    host: HostRecord
    releases: tuple[str, ...]
    files: Mapping[str, _File]
    bases: Mapping[str, tuple[Base, ...]]


class _SiteNeeds(msgspec.Struct, frozen=True):
    """A site of a bundle: its DesiredState as it is carried, and what its hosts need."""

    name: str
    desired: DesiredState
    envelope: bytes
    hosts: tuple[_HostNeeds, ...]
    notes: tuple[str, ...]


class _Piece(msgspec.Struct, frozen=True):
    """An entry that has no place yet."""

    entry: BundleEntry
    content: bytes | None = None


async def plan_bundle(hub: Hub, asked: BundleRequest, sites: Sequence[SiteRecord]) -> BundleAnswer:
    """Return the bundle for some sites, in as many files as its size takes.

    Raises:
        Rejected: there is nothing for a site (`bundle.nothing`), it is too much for one (`bundle.too_much`), a blob is
            larger than a file may be (`bundle.too_large`), or `since` is no bundle of this hub (`bundle.foreign`).
        Conflict: a site is held until a person decides (`site.held`).
        Untrusted: what is signed is not good for so long (`metadata.*`).
    """
    valid = timedelta(seconds=asked.valid_for_s)
    since = _since(hub, asked.since)
    await asyncio.to_thread(hub.repository.renew, valid)
    now = hub.clock.now()
    for record in sites:
        if hub.issuer.recovering.held(record.name):
            hint = "skerry describe site says why; adopt or reissue it first"
            raise Conflict("site.held", f"site {record.name} is held: it is issued nothing", hint=hint)
    envelopes = {record.name: (await hub.issuer.issued(record.name)).envelope for record in sites}
    gathering = _Gathering(hub, asked, since, now)
    needs = [await asyncio.to_thread(gathering.site, record, envelopes[record.name]) for record in sites]
    metadata, expires_at = await asyncio.to_thread(gathering.metadata, needs)
    deltas, pending, left_s = await _find_deltas(hub, needs, make=asked.make and not asked.full)
    small = [*_metadata_pieces(metadata), *_desired_pieces(needs)]
    blobs = await _blob_pieces(hub, needs, deltas)
    expires_at = min([expires_at, *(site.desired.expires_at for site in needs)])
    groups = _pack(small, blobs, asked.max_size_bytes)
    files = [
        _manifest(hub, needs, [*small, *group], now=now, expires_at=expires_at, part=(number, len(groups)))
        for number, group in enumerate(groups, 1)
    ]
    notes = [note for site in needs for note in site.notes]
    if expires_at < now + valid:
        notes.append(
            f"it is good until {expires_at:%Y-%m-%d %H:%MZ} only: something offline is to be signed anew"
        )
    return BundleAnswer(
        files=tuple(sign_document(manifest, BUNDLE_TYPE, hub.keys.key) for manifest in files),
        small=tuple(piece.content or b"" for piece in small),
        pending=pending,
        left_s=left_s,
        notes=tuple(dict.fromkeys(notes)),
    )


class _Gathering:
    """One look at the store; every release is read once. Blocking."""

    def __init__(self, hub: Hub, asked: BundleRequest, since: BundleManifest | None, now: datetime) -> None:
        self._hub = hub
        self._asked = asked
        self._since = since
        self._now = now
        self._previewing = Previewing(hub.store)
        self._releases: dict[str, tuple[ReleaseRecord, Release] | None] = {}
        self._previewers: dict[str, Previewer] = {}
        self._hosts: dict[str, Mapping[str, PreviewHost]] = {}

    def site(self, record: SiteRecord, envelope: JsonEnvelope | None) -> _SiteNeeds:
        """Return what a site needs."""
        if envelope is None:
            hint = "assign something to it: skerry rollout start"
            raise Rejected("bundle.nothing", f"nothing was ever issued to site {record.name}", hint=hint)
        verifier = self._hub.keys.key.verifier
        desired = verify_document(envelope, DESIRED_STATE_TYPE, DesiredState, [verifier])
        until = self._now + timedelta(seconds=self._asked.valid_for_s)
        if desired.expires_at < until:
            # The same generation: it says the same, for longer.
            desired = msgspec.structs.replace(desired, expires_at=until)
            envelope = sign_document(desired, DESIRED_STATE_TYPE, self._hub.keys.key)
        notes: list[str] = []
        hosts = [self._host(host, desired, notes) for host in self._hub.store.hosts(record.name)]
        if len(hosts) > MAX_BUNDLE_HOSTS:
            raise _too_much(f"site {record.name} has {len(hosts)} hosts")
        if msgspec.json.decode(record.document, type=Site).spec.reached_by != "bundle":
            notes.append(
                f"site {record.name} does not say that it is reached by bundles: rollouts offer it nothing while it"
                " is silent; set spec.reached_by to bundle"
            )
        return _SiteNeeds(record.name, desired, msgspec.json.encode(envelope), tuple(hosts), tuple(notes))

    def metadata(self, needs: Iterable[_SiteNeeds]) -> tuple[dict[str, bytes], datetime]:
        """Return the files by which a host judges these releases, and when the first of them expires.

        They are found as a host finds them, from the first root on.
        """
        store, files = self._hub.store, dict[str, bytes]()

        def answer(step: Step) -> bytes | None:
            if not isinstance(step, Remote):
                return None
            content = self._hub.repository.file(step.name)
            if content is not None:
                files[step.name] = content
            return content

        versions = range(1, store.metadata_versions()["root"] + 1)
        first = next(version for version in versions if store.metadata("root", version))
        pinned = store.metadata("root", first)
        assert pinned is not None
        files[f"{first}.root.json"] = pinned  # hosts have pinned it; who looks into the bundle has not
        trusted = run_steps(refresh(pinned, now=self._now), answer)
        expires = [trusted.expires_at]
        refs = {name: ref for site in needs for name, ref in site.desired.releases.items()}
        for name, ref in sorted(refs.items()):
            found = (
                run_steps(find_target(trusted, target_path(ref.publisher, name)), answer)
                if ref.publisher
                else None
            )
            if found is not None:
                expires.append(found.expires_at)
        return files, min(expires)

    def _host(self, host: HostRecord, desired: DesiredState, notes: list[str]) -> _HostNeeds:
        files: dict[str, _File] = {}
        bases: dict[str, tuple[Base, ...]] = {}
        arrived, before = self._arrived(host)
        names = [assignment.release for assignment in desired.hosts.get(host.name, ())]
        for name in names:
            found = self._release(name)
            if found is None:
                raise Missing("release.missing", f"there is no release {name}")
            record, release = found
            view = host.observed.applications.get(record.application) if host.observed else None
            if not self._asked.full and view is not None and view.release == name and not view.candidate:
                continue  # it runs it
            known = self._known(host, record.application)
            wanted, held = self._files(host, record, release, known, notes)
            if not self._asked.full:
                base = self._held_files(record.application, known, view.release if view else "", before)
                wanted = {digest: file for digest, file in wanted.items() if digest not in arrived | held}
                placed = [
                    PlacedFile(file.group, file.place, file.digest, file.size_bytes, file.is_layer)
                    for file in place_files(release, self._choices(release, known) or ())
                ]
                bases |= find_bases(placed, base)
            files |= wanted
        return _HostNeeds(host, tuple(names), files, {k: v for k, v in bases.items() if k in files})

    def _files(
        self,
        host: HostRecord,
        record: ReleaseRecord,
        release: Release,
        known: PreviewHost | None,
        notes: list[str],
    ) -> tuple[dict[str, _File], frozenset[str]]:
        """Return what a host needs to run a release, and what of anything it is known to hold."""
        wanted = {record.digest: _File(len(record.document), f"{record.name}")}
        choices = self._choices(release, known)
        if choices is None:
            notes.append(
                f"host {host.name} has told no facts, or fits no variant: all variants of {record.name} are in"
            )
            wanted |= {str(f.digest): _File(f.size_bytes, f"{record.name} {f.path}") for f in release.files()}
            return wanted, known.holds if known else frozenset()
        wanted |= {
            file.digest: _File(file.size_bytes, f"{record.name} {file.group}/{file.place}")
            for file in place_files(release, choices)
        }
        for model in release.models:
            for case in model.spec.self_test.cases if model.spec.self_test else ():
                wanted |= {
                    str(f.digest): _File(f.size_bytes, f"{record.name} self-test {f.path}")
                    for f in (case.input, case.expected)
                }
        assert known is not None
        return wanted, known.holds

    def _choices(self, release: Release, known: PreviewHost | None) -> list[VariantChoice] | None:
        """Return which variants a host will choose; None when nobody can tell."""
        if known is None or not known.facts:
            return None
        if release.name not in self._previewers:
            self._previewers[release.name] = Previewer(release)
        previewer = self._previewers[release.name]
        answer = previewer.answer(known)
        if answer.reasons:
            return None
        return [
            VariantChoice(
                kind=slot.kind, model=slot.name, version=slot.version, variant=slot.candidates[number].name
            )
            for slot, number in zip(previewer.asked.slots, answer.chosen, strict=True)
        ]

    def _known(self, host: HostRecord, application: str) -> PreviewHost | None:
        if (
            application not in self._hosts
        ):  # the whole fleet at once: asked by site, it would be read for each
            self._hosts[application] = self._previewing.hosts(application, Selector())
        return self._hosts[application].get(host.name)

    def _held_files(
        self, application: str, known: PreviewHost | None, running: str, before: Sequence[str]
    ) -> list[PlacedFile]:
        """Return the files of the release that this host has now, as far as one knows: the later of both ways."""
        named = next((name for name in before if name.partition("@")[0] == application), running)
        found = self._release(named) if named else None
        choices = self._choices(found[1], known) if found else None
        return list(place_files(found[1], choices)) if found and choices is not None else []

    def _arrived(self, host: HostRecord) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the blobs that an earlier bundle brought to a host, and the releases it was to run then."""
        site = self._since.sites.get(host.site) if self._since else None
        found = site.hosts.get(host.name) if site else None
        if found is None or self._since is None:
            return frozenset(), ()
        return frozenset(self._since.entries[place].brings for place in found.entries), found.releases

    def _release(self, name: str) -> tuple[ReleaseRecord, Release] | None:
        if name not in self._releases:
            record = self._hub.store.release(name)
            decoded = msgspec.json.decode(record.document, type=Release) if record else None
            self._releases[name] = (record, decoded) if record and decoded else None
        return self._releases[name]


def _since(hub: Hub, envelope: JsonEnvelope | None) -> BundleManifest | None:
    """Return the manifest of an earlier bundle, which this hub has signed."""
    if envelope is None:
        return None
    manifest = verify_document(envelope, BUNDLE_TYPE, BundleManifest, [hub.keys.key.verifier])
    check_manifest(manifest)
    return manifest


async def _find_deltas(
    hub: Hub, needs: Sequence[_SiteNeeds], *, make: bool
) -> tuple[dict[str, DeltaAvailable], int, float]:
    """Return, by blob, the delta that every host that wants it can use; how many others are made, and for how long."""
    options: dict[str, set[Base]] = {}
    wanted: dict[str, int] = {}
    for host in (host for site in needs for host in site.hosts):
        for digest, file in host.files.items():
            mine = set(host.bases.get(digest, ()))
            options[digest] = options[digest] & mine if digest in options else mine
            wanted[digest] = file.size_bytes
    questions = [
        DeltaQuestion(target=digest, bases=tuple(sorted(bases, key=len, reverse=True)[:4]))
        for digest, bases in options.items()
        if bases
    ]
    if not make:
        return {}, 0, 0.0
    found: dict[str, DeltaAvailable] = {}
    pending, left_s = 0, 0.0
    for start in range(0, len(questions), MAX_DELTA_QUESTIONS):
        part = tuple(questions[start : start + MAX_DELTA_QUESTIONS])
        answer = await hub.deltas.answer("bundles", DeltaRequest(wanted=part))
        for one in answer.available:
            best = found.get(one.target)
            if one.size_bytes < min(wanted[one.target], best.size_bytes if best else wanted[one.target]):
                found[one.target] = one
        pending += len(answer.coming)
        left_s = max([left_s, *(one.left_s for one in answer.coming)])
    return found, pending, left_s


def _metadata_pieces(files: Mapping[str, bytes]) -> Iterator[_Piece]:
    for name, content in files.items():
        yield _piece("metadata", name, content)


def _desired_pieces(needs: Iterable[_SiteNeeds]) -> Iterator[_Piece]:
    for site in needs:
        yield _piece("desired", site.name, site.envelope)


def _piece(kind: str, name: str, content: bytes) -> _Piece:
    entry = BundleEntry(
        kind="metadata" if kind == "metadata" else "desired",
        name=name,
        digest=digest_of(content),
        size_bytes=len(content),
        offset=0,
    )
    return _Piece(entry, content)


async def _blob_pieces(
    hub: Hub, needs: Iterable[_SiteNeeds], deltas: Mapping[str, DeltaAvailable]
) -> list[_Piece]:
    """Return the blobs that somebody needs, each once, release documents first.

    Raises:
        Rejected: one is not here (`release.incomplete`).
    """
    files = {digest: file for site in needs for host in site.hosts for digest, file in host.files.items()}
    pieces: list[_Piece] = []
    for digest, file in sorted(files.items(), key=lambda item: (" " in item[1].name, item[1].name, item[0])):
        delta = deltas.get(digest)
        size = await hub.deltas.readable.size(delta.delta if delta else digest)
        if size is None or size != (delta.size_bytes if delta else file.size_bytes):
            raise Rejected("release.incomplete", f"blob {short(digest)} of {file.name} is not here")
        entry = BundleEntry(
            kind="delta" if delta else "blob",
            name=file.name[:512],
            digest=delta.delta if delta else digest,
            size_bytes=size,
            offset=0,
            base=delta.base if delta else (),
            target=digest if delta else "",
            target_bytes=file.size_bytes if delta else 0,
        )
        pieces.append(_Piece(entry))
    return pieces


def _pack(small: Sequence[_Piece], blobs: Sequence[_Piece], most: int | None) -> list[list[_Piece]]:
    """Return the blobs of each file; every file has metadata and desired states, so that each is of use alone."""
    always = sum(piece.entry.size_bytes for piece in small)
    if always > MAX_SMALL_BYTES:
        raise _too_much(f"what is signed alone takes {format_size(always)}")
    groups: list[list[_Piece]] = [[]]
    size = 0
    for piece in blobs:
        # A manifest takes about this much for each of its entries, twice over for being encoded.
        takes = piece.entry.size_bytes + 1024
        if most is not None and always + HEAD_ROOM + takes > most:
            message = (
                f"{piece.entry.name} takes {format_size(takes)}, and a file has room for {format_size(most)}"
            )
            raise Rejected("bundle.too_large", message, hint="give a larger --max-size")
        full = len(small) + len(groups[-1]) >= MAX_BUNDLE_ENTRIES
        if groups[-1] and (full or (most is not None and always + HEAD_ROOM + size + takes > most)):
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += takes
    return groups


def _manifest(
    hub: Hub,
    needs: Sequence[_SiteNeeds],
    pieces: Sequence[_Piece],
    *,
    now: datetime,
    expires_at: datetime,
    part: tuple[int, int],
) -> BundleManifest:
    """Return the manifest of one file."""
    entries: list[BundleEntry] = []
    offset = 0
    for piece in pieces:
        entries.append(msgspec.structs.replace(piece.entry, offset=offset))
        offset += piece.entry.size_bytes
    places = {entry.brings: number for number, entry in enumerate(entries) if entry.kind in ("blob", "delta")}
    sites = {
        site.name: BundleSite(
            generation=site.desired.generation,
            hosts={
                one.host.name: BundleHost(
                    acknowledged=one.host.sequence,
                    entries=tuple(places[digest] for digest in one.files if digest in places),
                    releases=one.releases,
                )
                for one in site.hosts
            },
        )
        for site in needs
    }
    manifest = BundleManifest(
        id=secrets.token_hex(16),
        hub=hub.keys.trust_root.hub,
        made_at=now,
        expires_at=expires_at,
        part=part[0],
        parts=part[1],
        sites=sites,
        entries=tuple(entries),
    )
    check_manifest(manifest)
    if len(msgspec.json.encode(manifest)) > MAX_PAYLOAD_BYTES:
        raise _too_much("its manifest would be too long")
    return manifest


def _too_much(why: str) -> Rejected:
    return Rejected(
        "bundle.too_much", f"that is too much for a bundle: {why}", hint="export fewer sites at a time"
    )
