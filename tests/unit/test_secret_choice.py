"""Which value of a secret a site gets, and which version a host uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Rejected
from skerry.matching.secrets import choose_scope, find_ties, parse_scope
from skerry.spec.secret import Scope
from skerry.trust.secret_choice import HeldVersion, InUse, choose_version

T0 = datetime(2026, 5, 4, tzinfo=UTC)
NORTH = parse_scope(selector="region=north")
NORTH_TEST = parse_scope(selector="tier=test, region=north")
ZURICH = parse_scope(site="zurich")
ALL = parse_scope()


@pytest.mark.parametrize(
    ("scopes", "labels", "chosen"),
    (
        ([ALL, NORTH, NORTH_TEST, ZURICH], {"region": "north", "tier": "test"}, ZURICH),
        ([ALL, NORTH, NORTH_TEST], {"region": "north", "tier": "test"}, NORTH_TEST),
        ([ALL, NORTH, NORTH_TEST], {"region": "north"}, NORTH),
        ([ALL, NORTH], {"region": "south"}, ALL),
        ([NORTH, parse_scope(site="berne")], {"region": "south"}, None),
        ([], {}, None),
    ),
)
def test_the_scope_that_says_most_about_a_site_holds(
    scopes: list[Scope], labels: dict[str, str], chosen: Scope | None
) -> None:
    choice = choose_scope(scopes, "zurich", labels)
    assert choice.scope == chosen
    assert not choice.tied
    assert bool(choice.why) is bool(scopes)


def test_two_selectors_of_as_many_terms_leave_it_open_unless_something_says_more() -> None:
    tier = parse_scope(selector="tier=test")
    labels = {"region": "north", "tier": "test"}
    choice = choose_scope([NORTH, tier, ALL], "zurich", labels)
    assert (choice.scope, set(choice.tied)) == (None, {NORTH, tier})
    assert find_ties([NORTH, tier], {"zurich": labels, "berne": {"region": "north"}}).keys() == {"zurich"}
    assert choose_scope([NORTH, tier, ZURICH], "zurich", labels).scope == ZURICH


def test_a_selector_is_the_same_in_any_order_and_a_scope_is_one_thing() -> None:
    assert parse_scope(selector="region=north,tier=test") == NORTH_TEST
    assert parse_scope(selector="tier in (b,a), region=north").of == "region=north,tier in (b,a)"
    assert parse_scope(selector="*") == ALL
    for wrong in ({"site": "a", "selector": "b"}, {"site": "A!"}, {"selector": "==="}):
        with pytest.raises(Rejected):
            parse_scope(**wrong)


def version(number: int, *, after_s: int | None = None) -> HeldVersion:
    begins = None if after_s is None else T0 + timedelta(seconds=after_s)
    return HeldVersion(f"id{number}", number, begins)


def test_a_version_is_used_from_its_time_on_and_the_one_before_it_is_remembered() -> None:
    held = [version(1), version(2, after_s=60)]
    first = choose_version(held, None, now=T0, clock=T0)
    assert first == InUse("id1", T0)
    assert choose_version(held, first, now=T0 + timedelta(seconds=59), clock=T0) == first
    later = T0 + timedelta(seconds=60)
    assert choose_version(held, first, now=later, clock=later) == InUse("id2", later, "id1")


def test_a_revoked_version_is_left_even_for_a_lower_one() -> None:
    using = InUse("id2", T0, "id1")
    assert choose_version([version(1)], using, now=T0, clock=T0) == InUse("id1", T0)
    assert choose_version([], using, now=T0, clock=T0) is None
    assert choose_version([version(3, after_s=60)], using, now=T0, clock=T0) is None


numbers = st.integers(1, 6)
begins = st.none() | st.integers(-5, 5)


@pytest.mark.rule("SECRET-3")
@given(
    st.dictionaries(numbers, begins, min_size=1),
    st.lists(st.tuples(st.integers(-6, 6), st.sets(numbers, max_size=3)), max_size=12),
)
def test_whatever_clocks_do_and_documents_list_a_held_value_stays_until_a_higher_one_takes_its_place(
    versions: dict[int, int | None], turns: list[tuple[int, set[int]]]
) -> None:
    used: InUse | None = None
    for offset, forgotten in turns:
        by_id = {f"id{number}": number for number in versions}
        # A host keeps what it uses, whatever a document lists.
        held = [
            version(number, after_s=after)
            for number, after in versions.items()
            if number not in forgotten or (used is not None and used.id == f"id{number}")
        ]
        now = T0 + timedelta(seconds=offset)
        before, used = used, choose_version(held, used, now=now, clock=now)
        if before is not None:
            assert used is not None
            assert by_id[used.id] >= by_id[before.id]
        if used is not None and used != before:
            after = versions[by_id[used.id]]
            assert after is None or after <= offset
