"""Which blobs a host keeps: all that it needs, bases as long as there is room, and what lacks is said beforehand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.keeping import Keeping, Named, Room, plan_keeping

pytestmark = pytest.mark.delivery

MIB = 1 << 20
NAMES = tuple("abcdefghijkl")

_names = st.frozensets(st.sampled_from(NAMES), max_size=4)
_sizes = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50))
_named = st.builds(
    Named,
    running=_names,
    good=_names,
    candidate=_names,
    bases=st.lists(st.sampled_from(NAMES), max_size=8).map(tuple),
)
_room = st.builds(
    Room,
    free=st.integers(0, 200),
    wanted=st.just(0) | st.integers(0, 200),
    limit=st.none() | st.integers(0, 400),
    keep_free=st.just(0) | st.integers(0, 100),
)


def needed(named: Named) -> frozenset[str]:
    return frozenset(named.running | named.good | named.candidate)


def after(
    held: Mapping[str, int], partial: Mapping[str, int], room: Room, keeping: Keeping
) -> tuple[int, int]:
    """Return what blobs take and what is free once a plan has been carried out."""
    gone = sum(held[digest] for digest in keeping.remove) + sum(partial[digest] for digest in keeping.drop)
    return sum(held.values()) + sum(partial.values()) - gone, room.free + gone


def fits(room: Room, taken: int, free: int) -> bool:
    within = room.limit is None or taken + room.wanted <= room.limit
    return within and (not room.wanted or free - room.wanted >= room.keep_free)


# ── what holds always ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("DISK-1")
@given(_sizes, _sizes, _named, _room)
def test_what_runs_the_last_good_release_and_what_is_fetched_are_never_removed(
    held: dict[str, int], partial: dict[str, int], named: Named, room: Room
) -> None:
    keeping = plan_keeping(held, named, room, partial=partial)
    assert not needed(named) & set(keeping.remove)
    # Of what has come of it in part nothing is thrown away either, unless the whole is there.
    assert not (needed(named) - held.keys()) & set(keeping.drop)


@given(_sizes, _sizes, _named, _room)
def test_what_nobody_names_is_removed_once_and_what_is_not_there_is_not(
    held: dict[str, int], partial: dict[str, int], named: Named, room: Room
) -> None:
    keeping = plan_keeping(held, named, room, partial=partial)
    assert len(set(keeping.remove)) == len(keeping.remove)
    assert set(keeping.remove) <= held.keys()
    assert held.keys() - needed(named) - set(named.bases) <= set(keeping.remove)
    assert set(keeping.drop) == {
        digest for digest in partial if digest in held or digest not in needed(named)
    }


@pytest.mark.rule("DISK-2")
@given(_sizes, _sizes, _named, _room)
def test_nothing_lacks_exactly_when_what_is_wanted_fits_after_all_that_may_go(
    held: dict[str, int], partial: dict[str, int], named: Named, room: Room
) -> None:
    keeping = plan_keeping(held, named, room, partial=partial)
    taken, free = after(held, partial, room, keeping)
    if not keeping.lacking:
        assert fits(room, taken, free)
    # With so many bytes more it fits, and with one less it does not, even if every base goes.
    spare = sum(
        held[base] for base in set(named.bases) - needed(named) if base in held and base not in keeping.remove
    )
    for more, enough in ((keeping.lacking, True), (keeping.lacking - 1, False)):
        if more >= 0:
            limit = None if room.limit is None else room.limit + more
            roomier = Room(free=0, wanted=room.wanted, limit=limit, keep_free=room.keep_free)
            assert fits(roomier, taken - spare, free + spare + more) == enough


@given(_sizes, _sizes, _named, _room)
def test_bases_go_the_least_useful_first_and_only_where_it_helps(
    held: dict[str, int], partial: dict[str, int], named: Named, room: Room
) -> None:
    keeping = plan_keeping(held, named, room, partial=partial)
    order = [base for base in dict.fromkeys(named.bases) if base in held and base not in needed(named)]
    gone = [digest for digest in keeping.remove if digest in order]
    assert gone == order[::-1][: len(gone)], "least useful first, and none out of turn"
    if gone:
        taken, free = after(held, partial, room, keeping)
        last = held[gone[-1]]
        asked = Room(free=0, limit=room.limit) if keeping.lacking else room
        assert not fits(asked, taken + last, free - last), "the last one that went was needed"


@given(_sizes, _sizes, _named, _room)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    held: dict[str, int], partial: dict[str, int], named: Named, room: Room
) -> None:
    keeping = plan_keeping(held, named, room, partial=partial)
    left = {digest: size for digest, size in held.items() if digest not in keeping.remove}
    left_partial = {digest: size for digest, size in partial.items() if digest not in keeping.drop}
    _, free = after(held, partial, room, keeping)
    now = Room(free=free, wanted=room.wanted, limit=room.limit, keep_free=room.keep_free)
    again = plan_keeping(left, named, now, partial=left_partial)
    assert (again.remove, again.drop, again.lacking) == ((), (), keeping.lacking)


@given(_sizes, _named, _room, st.integers(0, 100))
def test_more_free_space_never_removes_more_where_the_fetch_fits(
    held: dict[str, int], named: Named, room: Room, more: int
) -> None:
    roomier = Room(free=room.free + more, wanted=room.wanted, limit=room.limit, keep_free=room.keep_free)
    tight, wide = plan_keeping(held, named, room), plan_keeping(held, named, roomier)
    assert wide.lacking <= tight.lacking
    if not tight.lacking:
        assert set(wide.remove) <= set(tight.remove)


@given(_sizes, _named, _room)
def test_whoever_has_to_remove_or_to_wait_is_told_why(held: dict[str, int], named: Named, room: Room) -> None:
    keeping = plan_keeping(held, named, room)
    assert bool(keeping.why) == bool(keeping.remove or keeping.lacking)
    assert any("lacking" in line for line in keeping.why) == bool(keeping.lacking)


# ── some in full ─────────────────────────────────────────────────────────────────────────────────────


def test_with_room_enough_only_what_nobody_names_goes() -> None:
    held = {"run": 10 * MIB, "good": 10 * MIB, "near": 8 * MIB, "far": 7 * MIB, "old": 5 * MIB}
    named = Named(running={"run"}, good={"good"}, candidate={"next"}, bases=("near", "far"))
    keeping = plan_keeping(held, named, Room(free=100 * MIB, wanted=20 * MIB, keep_free=10 * MIB))
    assert keeping == Keeping(remove=("old",), why=("removes 1 blob (5.0 MiB) that nothing needs any more",))


@pytest.mark.parametrize(
    ("room", "gone"),
    (
        (Room(free=20 * MIB, wanted=20 * MIB), ()),
        (Room(free=19 * MIB, wanted=20 * MIB), ("far",)),
        (Room(free=20 * MIB, wanted=20 * MIB, keep_free=8 * MIB), ("far", "near")),
        (Room(free=100 * MIB, wanted=20 * MIB, limit=55 * MIB), ()),
        (Room(free=100 * MIB, wanted=20 * MIB, limit=54 * MIB), ("far",)),
        (Room(free=0, limit=28 * MIB), ("far",)),
        (Room(free=0, keep_free=100 * MIB), ()),
    ),
)
def test_bases_make_room_one_by_one(room: Room, gone: tuple[str, ...]) -> None:
    held = {"run": 20 * MIB, "near": 8 * MIB, "far": 7 * MIB}
    named = Named(running={"run"}, candidate={"next"}, bases=("near", "far"))
    keeping = plan_keeping(held, named, room)
    assert (keeping.remove, keeping.lacking) == (gone, 0)


@pytest.mark.rule("DISK-2")
def test_a_fetch_that_cannot_fit_says_what_lacks_and_costs_no_base() -> None:
    held = {"run": 20 * MIB, "near": 8 * MIB}
    named = Named(running={"run"}, candidate={"next"}, bases=("near",))
    keeping = plan_keeping(
        held, named, Room(free=10 * MIB, wanted=40 * MIB, keep_free=2 * MIB, limit=59 * MIB)
    )
    assert (keeping.remove, keeping.lacking) == ((), 24 * MIB)
    assert keeping.why == (
        "1.0 MiB lacking: 20.0 MiB to be kept and 40.0 MiB to fetch, with room for 59.0 MiB of blobs",
        "24.0 MiB lacking: 40.0 MiB to fetch and 2.0 MiB to be left free, with 18.0 MiB free on the disk",
    )


def test_what_has_come_in_part_stays_for_what_is_fetched_and_goes_otherwise() -> None:
    named = Named(running={"run"}, candidate={"next"}, bases=("base",))
    partial = {"next": 3 * MIB, "left": 4 * MIB, "run": 1 * MIB, "base": 1 * MIB}
    keeping = plan_keeping({"run": MIB}, named, Room(free=4 * MIB, wanted=10 * MIB), partial=partial)
    assert keeping.drop == ("base", "left", "run")
    assert keeping.lacking == 0


def test_bases_that_others_name_are_kept_by_those() -> None:
    sizes: dict[str, int] = {"one": MIB, "two": MIB, "three": MIB}
    named = Named(running={"one"}, good={"two"}, bases=("three", "two", "one"))
    keeping = plan_keeping(sizes, named, Room(free=0, limit=0))
    assert keeping.remove == ("three",)
    assert keeping.lacking == 2 * MIB
