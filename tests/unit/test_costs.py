"""What bringing a release costs: never more than in full, nothing for what is held, by deltas that are known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.costs import FileCost, Pair, cost_files, pairs_of, sum_costs
from skerry.delivery.relatives import MIN_BYTES, PlacedFile, find_bases

pytestmark = pytest.mark.delivery

DIGESTS = tuple("abcdefgh")


def sized(digest: str) -> int:
    """Return the size of a blob: one digest has one size, and some are too small for deltas."""
    return MIN_BYTES * DIGESTS.index(digest)


def placed(group: str, place: str, digest: str, *, is_layer: bool = False) -> PlacedFile:
    return PlacedFile(group, place, digest, sized(digest), is_layer)


_files = st.lists(
    st.one_of(
        st.builds(
            placed,
            st.sampled_from(["models/m", "models/n"]),
            st.sampled_from("xyz"),
            st.sampled_from(DIGESTS),
        ),
        st.builds(
            placed,
            st.just("images/i"),
            st.sampled_from(["layer/0", "layer/1", "layer/2"]),
            st.sampled_from(DIGESTS),
            is_layer=st.just(True),
        ),
    ),
    max_size=8,
    unique_by=lambda file: (file.group, file.place),
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[PlacedFile], list[PlacedFile], frozenset[str], dict[Pair, Any]]:
    """Draw what is wanted, held and held beside, and the sizes of some of the deltas that could be asked for."""
    wanted, held = draw(_files), draw(_files)
    size = st.none() | st.integers(0, 10 * MIN_BYTES)
    known = {pair: draw(size) for pair in pairs_of(wanted, held) if draw(st.booleans())}
    return wanted, held, frozenset(draw(st.sets(st.sampled_from(DIGESTS), max_size=2))), known


@given(worlds())
def test_no_release_costs_more_than_its_files_in_full(world: Any) -> None:
    total = sum_costs(costs := cost_files(*world))
    assert 0 <= total.size_bytes <= total.full_bytes == sum(cost.file.size_bytes for cost in costs)
    assert total.files == len(costs)
    assert total.pending == sum(cost.pending for cost in costs) <= total.files


@given(worlds())
def test_each_blob_that_is_not_here_is_paid_for_once_and_what_is_here_never(world: Any) -> None:
    wanted, held, also_held, sizes = world
    here = {file.digest for file in held} | also_held
    paid = [cost.file.digest for cost in cost_files(wanted, held, also_held, sizes)]
    assert paid == list(dict.fromkeys(file.digest for file in wanted if file.digest not in here))


@given(worlds())
def test_the_cheapest_known_way_counts_and_one_that_is_being_made_does_not(world: Any) -> None:
    wanted, held, also_held, sizes = world
    for cost in cost_files(wanted, held, also_held, sizes):
        ways = find_bases(wanted, held).get(cost.file.digest, ())
        known = {base: sizes[base, cost.file.digest] for base in ways if (base, cost.file.digest) in sizes}
        told = [size for size in known.values() if size is not None]
        assert cost.least_bytes == min([cost.file.size_bytes, *told])
        assert cost.pending == (None in known.values())
        assert cost.compressed_bytes == known.get(())
        assert cost.delta_bytes == next((size for base, size in known.items() if base), None)


@given(worlds())
def test_nobody_is_asked_to_make_a_delta_that_no_host_would_ask_for(world: Any) -> None:
    wanted, held, _, _ = world
    pairs = pairs_of(wanted, held)
    bases = find_bases(wanted, held)
    assert sorted(pairs) == sorted((base, target) for target, ways in bases.items() for base in ways)
    ranks = [bases[target].index(base) for base, target in pairs]
    assert ranks == sorted(ranks), "the most promising to each file go first"


def test_a_file_that_was_replaced_is_costed_by_delta_and_compressed() -> None:
    old, new = placed("models/m", "x", "c"), placed("models/m", "x", "h")
    assert pairs_of([new], [old]) == [(("c",), "h"), ((), "h")]
    (cost,) = cost_files([new], [old], frozenset(), {(("c",), "h"): 7, ((), "h"): 90})
    assert cost == FileCost(new, compressed_bytes=90, delta_bytes=7)
    assert cost.least_bytes == 7
    (unknown,) = cost_files([new], [old], frozenset(), {(("c",), "h"): None})
    assert unknown == FileCost(new, pending=True)
    assert unknown.least_bytes == sized("h")
