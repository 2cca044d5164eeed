"""What changed between two releases: fields of their documents, and files, each with its owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from skerry.delivery.costs import Cost, FileCost, Pair, Sizes, cost_files, pairs_of, sum_costs
from skerry.delivery.relatives import PlacedFile, place_files
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice

MAX_FIELDS = 500
MAX_TEXT = 200
_FILE_LISTS = {"files", "layers", "config", "manifest"}


class Owned(msgspec.Struct, frozen=True):
    """The files of one bundle, or of one variant of an image or a model, in the old and in the new release."""

    owner: str
    old: tuple[PlacedFile, ...]
    new: tuple[PlacedFile, ...]


class ChangedFile(msgspec.Struct, frozen=True):
    """A file that was added, removed (`cost` is None) or changed.

    What was only renamed is no change, nor is a layer that moved. What changed to something that the old release has
    elsewhere takes a delta of no bytes.
    """

    owner: str
    file: PlacedFile
    change: Literal["added", "removed", "changed"]
    cost: FileCost | None = None


def own_files(old: Release, new: Release) -> list[Owned]:
    """Return the files of both releases by what they belong to, in the order of the new one."""
    before, after = _owned(old), _owned(new)
    return [Owned(owner, before.get(owner, ()), after.get(owner, ())) for owner in {**after, **before}]


def wanted_pairs(owned: list[Owned]) -> list[Pair]:
    """Return the deltas that a diff tells the sizes of."""
    return list(dict.fromkeys(pair for one in owned for pair in pairs_of(one.new, one.old)))


def diff_files(owned: Owned, everywhere: frozenset[str], sizes: Sizes) -> tuple[list[ChangedFile], Cost]:
    """Return what changed of an owner's files and what that costs; `everywhere` are all the old release's files."""
    costs = {cost.file.digest: cost for cost in cost_files(owned.new, owned.old, everywhere, sizes)}
    kept = {file.digest for file in owned.new}
    before: dict[str, set[str]] = {}
    for file in owned.old:
        before.setdefault(file.place, set()).add(file.digest)
    changed: list[ChangedFile] = []
    for file in owned.new:
        was = before.get(file.place, set())
        # A layer's place is its number: what was there may have moved on.
        is_other = bool(was - kept) if file.is_layer else bool(was) and file.digest not in was
        known = costs.get(file.digest)
        if known is not None or (is_other and not file.is_layer):
            cost = msgspec.structs.replace(known, file=file) if known else FileCost(file, delta_bytes=0)
            changed.append(ChangedFile(owned.owner, file, "changed" if is_other else "added", cost))
    replaced = {change.file.place for change in changed}
    gone = [
        ChangedFile(owned.owner, file, "removed")
        for file in owned.old
        if file.digest not in kept and file.place not in replaced
    ]
    return changed + gone, sum_costs(list(costs.values()))


def diff_fields(old: Release, new: Release) -> list[tuple[str, str, str]]:
    """Return path, old and new text of each field that differs, files apart; at most `MAX_FIELDS`."""
    before, after = dict(_leaves(msgspec.to_builtins(old), "")), dict(_leaves(msgspec.to_builtins(new), ""))
    found = [
        (path, before.get(path, "")[:MAX_TEXT], after.get(path, "")[:MAX_TEXT])
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]
    return found[:MAX_FIELDS]


def _owned(release: Release) -> dict[str, tuple[PlacedFile, ...]]:
    """Return the files of each owner; a model that is there in two versions is one owner."""
    found: dict[str, tuple[PlacedFile, ...]] = {}
    for owner, files in _owners(release):
        found[owner] = (*found.get(owner, ()), *files)
    return found


def _owners(release: Release) -> Iterator[tuple[str, tuple[PlacedFile, ...]]]:
    for component in release.application.spec.components:
        if component.bundle:
            placed = [file for file in place_files(release, ()) if file.group == f"bundles/{component.name}"]
            yield f"bundle {component.name}", tuple(placed)
        for image in component.image.variants if component.image else ():
            choice = VariantChoice(model=component.name, version="", variant=image.name, kind="image")
            yield (
                f"image {component.name} ({image.name})",
                _chosen(release, choice, f"images/{component.name}"),
            )
    for model in release.models:
        name = model.metadata.name
        for variant in model.spec.variants:
            choice = VariantChoice(model=name, version=model.spec.version, variant=variant.name)
            yield f"model {name} ({variant.name})", _chosen(release, choice, f"models/{name}")


def _chosen(release: Release, choice: VariantChoice, group: str) -> tuple[PlacedFile, ...]:
    return tuple(file for file in place_files(release, (choice,)) if file.group == group)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each field; parts of a list go by their names where they have them."""
    if isinstance(value, dict):
        for key, part in cast(Mapping[str, Any], value).items():
            if not (key in _FILE_LISTS and _are_files(part)):
                yield from _leaves(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        parts = cast(Sequence[Any], value)
        names = [_name(part) for part in parts]
        for number, (name, part) in enumerate(zip(names, parts, strict=True)):
            label = name if name and names.count(name) == 1 else number
            yield from _leaves(part, f"{path}[{label}]")
    else:
        yield path, "" if value is None else str(value)


def _are_files(value: Any) -> bool:
    """Tell files from a variable, or a label, that has their name."""
    parts = cast(Sequence[Any], value) if isinstance(value, list | tuple) else [value]
    return all(isinstance(part, dict) and "digest" in part for part in parts)


def _name(part: Any) -> str:
    if not isinstance(part, dict):
        return ""
    known = cast(Mapping[str, Any], part)
    metadata = known.get("metadata")
    named = cast(Mapping[str, Any], metadata) if isinstance(metadata, dict) else known
    name = named.get("name")
    return name if isinstance(name, str) else ""
