"""Releases on the host's disk: reading their documents, choosing variants, laying out files.

`releases/<digest>/` holds `bundles/<component>/...`, `models/<model>/...`, for self-tests `inputs/<component>/
<model>/<case>/...` and `expected/<model>/<case>/...`, and `prepared.json`, which pins what was chosen. A layout
is made beside and renamed: it is there whole or not at all. Whoever names an edition means its release; what
`fact` tells is of the edition. Files are hard links to verified blobs where the
file system allows. Images are not laid out: the engine is given their blobs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.agent.configurations import Configurations
from skerry.agent.resolving import Resolved, resolve_release
from skerry.delivery.relatives import Base, find_bases, place_files
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import hex_of
from skerry.kit.durable import write_file
from skerry.kit.editions import configuration_in, edition_name, release_in
from skerry.kit.errors import Unavailable, Untrusted
from skerry.matching.releases import variant_key
from skerry.ports.blobs import LocalBlobs
from skerry.ports.images import ImageParts
from skerry.reconcile.records import ReleaseFact
from skerry.spec.desired import SitePolicy
from skerry.spec.documents import check_release
from skerry.spec.facts import HostFacts
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.trust.envelope import decode_document


class _Prepared(msgspec.Struct, frozen=True):
    """What `prepared.json` says."""

    digest: str
    choices: tuple[VariantChoice, ...]
    application: str = ""
    devices: Mapping[str, Mapping[str, str]] = {}
    claims: frozenset[str] = frozenset()
    tested: bool = False


class Releases:
    """The releases one host knows."""

    def __init__(
        self,
        directory: Path,
        blobs: LocalBlobs,
        *,
        configurations: Configurations | None = None,
        device_is_there: Callable[[str], bool] = os.path.exists,
    ) -> None:
        self._directory = directory
        self._device_is_there = device_is_there
        self._blobs = blobs
        self._configurations = configurations
        self._resolved: dict[str, Resolved] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._facts: HostFacts = {}
        self._policy = SitePolicy()
        self._failed: Mapping[str, str] = {}
        self._loaded: AbstractSet[str] = frozenset()
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob("*.new"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in directory.iterdir():
            self._load_prepared(folder)

    def set_facts(self, facts: HostFacts, policy: SitePolicy) -> None:
        """Choose variants by these facts from now on; what is laid out keeps its choice."""
        if (facts, policy) != (self._facts, self._policy):
            self._facts, self._policy = facts, policy
            self._resolved.clear()

    def set_failed(self, failed: Mapping[str, str]) -> None:
        """Pass these variants over from now on (`variant_key` -> why); a layout that was proven keeps them."""
        if failed == self._failed:
            return
        self._failed = dict(failed)
        self._resolved.clear()
        for digest, prepared in list(self._prepared.items()):
            keys = {variant_key(choice.model, choice.version, choice.variant) for choice in prepared.choices}
            if not prepared.tested and keys & failed.keys():
                del self._prepared[digest]

    def set_loaded(self, images: AbstractSet[str]) -> None:
        """State which images the engine holds."""
        self._loaded = images

    def fact(self, edition: str) -> ReleaseFact | None:
        """Return what the planner needs to know of a release with its configuration, None while one is not here."""
        digest, wanted = release_in(edition), configuration_in(edition)
        resolved = self._resolve(digest)
        configured = self._configurations.load(wanted) if wanted and self._configurations else None
        if resolved is None or (wanted and configured is None):
            return None
        spec = resolved.release.application.spec
        prepared = self._prepared.get(digest)
        images = {component: parts.identity for component, parts in resolved.images.items()}
        return ReleaseFact(
            name=edition_name(resolved.release.name, configured.revision if configured else ""),
            digest=edition,
            components=spec.components,
            choices=resolved.choices,
            problem=resolved.problem,
            missing_bytes=sum(file.size_bytes for file in self._missing(digest, resolved)),
            prepared=prepared is not None and self._loaded >= set(images.values()),
            tested=not resolved.has_tests or (prepared is not None and prepared.tested),
            family=resolved.kinship.family,
            frame=resolved.kinship.frame,
            hot=resolved.kinship.hot,
            update=spec.update,
            topics=spec.topics,
            alone=resolved.kinship.alone,
            failed=resolved.failed,
            images=images,
            configured=configured,
            ingress=spec.ingress,
            needs=spec.needs,
        )

    def release(self, digest: str) -> Release | None:
        """Return a release's document, or None while it is not here."""
        resolved = self._resolve(digest)
        return resolved.release if resolved else None

    def devices(self, digest: str, component: str) -> Mapping[str, str]:
        """Return what each device of a component is on this host."""
        resolved = self._resolve(digest)
        return resolved.devices.get(component, {}) if resolved else {}

    def image(self, digest: str, component: str) -> ImageParts | None:
        """Return the image that was chosen for a component, or None when it has none."""
        resolved = self._resolve(digest)
        return resolved.images.get(component) if resolved else None

    def images_of(self, digest: str) -> list[ImageParts]:
        """Return the images a release needs on this host."""
        resolved = self._resolve(digest)
        return list(resolved.images.values()) if resolved else []

    def laid_out(self) -> frozenset[str]:
        """Return the digests of all prepared releases."""
        return frozenset(self._prepared)

    def missing(self, digest: str) -> list[FileSpec]:
        """Return the files of a release this host still has to fetch."""
        resolved = self._resolve(digest)
        return [] if resolved is None else self._missing(digest, resolved)

    def bases(self, digest: str, of: str) -> dict[str, tuple[Base, ...]]:
        """Return, by file of a release, what of another one that is here a delta to it may be made from."""
        resolved, other = self._resolve(digest), self._resolve(of)
        if resolved is None:
            return {}
        placed = place_files(other.release, other.choices) if other else ()
        held = [file for file in placed if self._blobs.has(file.digest)]
        return find_bases(list(place_files(resolved.release, resolved.choices)), held)

    def blobs_of(self, digest: str) -> set[str]:
        """Return the digests of everything a release needs on this host, its document included."""
        digest = release_in(digest)
        resolved = self._resolve(digest)
        if resolved is None:
            return {digest}
        images = {blob for parts in resolved.images.values() for blob, _ in (parts.config, *parts.layers)}
        return {digest, *images, *(str(file.digest) for _, file in resolved.files)}

    def loaded_layers(self, digest: str) -> set[str]:
        """Return the layers of a release's images that the engine holds, so that nobody needs the blobs to run it."""
        loaded = [parts for parts in self.images_of(digest) if parts.identity in self._loaded]
        return {blob for parts in loaded for blob, _ in parts.layers}

    def folder(self, digest: str) -> Path:
        """Return where a release is laid out."""
        return self._directory / hex_of(release_in(digest))

    def prepare(self, digest: str) -> None:
        """Verify every file and lay the release out; again is harmless. Blocking.

        Raises:
            Untrusted: a blob does not match its digest; it was removed and must be fetched again.
            Unavailable: no room.
        """
        digest = release_in(digest)
        resolved = self._resolve(digest)
        if resolved is None or resolved.problem or digest in self._prepared:
            return
        for _, file in resolved.files:
            if not self._blobs.verify(str(file.digest)):
                raise Untrusted("blob.damaged", f"{file.path} was damaged on disk; it is fetched again")
        folder = self.folder(digest)
        beside = folder.with_name(folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        prepared = _Prepared(
            digest,
            resolved.choices,
            application=resolved.release.application.metadata.name,
            devices=resolved.devices,
            claims=resolved.claims,
        )
        try:
            # A release of images alone has no files to lay out, which would make the folder.
            beside.mkdir(parents=True)
            for place, file in resolved.files:
                lay_file(self._blobs.path(str(file.digest)), beside / place)
            write_file(beside / "prepared.json", msgspec.json.encode(prepared))
            shutil.rmtree(folder, ignore_errors=True)
            beside.replace(folder)
        except (OSError, Unavailable) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise Unavailable("disk.full", f"cannot lay out {resolved.release.name}: {error}") from error
        self._prepared[digest] = prepared
        # Devices it claims are taken for whoever is not laid out yet.
        self._resolved.clear()

    def mark_tested(self, digest: str) -> None:
        """Remember, durably, that the self-tests of a laid-out release passed."""
        digest = release_in(digest)
        prepared = self._prepared.get(digest)
        if prepared is not None and not prepared.tested:
            tested = msgspec.structs.replace(prepared, tested=True)
            write_file(self.folder(digest) / "prepared.json", msgspec.json.encode(tested))
            self._prepared[digest] = tested

    def discard(self, digest: str) -> None:
        """Remove a release's laid-out files; unknown ones are fine."""
        self._prepared.pop(release_in(digest), None)
        self._resolved.clear()
        shutil.rmtree(self.folder(digest), ignore_errors=True)

    def _resolve(self, digest: str) -> Resolved | None:
        digest = release_in(digest)
        if digest in self._resolved:
            return self._resolved[digest]
        if not digest or not self._blobs.has(digest):
            return None
        try:
            if not self._blobs.verify(digest):
                return None
            release = decode_document(self._blobs.path(digest).read_bytes(), Release)
        except (OSError, Untrusted):
            return None
        problems = check_release(release)
        if problems:
            resolved = Resolved(release, problem=f"the release is not valid: {problems[0]}")
        else:
            pinned = self._prepared.get(digest)
            resolved = resolve_release(
                release,
                self._facts,
                self._policy,
                pinned=pinned.choices if pinned else (),
                failed=self._failed,
                taken=self._taken(release.application.metadata.name),
            )
            if not pinned and (lacking := self._lacking_devices(resolved)):
                resolved = Resolved(release, failed=resolved.failed, problem=lacking)
            if pinned:
                resolved = msgspec.structs.replace(resolved, devices=pinned.devices, claims=pinned.claims)
        self._resolved[digest] = resolved
        return resolved

    def _lacking_devices(self, resolved: Resolved) -> str:
        """Return which device paths name nothing here: what facts cannot tell is seen before anything is stopped."""
        return "; ".join(
            f"{component}: needs device {name}: {path}, which is not there"
            for component, devices in resolved.devices.items()
            for name, path in devices.items()
            if path.startswith("/dev/") and not self._device_is_there(path)
        )

    def _taken(self, application: str) -> frozenset[str]:
        """Return the devices that laid-out releases of other applications have for themselves."""
        others = (p for p in self._prepared.values() if p.application != application)
        return frozenset(device for prepared in others for device in prepared.claims)

    def _missing(self, digest: str, resolved: Resolved) -> list[FileSpec]:
        files = [] if release_in(digest) in self._prepared else [file for _, file in resolved.files]
        unique = {str(file.digest): file for file in files}
        for parts in resolved.images.values():
            if parts.identity not in self._loaded:
                unique.update(
                    (blob, FileSpec(path="blob", digest=blob, size_bytes=size))
                    for blob, size in (parts.config, *parts.layers)
                )
        return [file for blob, file in unique.items() if not self._blobs.has(blob)]

    def _load_prepared(self, folder: Path) -> None:
        try:
            prepared = msgspec.json.decode((folder / "prepared.json").read_bytes(), type=_Prepared)
        except (OSError, *UNREADABLE):
            shutil.rmtree(folder, ignore_errors=True)
            return
        self._prepared[prepared.digest] = prepared


def lay_file(blob: Path, place: Path) -> None:
    """Put a file in its place, as a hard link where the file system has them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob, place)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(blob, place)
    place.chmod(0o555)
