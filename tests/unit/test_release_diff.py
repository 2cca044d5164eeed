"""What changed between two releases: every file once, with its owner; every field by its path and the names in it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.costs import Sizes
from skerry.delivery.relatives import MIN_BYTES
from skerry.delivery.release_diff import (
    MAX_FIELDS,
    MAX_TEXT,
    ChangedFile,
    diff_fields,
    diff_files,
    own_files,
    wanted_pairs,
)
from skerry.kit.digests import digest_of
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component
from skerry.spec.image import Image, ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release

pytestmark = pytest.mark.delivery

Files = dict[str, str]
"""Content by path."""


def spec(path: str, content: str) -> FileSpec:
    return FileSpec(path=path, digest=digest_of(content.encode()), size_bytes=MIN_BYTES + len(content))


def specs(files: Files) -> tuple[FileSpec, ...]:
    return tuple(spec(path, content) for path, content in files.items())


def image(name: str, *layers: str) -> ImageVariant:
    found = tuple(spec("layer", layer) for layer in layers)
    return ImageVariant(name=name, config=spec("config", "+".join(layers)), layers=found)


def release(
    version: str = "1",
    bundle: Files | None = None,
    *,
    models: dict[tuple[str, str], dict[str, Files]] | None = None,
    images: tuple[ImageVariant, ...] = (),
    **component: Any,
) -> Release:
    """Return a release; `models` are variants by name and version, each with its files."""
    components = [Component(name="main", bundle=Bundle(files=specs(bundle or {"run": "run"})), **component)]
    if images:
        components.append(Component(name="box", image=Image(variants=images)))
    found = [
        Model(
            metadata=Metadata(name),
            spec=ModelSpec(
                version=number,
                variants=tuple(
                    Variant(name=each, format="onnx", files=specs(files)) for each, files in variants.items()
                ),
            ),
        )
        for (name, number), variants in (models or {}).items()
    ]
    application = Application(
        metadata=Metadata("app"), spec=ApplicationSpec(version=version, components=tuple(components))
    )
    return Release(application=application, models=tuple(found))


def changes(old: Release, new: Release, sizes: Sizes | None = None) -> list[ChangedFile]:
    owned = own_files(old, new)
    everywhere = frozenset(file.digest for one in owned for file in one.old)
    return [change for one in owned for change in diff_files(one, everywhere, sizes or {})[0]]


def said(old: Release, new: Release) -> list[tuple[str, str, str]]:
    return [(change.owner, change.file.place, change.change) for change in changes(old, new)]


_bundle = st.dictionaries(st.sampled_from("pqrs"), st.sampled_from(["one", "two", "three"]), min_size=1)
_layers = st.lists(st.sampled_from(["base", "libs", "code", "data"]), max_size=4, unique=True)


@given(_bundle, _bundle)
def test_every_file_that_came_went_or_changed_is_there_once(before: Files, after: Files) -> None:
    found = changes(release("1", before), release("2", after))
    kinds = {change.file.place: change.change for change in found}
    assert len(kinds) == len(found), "none is there twice"
    digests = {digest_of(content.encode()) for content in before.values()}
    kept = set(after.values())
    expected: dict[str, str] = {}
    for path, content in after.items():
        if path in before and before[path] != content:
            expected[path] = "changed"
        elif path not in before and content not in before.values():
            expected[path] = "added"  # with content that was there, it was only renamed
    for path, content in before.items():
        if path not in after and content not in kept:
            expected[path] = "removed"
    assert kinds == expected
    for change in found:
        if change.change == "removed":
            assert change.cost is None
        else:
            assert change.cost is not None
            assert change.cost.least_bytes == (0 if change.file.digest in digests else change.file.size_bytes)


@given(_layers, _layers)
def test_layers_that_moved_are_no_change_and_all_others_are_told_once(
    before: list[str], after: list[str]
) -> None:
    found = changes(
        release("1", images=(image("cpu", *before),)), release("2", images=(image("cpu", *after),))
    )
    layers = [change for change in found if change.file.is_layer]
    came = Counter(change.file.digest for change in layers if change.change != "removed")
    assert came == Counter(digest_of(layer.encode()) for layer in after if layer not in before)
    went = [change.file.digest for change in layers if change.change == "removed"]
    gone = {digest_of(layer.encode()) for layer in before if layer not in after}
    replaced = sum(change.change == "changed" for change in layers)
    assert set(went) <= gone and len(went) + replaced == len(gone), "each that went was removed or replaced"


@given(_bundle, _layers)
def test_a_release_does_not_differ_from_itself(bundle: Files, layers: list[str]) -> None:
    models = {("m", "1"): {"int8": bundle}}
    one = release("1", bundle, models=models, images=(image("cpu", *layers),))
    assert (changes(one, one), diff_fields(one, one), wanted_pairs(own_files(one, one))) == ([], [], [])


@given(_bundle, _bundle, st.data())
def test_what_an_owner_costs_is_never_more_than_in_full(
    before: Files, after: Files, data: st.DataObject
) -> None:
    owned = own_files(release("1", before), release("2", after))
    sizes = {pair: data.draw(st.none() | st.integers(0, 9000)) for pair in wanted_pairs(owned)}
    for one in owned:
        found, cost = diff_files(one, frozenset(), sizes)
        assert cost.size_bytes <= cost.full_bytes
        blobs = {c.file.digest: c.cost.least_bytes for c in found if c.cost and c.cost.delta_bytes != 0}
        assert cost.size_bytes <= sum(blobs.values())


def test_files_say_whose_they_are() -> None:
    old = release("1", models={("m", "1"): {"int8": {"w": "1"}}}, images=(image("cpu", "base", "code"),))
    new = release(
        "2",
        {"run": "run", "more": "more"},
        models={("m", "2"): {"int8": {"w": "2"}, "fp16": {"h": "3"}}},
        images=(image("cpu", "base", "code2"),),
    )
    assert said(old, new) == [
        ("bundle main", "more", "added"),
        ("image box (cpu)", "config", "changed"),
        ("image box (cpu)", "layer/1", "changed"),
        ("model m (int8)", "w", "changed"),
        ("model m (fp16)", "h", "added"),
    ]
    assert [kind for _, _, kind in said(new, old)] == ["removed", "changed", "changed", "changed", "removed"]


def test_a_renamed_file_that_is_the_same_is_no_change_and_one_that_differs_has_its_predecessor() -> None:
    old = release("1", {"a.bin": "one"})
    assert said(old, release("2", {"b.bin": "one"})) == []
    new = release("2", {"b.bin": "two"})
    assert said(old, new) == [("bundle main", "b.bin", "added"), ("bundle main", "a.bin", "removed")]
    before, after = digest_of(b"one"), digest_of(b"two")
    assert wanted_pairs(own_files(old, new)) == [((before,), after), ((), after)]


def test_files_that_changed_places_have_changed_and_cost_nothing() -> None:
    old, new = release("1", {"a": "one", "b": "two"}), release("2", {"a": "two", "b": "one"})
    assert said(old, new) == [("bundle main", "a", "changed"), ("bundle main", "b", "changed")]
    (one,) = own_files(old, new)
    found, cost = diff_files(one, frozenset(), {})
    assert cost.size_bytes == cost.full_bytes == 0
    assert [change.cost.least_bytes for change in found if change.cost] == [0, 0]


def test_two_files_that_are_alike_now_are_both_told_and_fetched_once() -> None:
    old, new = release("1", {"a": "one", "b": "two"}), release("2", {"a": "new", "b": "new"})
    assert [kind for _, _, kind in said(old, new)] == ["changed", "changed"]
    (one,) = own_files(old, new)
    assert diff_files(one, frozenset(), {})[1].files == 1


def test_a_layer_in_front_moves_the_others_and_is_the_only_one_that_came() -> None:
    old = release("1", images=(image("cpu", "base", "code"),))
    new = release("2", images=(image("cpu", "patch", "base", "code"),))
    assert [one for one in said(old, new) if one[1] != "config"] == [("image box (cpu)", "layer/0", "added")]
    back = [one for one in said(new, old) if one[1] != "config"]
    assert back == [("image box (cpu)", "layer/0", "removed")]


def test_no_version_of_a_model_hides_another_one() -> None:
    old = release("1", models={("m", "1"): {"int8": {"w": "1"}}, ("m", "2"): {"int8": {"w": "2"}}})
    new = release("2", models={("m", "1"): {"int8": {"w": "9"}}, ("m", "2"): {"int8": {"w": "2"}}})
    assert said(old, new) == [("model m (int8)", "w", "changed")]
    format_of = msgspec.structs.replace
    first, second = new.models
    variant = format_of(first.spec.variants[0], precision="int4")
    other = format_of(first, spec=format_of(first.spec, variants=(variant,)))
    changed = format_of(new, models=(other, second))
    assert diff_fields(new, changed) == [("models[0].spec.variants[int8].precision", "", "int4")]


def test_fields_are_told_by_their_path_with_the_names_of_parts_and_without_files() -> None:
    old = release("1", env={"LEVEL": "info", "config": "a", "files": "x"}, images=(image("cpu", "a"),))
    new = release(
        "2",
        {"run": "other"},
        env={"LEVEL": "debug", "config": "b"},
        images=(image("cpu", "b"), image("gpu", "c")),
    )
    assert sorted(diff_fields(old, new)) == [
        ("application.spec.components[box].image.variants[gpu].name", "", "gpu"),
        ("application.spec.components[main].env.LEVEL", "info", "debug"),
        ("application.spec.components[main].env.config", "a", "b"),
        ("application.spec.components[main].env.files", "x", ""),
        ("application.spec.version", "1", "2"),
    ]


def test_a_manifest_that_no_host_fetches_is_no_field() -> None:
    pushed = msgspec.structs.replace(image("cpu", "a"), manifest=spec("manifest", "m"))
    assert diff_fields(release(images=(image("cpu", "a"),)), release(images=(pushed,))) == []


def test_many_fields_and_long_texts_are_bounded_and_a_late_difference_is_seen() -> None:
    old = release(env={"LONG": "x" * 3000 + "1"})
    new = release(env={"LONG": "x" * 3000 + "2", **{f"V{n}": "y" for n in range(MAX_FIELDS + 50)}})
    found = diff_fields(old, new)
    assert len(found) == MAX_FIELDS
    assert found[0] == ("application.spec.components[main].env.LONG", "x" * MAX_TEXT, "x" * MAX_TEXT)
