"""A release as one host would run it: variants and images chosen, and each file with its place in the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from skerry.matching.asking import device_needs
from skerry.matching.devices import taken_by
from skerry.matching.releases import match_release, variant_key
from skerry.ports.images import ImageParts
from skerry.reconcile.kinship import Kinship, find_kinship
from skerry.spec.application import Component
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice


class Resolved(msgspec.Struct, frozen=True):
    """`files` are (place, file); `claims` the devices it holds; `problem` says why it cannot run here."""

    release: Release
    choices: tuple[VariantChoice, ...] = ()
    files: tuple[tuple[str, FileSpec], ...] = ()
    images: Mapping[str, ImageParts] = {}
    devices: Mapping[str, Mapping[str, str]] = {}
    claims: frozenset[str] = frozenset()
    kinship: Kinship = Kinship()
    failed: Mapping[str, str] = {}
    has_tests: bool = False
    problem: str = ""


def resolve_release(
    release: Release,
    facts: HostFacts,
    policy: SitePolicy,
    *,
    pinned: tuple[VariantChoice, ...],
    failed: Mapping[str, str],
    taken: AbstractSet[str],
) -> Resolved:
    """Choose for a host with these facts; see `match_release`."""
    match = match_release(release, facts, policy=policy, pinned=pinned, failed=failed, taken=taken)
    own_failed = {key: why for key, why in failed.items() if key in _variant_keys(release)}
    if match.reasons:
        return Resolved(release, failed=own_failed, problem="; ".join(match.reasons))
    chosen: dict[tuple[str, str, str], str] = {
        (choice.kind, choice.model, choice.version): choice.variant for choice in match.choices
    }
    components = release.application.spec.components
    files: dict[str, FileSpec] = {}
    images: dict[str, ImageParts] = {}
    for component in components:
        files.update(_files(release, component, chosen))
        parts = _image(component, chosen.get(("image", component.name, ""), ""))
        if parts is not None:
            images[component.name] = parts
    claims = taken_by(device_needs(release), match.devices)
    return Resolved(
        release,
        match.choices,
        tuple(files.items()),
        images,
        match.devices,
        claims,
        find_kinship(release, match.choices),
        own_failed,
        any(component.self_test for component in components),
    )


def _files(
    release: Release, component: Component, chosen: Mapping[tuple[str, str, str], str]
) -> Iterator[tuple[str, FileSpec]]:
    for file in component.bundle.files if component.bundle else ():
        yield f"bundles/{component.name}/{file.path}", file
    for mount in component.models:
        model = release.model(mount.name, mount.version)
        assert model is not None  # check_release has seen to it
        for variant in model.spec.variants:
            if variant.name == chosen.get(("model", mount.name, mount.version)):
                yield from ((f"models/{mount.name}/{file.path}", file) for file in variant.files)
        for case in model.spec.self_test.cases if component.self_test and model.spec.self_test else ():
            yield f"inputs/{component.name}/{mount.name}/{case.name}/{case.input.path}", case.input
            yield f"expected/{mount.name}/{case.name}/{case.expected.path}", case.expected


def _image(component: Component, variant: str) -> ImageParts | None:
    for image in component.image.variants if component.image else ():
        if image.name == variant and image.config is not None:
            layers = tuple((str(layer.digest), layer.size_bytes) for layer in image.layers)
            return ImageParts((str(image.config.digest), image.config.size_bytes), layers)
    return None


def _variant_keys(release: Release) -> set[str]:
    return {
        variant_key(model.metadata.name, model.spec.version, variant.name)
        for model in release.models
        for variant in model.spec.variants
    }
