"""Finds, for files that a host wants, which of those it holds they probably came from.

Rules:
- Relatives are found by the place a file has in its release: the same path of the same component or model, the same
  layer of the same image. What stands at the place now and is wanted no more is the base.
- Image layers that moved are searched for in all layers the new image has dropped, read as one.
- Hub and host use the same function, so that the hub makes ahead of time the very deltas that hosts ask for.
- Without a relative there is still a delta from nothing: the file compressed, weights as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice

MIN_BYTES = 4096
"""What is smaller is fetched as it is: a question and an answer take about as much."""
MAX_JOINED = 8
MAX_BASE_BYTES = 4 << 30
_ALIKE = 4
"""A renamed file is a relative if neither is more than so many times as large as the other."""

Base = tuple[str, ...]
"""Blobs, one after the other, which a delta is made from; empty: from nothing."""


class PlacedFile(msgspec.Struct, frozen=True):
    """A file of a release, and where it belongs: a group (one bundle, model or image) and a place in it."""

    group: str
    place: str
    digest: str
    size_bytes: int
    is_layer: bool = False


def place_files(release: Release, choices: Iterable[VariantChoice]) -> Iterator[PlacedFile]:
    """Yield the files that a host with these choices needs of a release, without what self-tests need."""
    chosen = {(choice.kind, choice.model, choice.version): choice.variant for choice in choices}
    for component in release.application.spec.components:
        for file in component.bundle.files if component.bundle else ():
            yield _placed(f"bundles/{component.name}", file.path, file)
        picked = chosen.get(("image", component.name, ""), "")
        for image in component.image.variants if component.image else ():
            if image.name == picked and image.config is not None:
                group = f"images/{component.name}"
                yield _placed(group, "config", image.config)
                for number, layer in enumerate(image.layers):
                    yield _placed(group, f"layer/{number}", layer, is_layer=True)
    for model in release.models:
        name, version = model.metadata.name, model.spec.version
        for variant in model.spec.variants:
            if variant.name == chosen.get(("model", name, version)):
                yield from (_placed(f"models/{name}", file.path, file) for file in variant.files)


def find_bases(wanted: Sequence[PlacedFile], held: Sequence[PlacedFile]) -> dict[str, tuple[Base, ...]]:
    """Return for each wanted file, by digest, what a delta to it may be made from, the most promising first.

    Files that are held themselves, or not worth a question, are left out.
    """
    wanted_digests, held_digests = {file.digest for file in wanted}, {file.digest for file in held}
    groups: dict[str, list[PlacedFile]] = {}
    for file in held:
        if file.size_bytes and file.digest not in wanted_digests:
            groups.setdefault(file.group, []).append(file)
    places: dict[str, set[str]] = {}
    for file in wanted:
        places.setdefault(file.group, set()).add(file.place)
    found: dict[str, tuple[Base, ...]] = {}
    for file in wanted:
        if file.digest in held_digests or file.digest in found or file.size_bytes < MIN_BYTES:
            continue
        dropped = groups.get(file.group, [])
        base = _layers(file, dropped) if file.is_layer else _file(file, dropped, places[file.group])
        found[file.digest] = (base, ()) if base else ((),)
    return found


def same_variants(release: Release, choices: Iterable[VariantChoice]) -> tuple[VariantChoice, ...]:
    """Return the choices that a host with these choices would make of another release, if it names them alike."""
    kept = {(choice.kind, choice.model): choice.variant for choice in choices}
    found: list[VariantChoice] = []
    for component in release.application.spec.components:
        name = kept.get(("image", component.name))
        if component.image and name in {image.name for image in component.image.variants}:
            found.append(VariantChoice(model=component.name, version="", variant=str(name), kind="image"))
    for model in release.models:
        name = kept.get(("model", model.metadata.name))
        if name in {variant.name for variant in model.spec.variants}:
            found.append(
                VariantChoice(model=model.metadata.name, version=model.spec.version, variant=str(name))
            )
    return tuple(found)


def _placed(group: str, place: str, file: FileSpec, *, is_layer: bool = False) -> PlacedFile:
    return PlacedFile(group, place, str(file.digest), file.size_bytes, is_layer)


def _file(wanted: PlacedFile, dropped: Sequence[PlacedFile], places: set[str]) -> Base:
    """Return what stood at the file's place, else what was renamed to it as far as one can tell."""
    for file in dropped:
        if file.place == wanted.place:
            return _bounded((file,))
    suffix = _suffix(wanted.place)
    renamed = [
        file
        for file in dropped
        if file.place not in places and not file.is_layer
        if _suffix(file.place) == suffix
        if _is_alike(file.size_bytes, wanted.size_bytes)
    ]
    nearest = sorted(renamed, key=lambda file: (abs(file.size_bytes - wanted.size_bytes), file.place))
    return _bounded(tuple(nearest[:1]))


def _layers(wanted: PlacedFile, dropped: Sequence[PlacedFile]) -> Base:
    """Return the layer that stood there, else all that the new image has no more: what moved is found in them."""
    layers = [file for file in dropped if file.is_layer]
    for layer in layers:
        if layer.place == wanted.place and (
            len(layers) == 1 or _is_alike(layer.size_bytes, wanted.size_bytes)
        ):
            return _bounded((layer,))
    largest = sorted(layers, key=lambda layer: -layer.size_bytes)[:MAX_JOINED]
    return _bounded(tuple(layer for layer in layers if layer in largest))


def _suffix(place: str) -> str:
    name = place.rpartition("/")[2]
    return name.rpartition(".")[2] if "." in name else ""


def _is_alike(one: int, other: int) -> bool:
    return one <= other * _ALIKE and other <= one * _ALIKE


def _bounded(files: tuple[PlacedFile, ...]) -> Base:
    digests: dict[str, int] = {file.digest: file.size_bytes for file in files}
    return tuple(digests) if sum(digests.values()) <= MAX_BASE_BYTES else ()
