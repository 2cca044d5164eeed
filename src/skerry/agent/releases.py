"""Releases on the host's disk: reading their documents, choosing variants, laying out files.

`releases/<digest>/bundles/<component>/...`, `releases/<digest>/models/<model>/...`, and `prepared.json`, which
pins the variants that were chosen. A layout is made beside and renamed: it is there whole or not at all.
Files are hard links to verified blobs where the file system allows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skerry.kit.digests import hex_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable, Untrusted
from skerry.matching.variants import Choice, match_variant
from skerry.ports.blobs import LocalBlobs
from skerry.reconcile.records import ReleaseFact
from skerry.spec.documents import check_release
from skerry.spec.facts import HostFacts
from skerry.spec.model import FileSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.trust.envelope import decode_document


class _Prepared(msgspec.Struct, frozen=True):
    """What `prepared.json` says."""

    digest: str
    choices: tuple[VariantChoice, ...]


class _Resolved(msgspec.Struct, frozen=True):
    """A release as this host would run it: each file with its place in the layout."""

    release: Release
    choices: tuple[VariantChoice, ...]
    files: tuple[tuple[str, FileSpec], ...]
    problem: str = ""


class Releases:
    """The releases one host knows."""

    def __init__(self, directory: Path, blobs: LocalBlobs) -> None:
        self._directory = directory
        self._blobs = blobs
        self._resolved: dict[str, _Resolved] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._facts: HostFacts = {}
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob("*.new"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in directory.iterdir():
            self._load_prepared(folder)

    def set_facts(self, facts: HostFacts) -> None:
        """Choose variants by these facts from now on; what is laid out keeps its choice."""
        if facts != self._facts:
            self._facts = facts
            self._resolved.clear()

    def fact(self, digest: str) -> ReleaseFact | None:
        """Return what the planner needs to know, or None while the document is not here."""
        resolved = self._resolve(digest)
        if resolved is None:
            return None
        release = resolved.release
        return ReleaseFact(
            name=release.name,
            digest=digest,
            components=release.application.spec.components,
            choices=resolved.choices,
            problem=resolved.problem,
            missing_bytes=0
            if digest in self._prepared
            else sum(f.size_bytes for f in self._missing(resolved)),
            prepared=digest in self._prepared,
        )

    def laid_out(self) -> frozenset[str]:
        """Return the digests of all prepared releases."""
        return frozenset(self._prepared)

    def missing(self, digest: str) -> list[FileSpec]:
        """Return the files of a release this host still has to fetch."""
        resolved = self._resolve(digest)
        return [] if resolved is None else self._missing(resolved)

    def blobs_of(self, digest: str) -> set[str]:
        """Return the digests of everything a release needs on this host, its document included."""
        resolved = self._resolve(digest)
        return {digest} if resolved is None else {digest, *(str(file.digest) for _, file in resolved.files)}

    def bundle(self, digest: str, component: str) -> Path:
        """Return where a component's bundle is laid out."""
        return self._folder(digest) / "bundles" / component

    def model(self, digest: str, model: str) -> Path:
        """Return where the chosen variant of a model is laid out."""
        return self._folder(digest) / "models" / model

    def prepare(self, digest: str) -> None:
        """Verify every file and lay the release out; again is harmless.

        Raises:
            Untrusted: a blob does not match its digest; it was removed and must be fetched again.
            Unavailable: no room.
        """
        resolved = self._resolve(digest)
        if resolved is None or digest in self._prepared:
            return
        for _, file in resolved.files:
            if not self._blobs.verify(str(file.digest)):
                raise Untrusted("blob.damaged", f"{file.path} was damaged on disk; it is fetched again")
        folder = self._folder(digest)
        beside = folder.with_name(folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        prepared = _Prepared(digest, resolved.choices)
        try:
            for place, file in resolved.files:
                _lay(self._blobs.path(str(file.digest)), beside / place)
            write_file(beside / "prepared.json", msgspec.json.encode(prepared))
            shutil.rmtree(folder, ignore_errors=True)
            beside.replace(folder)
        except (OSError, Unavailable) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise Unavailable("disk.full", f"cannot lay out {resolved.release.name}: {error}") from error
        self._prepared[digest] = prepared

    def discard(self, digest: str) -> None:
        """Remove a release's laid-out files; unknown ones are fine."""
        self._prepared.pop(digest, None)
        self._resolved.pop(digest, None)
        shutil.rmtree(self._folder(digest), ignore_errors=True)

    def _resolve(self, digest: str) -> _Resolved | None:
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
        pinned = self._prepared.get(digest)
        resolved = (
            _Resolved(release, (), (), problem=f"the release is not valid: {problems[0]}")
            if problems
            else _resolve_release(release, self._facts, pinned.choices if pinned else ())
        )
        self._resolved[digest] = resolved
        return resolved

    def _missing(self, resolved: _Resolved) -> list[FileSpec]:
        unique = {str(file.digest): file for _, file in resolved.files}
        return [file for digest, file in unique.items() if not self._blobs.has(digest)]

    def _load_prepared(self, folder: Path) -> None:
        try:
            prepared = msgspec.json.decode((folder / "prepared.json").read_bytes(), type=_Prepared)
        except (OSError, msgspec.DecodeError):
            shutil.rmtree(folder, ignore_errors=True)
            return
        self._prepared[prepared.digest] = prepared

    def _folder(self, digest: str) -> Path:
        return self._directory / hex_of(digest)


def _resolve_release(release: Release, facts: HostFacts, pinned: tuple[VariantChoice, ...]) -> _Resolved:
    """Choose a variant for every model the components mount; a pinned choice stays."""
    choices: dict[tuple[str, str], VariantChoice] = {
        (choice.model, choice.version): choice for choice in pinned
    }
    files: list[tuple[str, FileSpec]] = []
    for component in release.application.spec.components:
        bundled = component.bundle.files if component.bundle else ()
        files.extend((f"bundles/{component.name}/{file.path}", file) for file in bundled)
        for mount in component.models:
            model = release.model(mount.name, mount.version)
            assert model is not None  # check_release has seen to it
            key = (mount.name, mount.version)
            if key not in choices:
                match = match_variant(model.spec, facts)
                if not isinstance(match, Choice):
                    reasons = "; ".join(match.reasons)
                    return _Resolved(
                        release, (), (), problem=f"no variant of {mount.name} fits this host: {reasons}"
                    )
                choices[key] = VariantChoice(
                    model=mount.name, version=mount.version, variant=match.variant.name, why=match.why
                )
            files.extend(_variant_files(model.spec.variants, choices[key], mount.name))
    return _Resolved(release, tuple(choices.values()), tuple(dict(files).items()))


def _variant_files(
    variants: tuple[Variant, ...], choice: VariantChoice, mount: str
) -> Iterator[tuple[str, FileSpec]]:
    for variant in variants:
        if variant.name == choice.variant:
            yield from ((f"models/{mount}/{file.path}", file) for file in variant.files)


def _lay(blob: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob, place)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(blob, place)
    place.chmod(0o555)
