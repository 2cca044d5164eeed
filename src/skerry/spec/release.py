"""The release document: an Application and its Models with every file pinned by digest. Immutable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from skerry.kit.ids import release_name
from skerry.spec.application import Application
from skerry.spec.metadata import Part
from skerry.spec.model import FileSpec, Model


class Release(Part, frozen=True, kw_only=True, tag_field="type", tag="release"):
    """What a release consists of. Its digest is that of its canonical JSON."""

    application: Application
    models: Annotated[tuple[Model, ...], Meta(max_length=64)] = ()

    @property
    def name(self) -> str:
        """`application@version`."""
        return release_name(self.application.metadata.name, self.application.spec.version)

    def files(self) -> Iterator[FileSpec]:
        """Yield every file of the release, over all variants of models and images."""
        for component in self.application.spec.components:
            if component.bundle:
                yield from component.bundle.files
            for image in component.image.variants if component.image else ():
                yield from (
                    file for file in (image.config, *image.layers, image.manifest) if file is not None
                )
        for model in self.models:
            for case in model.spec.self_test.cases if model.spec.self_test else ():
                yield from (case.input, case.expected)
            for variant in model.spec.variants:
                yield from variant.files

    def model(self, name: str, version: str) -> Model | None:
        """Return the model a mount names, or None."""
        return next((m for m in self.models if m.metadata.name == name and m.spec.version == version), None)
