"""From documents, files on disk and images anywhere to a release in which everything is pinned by digest.

Rules: a file is read once to be hashed and must not change meanwhile, nor before it is uploaded; links are
followed, but only ordinary files are taken; whatever is wrong with any file is told at once, with the line
that names it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.client.images.pinning import PinnedVariants, pin_source, pin_variant
from skerry.client.images.reader import ImageReader
from skerry.client.source_files import Hashed, SourceFile, hash_source, open_source
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected
from skerry.spec.application import Application, Component
from skerry.spec.documents import check_release, kind_of
from skerry.spec.evidence import Evidence
from skerry.spec.image import Image, ImageVariant
from skerry.spec.model import FileSpec, Model, SelfTest
from skerry.spec.parsing import Parsed, decode_text, parse_documents
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release


class PreparedRelease(msgspec.Struct, frozen=True):
    """A release ready to be pushed: its document, the file behind each digest, and the evidence that goes with it."""

    release: Release
    content: bytes
    sources: dict[str, SourceFile]
    evidence: tuple[Evidence, ...] = ()


def read_release(path: Path, on_progress: Hashed, *, images: ImageReader | None = None) -> PreparedRelease:
    """Return the release that a file of documents describes: one Application and the Models it mounts.

    `images` reads what components name as images; without it, a release with images that are not pinned is refused.

    Raises:
        DocumentRejected: with every problem of the documents, or else of the files and images they name.
        Rejected: the file itself cannot be read.
        Unavailable, Denied, Untrusted: a registry or an engine does not give an image.
    """
    try:
        with open_source(path) as file:
            content = file.read()
    except OSError as error:
        raise Rejected("push.unreadable", f"{path}: {error.strerror}") from None
    parsed = parse_documents(decode_text(content, file=str(path)), file=str(path))
    _check_kinds(parsed, str(path))
    pinning = _Pinning(path.parent, on_progress, images)
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

    def __init__(self, directory: Path, on_progress: Hashed, images: ImageReader | None) -> None:
        self._directory = directory
        self._on_progress = on_progress
        self._images = images
        self._hashed: dict[Path, SourceFile] = {}
        self.sources: dict[str, SourceFile] = {}
        self.problems: list[Problem] = []

    def application(self, parsed: Parsed, application: Application) -> Application:
        components = tuple(
            self._component(parsed, f"spec.components[{index}]", component)
            for index, component in enumerate(application.spec.components)
        )
        spec = msgspec.structs.replace(application.spec, components=components)
        return msgspec.structs.replace(application, spec=spec)

    def model(self, parsed: Parsed, model: Model) -> Model:
        variants = tuple(
            msgspec.structs.replace(
                variant, files=self._files(parsed, f"spec.variants[{index}].files", variant.files)
            )
            for index, variant in enumerate(model.spec.variants)
        )
        self_test = model.spec.self_test and self._self_test(parsed, model.spec.self_test)
        spec = msgspec.structs.replace(model.spec, variants=variants, self_test=self_test)
        return msgspec.structs.replace(model, spec=spec)

    def _component(self, parsed: Parsed, path: str, component: Component) -> Component:
        if component.bundle:
            files = self._files(parsed, f"{path}.bundle.files", component.bundle.files)
            bundle = msgspec.structs.replace(component.bundle, files=files)
            component = msgspec.structs.replace(component, bundle=bundle)
        if component.image:
            image = self._image(parsed, f"{path}.image", component.image)
            component = msgspec.structs.replace(component, image=image)
        return component

    def _image(self, parsed: Parsed, path: str, image: Image) -> Image:
        if image.source:
            variants = self._variants(parsed, f"{path}.source", image)
            return msgspec.structs.replace(image, source=None, variants=variants)
        variants = tuple(
            pinned
            for index, variant in enumerate(image.variants)
            for pinned in (
                self._variants(parsed, f"{path}.variants[{index}].source", variant)
                if variant.source
                else (variant,)
            )
        )
        return msgspec.structs.replace(image, variants=variants)

    def _variants(self, parsed: Parsed, path: str, named: Image | ImageVariant) -> tuple[ImageVariant, ...]:
        try:
            pinned = self._pin_image(named)
        except (OSError, ValueError, Rejected) as error:
            self.problems.append(_source_problem(parsed, path, str(named.source), error))
            return ()
        self.sources.update((file.digest, file) for file in pinned.files)
        return pinned.variants

    def _pin_image(self, named: Image | ImageVariant) -> PinnedVariants:
        if self._images is None:
            raise Rejected(
                "push.no_images", "images cannot be read here", hint="push with skerry release push"
            )
        if isinstance(named, Image):
            return pin_source(named, self._directory, self._images)
        return pin_variant(named, self._directory, self._images)

    def _self_test(self, parsed: Parsed, self_test: SelfTest) -> SelfTest:
        cases = tuple(
            msgspec.structs.replace(
                case,
                input=self._pin(parsed, f"spec.self_test.cases[{index}].input", case.input),
                expected=self._pin(parsed, f"spec.self_test.cases[{index}].expected", case.expected),
            )
            for index, case in enumerate(self_test.cases)
        )
        return msgspec.structs.replace(self_test, cases=cases)

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
