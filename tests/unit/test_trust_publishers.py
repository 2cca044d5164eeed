"""What a publisher signs: releases in one role or in bins, revoked, re-keyed and spread, and always to be found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, SuccinctRoles, Targets

from skerry.kit.errors import Conflict, Missing, Untrusted
from skerry.spec.publishing import TargetCustom
from skerry.trust.publishers import (
    BIN_TARGETS,
    MAX_BITS,
    MAX_IN_ROLE,
    Shelf,
    add_release,
    bin_names,
    bins_of,
    bits_for,
    custom_of,
    read_custom,
    revoke_release,
    sign_anew,
)
from skerry.trust.repository import publisher_role, target_path
from tests.unit.trust_world import KEYS, NOW, REVOKED, FollowingHost, World, document, target_for

pytestmark = pytest.mark.trust


def names(count: int, application: str = "app") -> list[str]:
    return [f"{application}@1.{number}.0" for number in range(count)]


def spread_world(count: int, bits: int) -> World:
    world = World()
    world.add_publisher("acme")
    world.fill("acme", names(count), bits=bits)
    return world


def top_of(world: World, publisher: str = "acme") -> Targets:
    found = world.shelf(publisher).read(publisher_role(publisher))
    assert found is not None
    return found


def test_a_release_is_signed_once_with_its_digest_length_and_summary() -> None:
    world = World()
    world.add_publisher("acme")
    assert world.push("acme", "app@1.0.0") == {"publisher-acme"}
    found = world.shelf("acme").find("app@1.0.0")
    assert found is not None
    assert found.length == len(document("acme", "app@1.0.0"))
    assert custom_of(found) == TargetCustom(application="app", version="1.0.0")
    assert world.signed_release("acme", "app@1.0.0") == {}


def test_another_document_under_a_signed_name_is_a_conflict() -> None:
    world = World()
    world.add_publisher("acme")
    world.push("acme", "app@1.0.0")
    with pytest.raises(Conflict) as refused:
        world.signed_release("acme", "app@1.0.0", b"another")
    assert refused.value.code == "release.other"


def test_a_revoked_release_is_never_signed_again_also_with_the_same_bytes() -> None:
    world = World()
    world.add_publisher("acme")
    world.push("acme", "app@1.0.0")
    world.revoke("acme", "app@1.0.0")
    found = world.shelf("acme").find("app@1.0.0")
    assert found is not None and custom_of(found).revoked == REVOKED
    for content in (None, b"another"):
        with pytest.raises(Conflict) as refused:
            world.signed_release("acme", "app@1.0.0", content)
        assert refused.value.code == "release.revoked"


def test_what_was_never_signed_cannot_be_revoked() -> None:
    world = World()
    world.add_publisher("acme")
    with pytest.raises(Missing) as refused:
        world.revoke("acme", "app@1.0.0")
    assert refused.value.code == "release.unsigned"


def test_damaged_metadata_and_custom_fields_are_untrusted() -> None:
    with pytest.raises(Untrusted):
        Shelf("acme", lambda _: b"{").find("app@1.0.0")
    customs: tuple[object, ...] = (
        None,
        [1],
        {"application": "app"},
        {"application": "app", "version": "1.0.0", "more": 1},
    )
    for custom in customs:
        with pytest.raises(Untrusted) as refused:
            read_custom(custom, "path")
        assert refused.value.code == "metadata.bad_custom"


def test_a_publisher_without_releases_gets_an_empty_role() -> None:
    world = World()
    world.add_publisher("acme")
    unsigned = sign_anew(world.shelf("acme"), holders=world.holder("acme"), now=NOW)
    assert list(unsigned) == ["publisher-acme"]
    assert (unsigned["publisher-acme"].signed.version, unsigned["publisher-acme"].signed.targets) == (1, {})


# --- bins ------------------------------


def test_up_to_a_thousand_releases_are_in_the_role_and_one_more_spreads_all() -> None:
    world = World()
    world.add_publisher("acme")
    world.fill("acme", names(MAX_IN_ROLE - 1))
    host = FollowingHost(world)
    assert world.push("acme", "last@1.0.0") == {"publisher-acme"}
    assert bins_of(top_of(world)) is None
    signed = world.push("acme", "more@1.0.0")
    bins = bins_of(top_of(world))
    assert bins is not None and bins.bit_length == bits_for(MAX_IN_ROLE + 1) == 3
    assert signed == {"publisher-acme", *bin_names(top_of(world))}
    assert top_of(world).targets == {}
    assert len(world.shelf("acme").targets()) == MAX_IN_ROLE + 1
    trusted = host.refresh()
    for release in (*names(5), "last@1.0.0", "more@1.0.0"):
        found = host.find("acme", release, trusted)
        assert found is not None and found.role.startswith("bin-acme-")


@pytest.mark.rule("TRUST-8")
def test_one_more_release_costs_a_host_one_bin() -> None:
    world = spread_world(2 * MAX_IN_ROLE, 4)
    host = FollowingHost(world)
    for release in names(2 * MAX_IN_ROLE)[:60]:
        host.find("acme", release)
    signed = world.push("acme", "new@1.0.0")
    assert len(signed) == 1 and signed < set(bin_names(top_of(world)))
    assert host.find("acme", "new@1.0.0") is not None
    (role,) = signed
    assert host.asked == ["2.root.json", "timestamp.json", host.asked[2], f"2.{role}.json"]


@pytest.mark.rule("TRUST-8")
def test_bins_that_are_too_full_become_more_and_everything_is_found() -> None:
    count = 4 * BIN_TARGETS
    world = spread_world(count, 1)
    before = set(bin_names(top_of(world)))
    host = FollowingHost(world)
    host.find("acme", names(1)[0])
    pushed: list[str] = []
    while set(bin_names(top_of(world))) == before:
        pushed.append(f"new@1.{len(pushed)}.0")
        world.push("acme", pushed[-1])
        assert len(pushed) < count
    bins = bins_of(top_of(world))
    assert bins is not None and bins.bit_length > 1
    trusted = host.refresh()
    for release in (*names(count)[::50], *pushed):
        assert host.find("acme", release, trusted) is not None
    sizes = [
        len(part.targets) for name in bin_names(top_of(world)) if (part := world.shelf("acme").read(name))
    ]
    assert sum(sizes) == count + len(pushed) and max(sizes) <= 2 * BIN_TARGETS


def test_bins_grow_also_when_one_of_them_alone_is_full() -> None:
    world = spread_world(0, 3)
    bins = bins_of(top_of(world))
    assert bins is not None
    crowded = [
        name
        for name in names(20 * 2 * BIN_TARGETS)
        if bins.get_role_for_target(target_path("acme", name)) == "bin-acme-0"
    ][: 2 * BIN_TARGETS + 1]
    world.fill("acme", crowded[:-1], bits=3)
    world.push("acme", crowded[-1])
    grown = bins_of(top_of(world))
    assert grown is not None and grown.bit_length == 4


def test_a_full_set_of_bins_takes_more_than_it_would_like() -> None:
    world = World()
    world.add_publisher("acme")
    roles: dict[str, bytes] = {}
    shelf = Shelf("acme", roles.get)
    holders = world.holder("acme")
    world.fill("acme", [], bits=1)
    top = top_of(world)
    assert top.delegations is not None and top.delegations.succinct_roles is not None
    top.delegations.succinct_roles = SuccinctRoles([KEYS[6].key_id], 1, MAX_BITS, "bin-acme")
    roles["publisher-acme"] = Metadata(top).to_bytes()
    part = Targets(expires=NOW + timedelta(days=9))
    role = shelf.role_for(target_path("acme", "app@1.0.0"))
    part.targets = {
        target_path("acme", name): target_for("acme", name) for name in names(2 * BIN_TARGETS, "other")
    }
    roles[role] = Metadata(part).to_bytes()
    unsigned = add_release(shelf, "app@1.0.0", target_for("acme", "app@1.0.0"), holders=holders, now=NOW)
    assert set(unsigned) == {role}


def test_how_many_bits_fit() -> None:
    assert [bits_for(count) for count in (0, 1, 256, 257, 1001, 100_000)] == [1, 1, 1, 2, 3, 10]
    assert bits_for(10**9) == MAX_BITS


def test_nobody_is_made_to_list_more_bins_than_there_may_be() -> None:
    top = top_of(spread_world(1, 1))
    assert top.delegations is not None
    top.delegations.succinct_roles = SuccinctRoles([KEYS[6].key_id], 1, 32, "bin-acme")
    with pytest.raises(Untrusted) as refused:
        bin_names(top)
    assert refused.value.code == "metadata.too_many_bins"


@pytest.mark.rule("TRUST-8")
def test_new_keys_sign_all_bins_anew_and_the_old_ones_count_no_more() -> None:
    world = spread_world(600, 2)
    host = FollowingHost(world)
    assert host.find("acme", "app@1.0.0") is not None
    world.add_publisher("acme", KEYS[7:9])
    trusted = host.refresh()
    for release in names(600)[::40]:
        assert host.find("acme", release, trusted) is not None
    world.push("acme", "new@1.0.0")
    assert host.find("acme", "new@1.0.0") is not None
    world.holders["acme"] = [KEYS[6]]
    with pytest.raises(Untrusted) as refused:
        world.push("acme", "other@1.0.0")
    assert refused.value.code == "metadata.bad_signature"


# --- publishers beside each other ------------------------------


@pytest.mark.rule("TRUST-8")
@pytest.mark.parametrize("other", ("acme-0", "acme-00", "bin-acme", "acme-0-0", "publisher-acme"))
def test_publishers_whose_names_begin_alike_do_not_mix(other: str) -> None:
    world = World()
    for publisher, key in (("acme", KEYS[6]), (other, KEYS[7])):
        world.add_publisher(publisher, [key])
        world.fill(publisher, names(40), bits=2)
    before = {role: content for role, content in world.roles.items() if "acme" in role}
    signed = world.push("acme", "mine@1.0.0") | world.push("acme", "mine@2.0.0")
    assert {role for role in before if world.roles[role] != before[role]} == signed
    world.push(other, "theirs@1.0.0")
    host = FollowingHost(world)
    trusted = host.refresh()
    assert host.find("acme", "mine@1.0.0", trusted) is not None
    assert host.find(other, "mine@1.0.0", trusted) is None
    assert host.find("acme", "theirs@1.0.0", trusted) is None
    for publisher in ("acme", other):
        found = host.find(publisher, "app@1.7.0", trusted)
        assert found is not None and found.length == len(document(publisher, "app@1.7.0"))


@pytest.mark.rule("TRUST-8")
def test_of_a_revoked_publisher_nothing_is_found_and_of_others_everything() -> None:
    world = World()
    for publisher in ("acme", "other"):
        world.add_publisher(publisher)
        world.push(publisher, "app@1.0.0")
    host = FollowingHost(world)
    assert host.find("acme", "app@1.0.0") is not None
    world.drop_publisher("acme")
    trusted = host.refresh()
    assert host.find("acme", "app@1.0.0", trusted) is None
    assert host.find("other", "app@1.0.0", trusted) is not None


STEPS = st.lists(
    st.sampled_from(("push", "push", "revoke", "rekey", "again", "follow")), min_size=4, max_size=14
)


@pytest.mark.rule("TRUST-8")
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(((0, 0), (MAX_IN_ROLE - 2, 0), (2 * BIN_TARGETS, 1), (300, 2))), steps=STEPS)
def test_whatever_is_published_revoked_and_rekeyed_every_release_is_found(
    start: tuple[int, int], steps: Sequence[str]
) -> None:
    world = World()
    world.add_publisher("acme")
    filled = names(start[0])
    if filled:
        world.fill("acme", filled, bits=start[1])
    host = FollowingHost(world)
    held, revoked = list(filled), set[str]()
    for number, step in enumerate(steps):
        if step == "push":
            held.append(f"new@2.{number}.0")
            world.push("acme", held[-1])
        elif step == "revoke" and held:
            revoked.add(held[-1 - number % len(held)])
            world.revoke("acme", held[-1 - number % len(held)])
        elif step == "rekey":
            world.add_publisher("acme", [KEYS[6 + number % 4], KEYS[10 + number % 2]])
        elif step == "again" and held and held[-1] not in revoked:
            assert world.signed_release("acme", held[-1]) == {}
        elif step == "follow":
            host.refresh()
    looked_at = {*held[::25], *held[len(filled) :], *revoked}
    trusted = host.refresh()
    for release in looked_at:
        found = host.find("acme", release, trusted)
        assert found is not None and found.length == len(document("acme", release))
        assert bool(read_custom(found.custom, found.path).revoked) == (release in revoked)
    assert len(world.shelf("acme").targets()) == len(held)


def test_revoking_again_replaces_why_and_stays_a_revocation() -> None:
    world = spread_world(20, 1)
    world.revoke("acme", "app@1.3.0")
    holders = world.holder("acme")
    stop = type(REVOKED)(why="worse", at=NOW, running="stop")
    unsigned = revoke_release(world.shelf("acme"), "app@1.3.0", stop, holders=holders, now=NOW)
    world.offer(world.sign_roles("acme", unsigned))
    found = world.shelf("acme").find("app@1.3.0")
    assert found is not None and custom_of(found).revoked == stop


@pytest.mark.rule("TRUST-5")
def test_no_carrier_exchanges_what_the_same_keys_signed_to_hide_a_revocation() -> None:
    world = spread_world(0, 1)
    for release in names(4):
        world.push("acme", release)
    world.versions |= dict.fromkeys(bin_names(top_of(world)), 9)
    roles = bin_names(top_of(world))
    for role in roles:  # both at one version
        part = world.shelf("acme").read(role)
        assert part is not None
        part.version = 9
        world.files |= {
            f"9.{name}.json": one for name, one in world.sign_roles("acme", {role: Metadata(part)}).items()
        }
    world.publish()
    host = FollowingHost(world)
    first, second = (f"9.{role}.json" for role in roles)
    host.served = {first: world.files[second], second: world.files[first]}
    trusted = host.refresh()
    for _ in range(2):
        for release in names(4):
            with pytest.raises(Untrusted) as refused:
                host.find("acme", release, trusted)
            assert refused.value.code == "metadata.mismatch"
    assert "bin-acme-0.json" not in host.kept
    host.served = {}
    assert host.find("acme", names(1)[0]) is not None


@pytest.mark.rule("TRUST-5")
def test_one_key_for_all_roles_does_not_let_one_stand_for_another() -> None:
    world = World()
    world.targets_keys = world.targets_keys[:1]
    world.add_publisher("acme", world.targets_keys)
    world.add_publisher("other", world.targets_keys)
    for publisher in ("acme", "other"):
        for release in names(3):
            world.push(publisher, release)
    host = FollowingHost(world)
    assert world.versions == {"root": 1, "targets": 3, "publisher-acme": 3, "publisher-other": 3}
    for name, instead in (
        ("3.publisher-acme.json", "3.publisher-other.json"),
        ("3.publisher-acme.json", "3.targets.json"),
        ("3.targets.json", "3.publisher-acme.json"),
    ):
        host.kept.clear()
        host.served = {name: world.files[instead]}
        with pytest.raises(Untrusted) as refused:
            host.find("acme", names(1)[0])
        assert refused.value.code == "metadata.mismatch"
