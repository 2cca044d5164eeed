"""From documents and files on disk to a release in which every file is pinned by digest.

Rules: a file is read once to be hashed and must not change meanwhile, nor before it is uploaded; links are
followed, but only ordinary files are taken; whatever is wrong with any file is told at once, with the line
that names it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import Digest
from skerry.kit.errors import Rejected
from skerry.spec.application import Application
from skerry.spec.documents import check_release, kind_of
from skerry.spec.model import FileSpec, Model
from skerry.spec.parsing import Parsed, decode_text, parse_documents
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release

_READ_BYTES = 1 << 20

Hashed = Callable[[Path, int, int], None]
"""Called while a file is hashed: which, how much of it, of how much."""


class SourceFile(msgspec.Struct, frozen=True):
    """A file as it was when it was hashed; `identity` changes whenever its content may have."""

    path: Path
    digest: Digest
    size_bytes: int
    identity: tuple[int, int, int, int]


class PreparedRelease(msgspec.Struct, frozen=True):
    """A release ready to be pushed: its document, and the file behind each digest."""

    release: Release
    content: bytes
    sources: dict[str, SourceFile]


def open_source(path: Path) -> BinaryIO:
    """Open an ordinary file to read.

    Raises:
        OSError: it cannot be opened.
        Rejected: it is a directory, device, pipe or socket (`push.not_a_file`).
    """
    # Not blocking, because opening a pipe that nobody writes to would wait for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", closefd=True)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Rejected("push.not_a_file", f"{path} is not an ordinary file")
    return file


def identity_of(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return what tells two states of a file apart."""
    seen = os.fstat(file.fileno())
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def changed(path: Path) -> Rejected:
    """Return the error for a file that did not hold still."""
    hint = "wait until whatever writes it has finished, then push again"
    return Rejected("push.changed", f"{path} changed while it was read", hint=hint)


def hash_source(path: Path, on_progress: Hashed) -> SourceFile:
    """Return a file with its digest.

    Raises:
        OSError: it cannot be read.
        Rejected: it is no ordinary file, or it changed while it was read (`push.changed`).
    """
    state, read_bytes = hashlib.sha256(), 0
    with open_source(path) as file:
        identity = identity_of(file)
        while chunk := file.read(_READ_BYTES):
            state.update(chunk)
            read_bytes += len(chunk)
            on_progress(path, read_bytes, identity[2])
        if identity_of(file) != identity or read_bytes != identity[2]:
            raise changed(path)
    return SourceFile(path, Digest("sha256:" + state.hexdigest()), read_bytes, identity)


def read_release(path: Path, on_progress: Hashed) -> PreparedRelease:
    """Return the release that a file of documents describes: one Application and the Models it mounts.

    Raises:
        DocumentRejected: with every problem of the documents, or else of the files they name.
        Rejected: the file itself cannot be read.
    """
    try:
        with open_source(path) as file:
            content = file.read()
    except OSError as error:
        raise Rejected("push.unreadable", f"{path}: {error.strerror}") from None
    parsed = parse_documents(decode_text(content, file=str(path)), file=str(path))
    _check_kinds(parsed, str(path))
    pinning = _Pinning(path.parent, on_progress)
    applications = [pinning.application(p, p.document) for p in parsed if isinstance(p.document, Application)]
    models = [pinning.model(p, p.document) for p in parsed if isinstance(p.document, Model)]
    if pinning.problems:
        raise DocumentRejected(pinning.problems)
    release = Release(application=applications[0], models=tuple(models))
    if problems := check_release(release):
        raise DocumentRejected([msgspec.structs.replace(p, file=str(path)) for p in problems])
    return PreparedRelease(release, encode_canonical(release), pinning.sources)


def _check_kinds(parsed: list[Parsed], file: str) -> None:
    problems = [
        p.problem_at(
            "kind", f"a {kind_of(p.document)} is no part of a release", "apply it: skerry apply -f FILE"
        )
        for p in parsed
        if not isinstance(p.document, (Application, Model))
    ]
    applications = [p for p in parsed if isinstance(p.document, Application)]
    if not applications:
        problems.append(
            Problem("", "no Application in it", "a release is one Application and its Models", file)
        )
    problems += [
        p.problem_at("kind", "a second Application", "one file per release") for p in applications[1:]
    ]
    if problems:
        raise DocumentRejected(problems)


class _Pinning:
    """Replaces each file's `source` by digest and size; remembers the files, and what is wrong with them."""

    def __init__(self, directory: Path, on_progress: Hashed) -> None:
        self._directory = directory
        self._on_progress = on_progress
        self._hashed: dict[Path, SourceFile] = {}
        self.sources: dict[str, SourceFile] = {}
        self.problems: list[Problem] = []

    def application(self, parsed: Parsed, application: Application) -> Application:
        components = [
            msgspec.structs.replace(
                component,
                bundle=msgspec.structs.replace(
                    component.bundle,
                    files=self._files(
                        parsed, f"spec.components[{index}].bundle.files", component.bundle.files
                    ),
                ),
            )
            if component.bundle
            else component
            for index, component in enumerate(application.spec.components)
        ]
        spec = msgspec.structs.replace(application.spec, components=tuple(components))
        return msgspec.structs.replace(application, spec=spec)

    def model(self, parsed: Parsed, model: Model) -> Model:
        variants = [
            msgspec.structs.replace(
                variant, files=self._files(parsed, f"spec.variants[{index}].files", variant.files)
            )
            for index, variant in enumerate(model.spec.variants)
        ]
        spec = msgspec.structs.replace(model.spec, variants=tuple(variants))
        return msgspec.structs.replace(model, spec=spec)

    def _files(self, parsed: Parsed, path: str, files: tuple[FileSpec, ...]) -> tuple[FileSpec, ...]:
        return tuple(self._pin(parsed, f"{path}[{index}]", file) for index, file in enumerate(files))

    def _pin(self, parsed: Parsed, path: str, file: FileSpec) -> FileSpec:
        if not file.source:
            return file
        location = self._directory / file.source
        try:
            source = self._hashed.get(location) or hash_source(location, self._on_progress)
        except (OSError, ValueError, Rejected) as error:
            self.problems.append(_source_problem(parsed, f"{path}.source", file.source, error))
            return file
        self._hashed[location] = self.sources[source.digest] = source
        return FileSpec(path=file.path, digest=source.digest, size_bytes=source.size_bytes)


def _source_problem(parsed: Parsed, path: str, source: str, error: Exception) -> Problem:
    if isinstance(error, FileNotFoundError):
        hint = "the path is relative to this document; has the file been built?"
        return parsed.problem_at(path, f"no such file: {source}", hint)
    if isinstance(error, Rejected):
        return parsed.problem_at(path, error.message, error.hint or "only ordinary files can be pushed")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return parsed.problem_at(path, f"cannot be read: {source}: {reason}", "check its permissions")
