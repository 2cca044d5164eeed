"""Which files of a release another one probably came from: by places, by likeness, by layers that moved."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.relatives import (
    MAX_BASE_BYTES,
    MAX_JOINED,
    MIN_BYTES,
    Base,
    PlacedFile,
    find_bases,
    place_files,
    same_variants,
)
from skerry.kit.digests import digest_of
from skerry.spec.application import Bundle
from skerry.spec.image import ImageVariant
from skerry.spec.model import FileSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from tests.unit.matching_world import component, file, image, release, variant

pytestmark = pytest.mark.delivery

SIZES = (0, 1, MIN_BYTES - 1, MIN_BYTES, 10_000, 45_000, 3 << 30)
"""By the number of a content: the same content has the same size everywhere."""
IMAGE = VariantChoice(kind="image", model="main", version="", variant="amd64")
MODEL = VariantChoice(model="mind", version="1", variant="small")


def content(number: int, path: str = "layer.tar") -> FileSpec:
    return FileSpec(path=path, digest=digest_of(str(number).encode()), size_bytes=SIZES[number % len(SIZES)])


def digest(name: str) -> str:
    return str(file(name).digest)


@st.composite
def releases(draw: st.DrawFn) -> Release:
    """Draw a release whose contents are of few, so that two of them have much in common."""
    numbers = st.integers(0, 27)

    def files(most: int) -> tuple[FileSpec, ...]:
        paths = draw(
            st.lists(st.sampled_from(("a.bin", "b.bin", "d/a.txt", "plain")), max_size=most, unique=True)
        )
        return tuple(content(draw(numbers), path) for path in paths)

    layers = tuple(content(number) for number in draw(st.lists(numbers, max_size=12)))
    pinned = ImageVariant(name="amd64", config=content(draw(numbers), "config.json"), layers=layers)
    bundled = msgspec.structs.replace(component("side"), bundle=Bundle(files=files(4) or (content(3, "x"),)))
    models: dict[str, tuple[Variant, ...]] = {
        "mind": (Variant(name="small", format="onnx", files=files(3) or (content(4, "y"),)),)
    }
    return release(component(images=(pinned,)), bundled, models=models)


def placed(of: Release) -> list[PlacedFile]:
    return list(place_files(of, (IMAGE, MODEL)))


@given(old=releases(), new=releases(), gone=st.integers(0, 5))
def test_whatever_the_releases_are_bases_are_held_and_targets_are_wanted(
    old: Release, new: Release, gone: int
) -> None:
    wanted, held = placed(new), placed(old)
    del held[:gone]
    held_digests, wanted_digests = {one.digest for one in held}, {one.digest for one in wanted}
    sizes = {one.digest: one.size_bytes for one in (*wanted, *held)}
    bases = find_bases(wanted, held)
    assert bases == find_bases(list(wanted), list(held)), "the same again"
    for target, options in bases.items():
        assert target in wanted_digests - held_digests
        assert sizes[target] >= MIN_BYTES
        assert options[-1] == ()
        assert len(options) == len(set(options)) <= 2
        for base in options:
            assert set(base) <= held_digests - {target}
            assert not set(base) & wanted_digests, "what stays is no base: it is found elsewhere"
            assert len(base) == len(set(base)) <= MAX_JOINED
            assert sum(sizes[one] for one in base) <= MAX_BASE_BYTES
            assert all(sizes[one] for one in base)
    asked = {one.digest for one in wanted if one.size_bytes >= MIN_BYTES}
    assert bases.keys() == asked - held_digests, "each of them, and once"


@given(old=releases(), new=releases())
def test_what_is_held_in_part_only_loses_bases_and_asks_for_no_less(old: Release, new: Release) -> None:
    wanted, held = placed(new), placed(old)
    assert find_bases(wanted, []).keys() >= find_bases(wanted, held).keys()
    assert set(find_bases(wanted, []).values()) <= {((),)}


def bases_of(wanted: Sequence[PlacedFile], held: Sequence[PlacedFile], target: PlacedFile) -> Base:
    return find_bases(wanted, held)[target.digest][0]


def bundle_file(place: str, name: str, size: int = 10_000, *, group: str = "bundles/main") -> PlacedFile:
    return PlacedFile(group, place, digest(name), size)


def layer(number: int, name: str, size: int = 10_000) -> PlacedFile:
    return PlacedFile("images/main", f"layer/{number}", digest(name), size, is_layer=True)


def test_what_stood_at_the_place_is_the_base_however_large_it_was() -> None:
    old, new = bundle_file("run.bin", "old", 900), bundle_file("run.bin", "new", 900_000)
    near = bundle_file("other.bin", "near", 900_000)
    assert bases_of([new], [near, old], new) == (old.digest,)


def test_places_of_other_components_models_and_images_are_others() -> None:
    new = bundle_file("run.bin", "new")
    for group in ("bundles/side", "models/main", "images/main"):
        assert bases_of([new], [bundle_file("run.bin", "old", group=group)], new) == ()


def test_a_renamed_file_is_found_by_its_suffix_and_the_nearest_size() -> None:
    new = bundle_file("v2/net.onnx", "new", 10_000)
    near, far = bundle_file("v1/a.onnx", "near", 11_000), bundle_file("v1/b.onnx", "far", 14_000)
    assert bases_of([new], [far, near], new) == (near.digest,)
    other_kind = bundle_file("v1/net.txt", "text", 10_000)
    too_large, too_small = bundle_file("v1/c.onnx", "c", 40_001), bundle_file("v1/d.onnx", "d", 2_499)
    assert bases_of([new], [other_kind, too_large, too_small], new) == ()
    assert bases_of([new], [bundle_file("v1/c.onnx", "c", 40_000)], new) == (digest("c"),)


def test_what_stands_in_both_was_not_renamed() -> None:
    new, changed = bundle_file("new.bin", "new"), bundle_file("old.bin", "old, changed")
    assert bases_of([new, changed], [bundle_file("old.bin", "old")], new) == ()
    assert bases_of([new, changed], [bundle_file("old.bin", "old")], changed) == (digest("old"),)


def test_a_replaced_layer_comes_from_what_stood_there() -> None:
    kept, old, new = layer(0, "kept"), layer(1, "old"), layer(1, "new", 30_000)
    more = layer(2, "dropped as well")
    assert bases_of([kept, new], [kept, old, more], new) == (old.digest,)


def test_layers_that_were_joined_come_from_all_that_were_dropped_in_their_order() -> None:
    kept = layer(0, "kept")
    dropped = [layer(number, f"old {number}", 1000 * number) for number in range(1, 6)]
    joined = layer(1, "joined", 15_000)
    assert bases_of([kept, joined], [kept, *dropped], joined) == tuple(one.digest for one in dropped)


def test_of_many_dropped_layers_the_largest_are_read_in_their_order() -> None:
    sizes = (5000, 90, 7000, 80, 6000, 9000, 70, 8000, 4000, 3000, 2000)
    dropped = [layer(number + 1, f"old {number}", size) for number, size in enumerate(sizes)]
    joined = layer(20, "joined", 50_000)
    expected = tuple(one.digest for one in dropped if one.size_bytes >= 2000)
    assert len(expected) == MAX_JOINED
    assert bases_of([joined], dropped, joined) == expected


def test_more_than_a_reader_may_hold_is_no_base() -> None:
    halves = [layer(number, f"half {number}", MAX_BASE_BYTES // 2) for number in (1, 2)]
    joined = layer(9, "joined", 50_000)
    assert bases_of([joined], halves, joined) == (halves[0].digest, halves[1].digest)
    assert bases_of([joined], [*halves, layer(3, "a byte more", 1)], joined) == ()
    huge = bundle_file("run.bin", "huge", MAX_BASE_BYTES + 1)
    new = bundle_file("run.bin", "new")
    assert find_bases([new], [huge]) == {new.digest: ((),)}


def test_a_layer_that_stands_there_twice_is_read_once() -> None:
    twice = [layer(1, "same", 9000), layer(3, "same", 9000)]
    other = layer(2, "other", 9000)
    joined = layer(8, "joined", 50_000)
    assert bases_of([joined], [twice[0], other, twice[1]], joined) == (twice[0].digest, other.digest)
    new_twice = [layer(1, "new"), layer(2, "new")]
    assert list(find_bases(new_twice, [layer(1, "old")])) == [new_twice[0].digest]


def test_files_are_placed_by_what_the_host_chose_and_without_self_tests() -> None:
    of = release(
        component(images=(image("amd64"), image("arm64"))),
        component("side"),
        models={"mind": (variant("small"), variant("large"))},
    )
    arm = msgspec.structs.replace(IMAGE, variant="arm64")
    found = {(one.group, one.place, one.is_layer): one.digest for one in place_files(of, (arm, MODEL))}
    assert found == {
        ("images/main", "config", False): digest("arm64.json"),
        ("images/main", "layer/0", True): digest("arm64.tar"),
        ("bundles/side", "side.bin", False): digest("side.bin"),
        ("models/mind", "small.onnx", False): digest("small.onnx"),
    }
    assert [one.group for one in place_files(of, ())] == ["bundles/side"], "what was not chosen is not needed"


def test_another_release_is_taken_to_be_chosen_from_alike() -> None:
    before = (IMAGE, MODEL, VariantChoice(model="gone", version="1", variant="small", why=("fits",)))
    new = release(
        component(images=(image("arm64"), image("amd64"))),
        component("side"),
        models={"mind": (variant("small"),), "added": (variant("small"),)},
    )
    later = msgspec.structs.replace(
        new, models=tuple(msgspec.structs.replace(m, spec=_version(m.spec, "2")) for m in new.models)
    )
    assert same_variants(later, before) == (IMAGE, msgspec.structs.replace(MODEL, version="2"))
    renamed = release(component(images=(image("x86"),)), models={"mind": (variant("tiny"),)})
    assert same_variants(renamed, before) == ()


def _version(spec: msgspec.Struct, version: str) -> msgspec.Struct:
    return msgspec.structs.replace(spec, version=version)
