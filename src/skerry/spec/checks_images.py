"""Checks of images: from where as written, and pinned as a whole in a release."""

from __future__ import annotations

import re
from collections.abc import Iterator

from skerry.spec.application import Component
from skerry.spec.checks_files import check_file, check_unique
from skerry.spec.checks_requirements import check_preferences, check_requirements
from skerry.spec.image import Image, ImageVariant
from skerry.spec.problems import Problem
from skerry.spec.release import Release

_platform_re = re.compile(r"linux/[a-z0-9_]+(/[a-z0-9.]+)?")


def check_image(path: str, image: Image, models: tuple[str, ...]) -> Iterator[Problem]:
    """Yield what is wrong with an image of a component that mounts `models`."""
    if bool(image.source) == bool(image.variants):
        message = "has a source and variants" if image.source else "has neither a source nor variants"
        yield Problem(path, message, "write source: for one image, or variants: with a source each")
    yield from check_unique(f"{path}.variants", "variant", (v.name for v in image.variants))
    for index, variant in enumerate(image.variants):
        yield from _check_variant(f"{path}.variants[{index}]", variant, models)


def check_pinned_images(release: Release) -> Iterator[Problem]:
    """Yield what of a release's images is not pinned, or tied to variants of models that are not there."""
    for index, component in enumerate(release.application.spec.components):
        path = f"spec.components[{index}].image"
        if component.image is None:
            continue
        if component.image.source:
            yield Problem(f"{path}.source", "not pinned by digest", "push with skerry release push")
        for place, variant in enumerate(component.image.variants):
            where = f"{path}.variants[{place}]"
            if variant.source:
                yield Problem(f"{where}.source", "not pinned by digest", "push with skerry release push")
            elif variant.config is None or not variant.layers:
                yield Problem(where, "lacks config or layers", "push with skerry release push")
            yield from _check_ties(where, variant, component, release)


def _check_variant(path: str, variant: ImageVariant, models: tuple[str, ...]) -> Iterator[Problem]:
    pinned = variant.config is not None or bool(variant.layers)
    if pinned == bool(variant.source):
        message = "has a source and is pinned" if pinned else "has no source"
        yield Problem(path, message, "write source: FORM:NAME; pushing the release pins it")
    elif variant.manifest and not pinned:
        yield Problem(path, "has a manifest and no layers", "a manifest belongs to a pinned image")
    elif pinned and (variant.config is None or not variant.layers):
        yield Problem(path, "is pinned in part", "config and layers belong together")
    if variant.platform and not _platform_re.fullmatch(variant.platform):
        message = f"not a platform that can be run: {variant.platform}"
        yield Problem(f"{path}.platform", message, "such as linux/amd64 or linux/arm64")
    yield from check_requirements(f"{path}.requires", variant.requires)
    yield from check_preferences(f"{path}.prefer", variant.prefer)
    files = [(f"{path}.layers[{i}]", layer) for i, layer in enumerate(variant.layers)]
    files += [(f"{path}.config", variant.config)] if variant.config else []
    files += [(f"{path}.manifest", variant.manifest)] if variant.manifest else []
    yield from check_unique(path, "file", (file.path for _, file in files))
    for where, file in files:
        if file.source:
            yield Problem(
                f"{where}.source", "parts of an image have no source of their own", "name the image's"
            )
        else:
            yield from check_file(where, file)
    for model, variants in variant.models.items():
        if model not in models:
            hint = f"models here: {', '.join(models)}" if models else "the component mounts no models"
            yield Problem(f"{path}.models.{model}", f"the component mounts no model {model}", hint)
        if not variants:
            yield Problem(
                f"{path}.models.{model}", "names no variant", "name the variants it goes together with"
            )


def _check_ties(
    path: str, variant: ImageVariant, component: Component, release: Release
) -> Iterator[Problem]:
    for mount in component.models:
        model = release.model(mount.name, mount.version)
        if model is None:
            continue  # told elsewhere
        known = [known.name for known in model.spec.variants]
        for name in variant.models.get(mount.name, ()):
            if name not in known:
                message = f"model {mount.name} {mount.version} has no variant {name}"
                yield Problem(f"{path}.models.{mount.name}", message, f"variants there: {', '.join(known)}")
