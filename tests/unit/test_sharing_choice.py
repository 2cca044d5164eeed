"""Who of a site fetches a blob: one where all see the same, and never more than there are hosts."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery.sharing import Holder, Wanting, choose_source
from skerry.kit.digests import digest_of

HOSTS = tuple(f"edge-{number}" for number in range(6))
States = Literal["whole", "above", "wanted"]

hosts = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=6, unique=True)
digests = st.binary(max_size=4).map(lambda content: str(digest_of(content)))
states: st.SearchStrategy[States] = st.sampled_from(("whole", "above", "wanted"))


def others_of(host: str, held: dict[str, int]) -> list[Holder]:
    return [Holder(other, "wanted", size) for other, size in held.items() if other != host]


@given(digest=digests, held=st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 3), min_size=1))
def test_where_all_see_the_same_exactly_one_fetches_and_all_others_wait_for_it(
    digest: str, held: dict[str, int]
) -> None:
    choices = {host: choose_source(digest, Wanting(host, held[host]), others_of(host, held)) for host in held}
    (fetching,) = (host for host, choice in choices.items() if choice.kind == "above")
    assert held[fetching] == max(held.values()), "what is here already is not fetched again"
    assert {choice.host for host, choice in choices.items() if host != fetching} <= {fetching}


@given(digest=digests, present=hosts, data=st.data())
def test_a_blob_that_is_somewhere_or_comes_is_fetched_by_nobody(
    digest: str, present: list[str], data: st.DataObject
) -> None:
    mine, *rest = present
    others = [Holder(host, data.draw(states), data.draw(st.integers(0, 9))) for host in rest]
    choice = choose_source(digest, Wanting(mine, able=data.draw(st.booleans())), others)
    there = {one.host for one in others if one.state == "whole"}
    coming = {one.host for one in others if one.state == "above"}
    if there or coming:
        assert choice.kind == "near"
        assert choice.host in (there or coming)
    elif not others:
        assert choice.kind == "above"


@given(digest=digests, views=st.dictionaries(st.sampled_from(HOSTS), hosts, min_size=1))
def test_wrong_views_make_no_more_fetch_than_there_are_views(
    digest: str, views: dict[str, list[str]]
) -> None:
    kinds = [
        choose_source(digest, Wanting(host), [Holder(one, "wanted") for one in seen if one != host]).kind
        for host, seen in views.items()
    ]
    # Whoever sees everybody who fetches waits for one of them, so that at least one does.
    assert 1 <= kinds.count("above") <= len(views) or any(set(seen) - set(views) for seen in views.values())


@given(digest=digests, present=hosts)
def test_who_cannot_fetch_waits_for_one_who_can_and_tries_when_there_is_none(
    digest: str, present: list[str]
) -> None:
    mine, *rest = present
    choice = choose_source(digest, Wanting(mine, able=False), [Holder(host, "wanted") for host in rest])
    assert (choice.kind, choice.host in rest) == (("later", True) if rest else ("above", False))


def test_many_blobs_and_many_askers_spread_over_all_hosts() -> None:
    digests_ = [str(digest_of(bytes([number]))) for number in range(240)]
    held = dict.fromkeys(HOSTS[:3], 0)
    fetched = {
        host: sum(
            choose_source(digest, Wanting(host), others_of(host, held)).kind == "above" for digest in digests_
        )
        for host in held
    }
    assert sum(fetched.values()) == 240
    assert min(fetched.values()) > 50
    givers = [Holder(host, "whole") for host in HOSTS[:3]]
    asked = [choose_source(digest, Wanting("edge-5"), givers).host for digest in digests_]
    assert min(asked.count(host) for host in HOSTS[:3]) > 50
