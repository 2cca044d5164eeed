"""From a pinned root to a release: what a host asks for, keeps and believes, with and without an upstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.signer import Signer

from skerry.kit.errors import Unavailable, Untrusted
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import (
    HUB_FIELD,
    Local,
    Remote,
    Step,
    TargetFound,
    desired_keys,
    find_target,
    follow_root,
    hub_field,
    load_kept,
    refresh,
    run_steps,
)
from skerry.trust.repository import ONLINE_VALID, TARGETS_VALID, sign, target_path
from tests.unit.trust_world import KEYS, NOW, FollowingHost, World

pytestmark = pytest.mark.trust

PATH = target_path("acme", "app@1.0.0")


def make_world() -> World:
    world = World()
    world.add_publisher("acme")
    world.push("acme", "app@1.0.0")
    return world


WORLD = make_world()
FILES = ("timestamp.json", "3.snapshot.json", "2.targets.json", "1.publisher-acme.json")


def refusal(what: Callable[[], object]) -> str:
    with pytest.raises(Untrusted) as refused:
        what()
    return refused.value.code


def test_a_host_that_finds_a_release_has_asked_for_six_files_and_kept_four() -> None:
    host = FollowingHost(WORLD)
    found = host.find("acme", "app@1.0.0")
    assert found is not None
    assert (found.path, found.role, found.role_version) == (PATH, "publisher-acme", 1)
    assert host.asked == ["2.root.json", *FILES]
    assert sorted(host.kept) == ["publisher-acme.json", "snapshot.json", "targets.json", "timestamp.json"]
    host.find("acme", "app@1.0.0")
    assert host.asked == ["2.root.json", "timestamp.json"]


def test_what_vouches_for_a_release_expires_with_the_first_of_all_above_it() -> None:
    host = FollowingHost(WORLD)
    trusted = host.refresh()
    found = host.find("acme", "app@1.0.0", trusted)
    assert found is not None
    assert found.expires_at == trusted.expires_at == NOW + ONLINE_VALID < NOW + TARGETS_VALID
    early = make_world()
    early.now = NOW - TARGETS_VALID + timedelta(days=5)
    early.push("acme", "app@2.0.0")
    early.now = NOW
    early.publish()
    found = FollowingHost(early).find("acme", "app@2.0.0")
    assert found is not None and found.expires_at == NOW + timedelta(days=5)


def test_versions_are_those_of_root_timestamp_and_snapshot() -> None:
    host = FollowingHost(WORLD)
    trusted = host.refresh()
    assert trusted.versions == (1, 3, 3)
    assert trusted.targets.version == 2
    assert trusted.role("publisher-acme") is None
    host.find("acme", "app@1.0.0", trusted)
    role = trusted.role("publisher-acme")
    assert role is not None and role.version == 1


def test_what_the_one_who_answers_raises_ends_it() -> None:
    def answer(step: Step) -> bytes | None:
        if isinstance(step, Remote):
            raise Unavailable("link.down", "no link")
        return None

    with pytest.raises(Unavailable):
        run_steps(refresh(WORLD.first_root, now=NOW), answer)


# --- without an upstream ------------------------------


@pytest.mark.rule("TRUST-6")
def test_what_was_kept_is_believed_without_an_upstream_whatever_its_age() -> None:
    host = FollowingHost(WORLD)
    host.find("acme", "app@1.0.0")
    trusted = host.load()
    found = host.find("acme", "app@1.0.0", trusted)
    assert found is not None and host.asked == []
    assert trusted.expires_at == NOW + ONLINE_VALID
    assert refusal(lambda: host.refresh(NOW + ONLINE_VALID)) == "metadata.expired"


def test_without_an_upstream_a_role_that_was_never_fetched_is_missing() -> None:
    host = FollowingHost(WORLD)
    host.refresh()
    assert refusal(lambda: host.find("acme", "app@1.0.0", host.load())) == "metadata.missing"
    assert host.asked == []


@pytest.mark.parametrize("name", ("timestamp.json", "snapshot.json", "targets.json"))
def test_without_an_upstream_what_is_lost_or_damaged_is_refused(name: str) -> None:
    host = FollowingHost(WORLD)
    host.refresh()
    content = host.kept.pop(name)
    assert refusal(host.load) == "metadata.missing"
    host.kept[name] = content[:-20]
    assert refusal(host.load) in ("metadata.malformed", "metadata.missing")
    assert host.asked == []


def test_a_newer_root_that_was_kept_counts_without_an_upstream() -> None:
    world = make_world()
    host = FollowingHost(world)
    host.refresh()
    world.desired = KEYS[11]
    world.own = type(world.own)("hub-1", world.online.key_id, KEYS[11].key_id)
    world.offer({"root": sign(world.next_root(2), world.signers(world.root_keys))})
    host.refresh()
    assert [key.keyid for key in desired_keys(host.load().root)] == [KEYS[11].key_id]
    assert "2.root.json" in host.kept


def test_a_root_alone_can_be_followed() -> None:
    def nothing(step: Step) -> bytes | None:
        return None

    assert run_steps(follow_root(WORLD.first_root, online=False), nothing).root.version == 1
    assert refusal(lambda: run_steps(follow_root(b"{}", online=False), nothing)) == "metadata.malformed"
    assert refusal(lambda: run_steps(load_kept(WORLD.first_root), nothing)) == "metadata.missing"


# --- tampering ------------------------------


def find_with(served: dict[str, bytes | None], now: datetime = NOW) -> TargetFound | None:
    """Find the release with some files altered; all that is kept is as somebody signed it."""
    host = FollowingHost(WORLD)
    host.served = served
    try:
        return run_steps(find_target(host.refresh(now), PATH), host.answer)
    finally:
        for name, content in host.kept.items():
            signed = json.loads(content)["signed"]
            role = name.removesuffix(".json")
            number = {"timestamp": 3, "snapshot": 3, "targets": 2, "publisher-acme": 1}[role]
            assert signed["version"] == number


RIGHT = find_with({})


def outcome(served: dict[str, bytes | None]) -> TargetFound | str | None:
    """Return what is found, or how the codes of the refusal begin."""
    try:
        return find_with(served)
    except Untrusted as refused:
        return refused.code.partition(".")[0]


@pytest.mark.rule("TRUST-4")
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(FILES), place=st.integers(0, 1 << 16), flip=st.integers(1, 255))
def test_altering_any_byte_of_any_file_is_refused_or_changes_nothing(
    name: str, place: int, flip: int
) -> None:
    content = bytearray(WORLD.files[name])
    content[place % len(content)] ^= flip
    assert outcome({name: bytes(content)}) in (RIGHT, "metadata")


@pytest.mark.rule("TRUST-4")
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(("2.root.json", *FILES)),
    other=st.sampled_from(sorted(WORLD.files)),
    cut=st.integers(0, 3),
)
def test_files_in_each_others_place_or_cut_short_are_refused_or_change_nothing(
    name: str, other: str, cut: int
) -> None:
    content = WORLD.files[other]
    assert outcome({name: content[: len(content) - cut]}) in (RIGHT, "metadata")


@pytest.mark.rule("TRUST-7")
@settings(max_examples=100)
@given(name=st.sampled_from(("2.root.json", *FILES)), content=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_as_malformed(name: str, content: bytes) -> None:
    assert refusal(lambda: find_with({name: content})) == "metadata.malformed"


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("name", FILES)
def test_what_a_stranger_signed_in_any_role_is_refused(name: str) -> None:
    stranger = SigningKey.generate()
    content = json.loads(WORLD.files[name])
    (was, *_) = content["signatures"]
    signed = json.dumps(content["signed"], sort_keys=True, separators=(",", ":")).encode()
    content["signatures"] = [{"keyid": was["keyid"], "sig": stranger.sign_raw(signed).hex()}]
    assert refusal(lambda: find_with({name: json.dumps(content).encode()})) == "metadata.bad_signature"


@pytest.mark.rule("TRUST-4")
def test_a_stolen_hub_cannot_vouch_for_software() -> None:
    world = make_world()
    host = FollowingHost(world)
    host.find("acme", "app@1.0.0")
    # Whoever has the hub has its online keys and what hosts are served, and none of a publisher's keys.
    world.holders["acme"] = [world.online]
    forged = world.signed_release("acme", "app@1.0.1")
    world.files["2.publisher-acme.json"] = forged["publisher-acme"]
    world.versions["publisher-acme"] = 2
    world.publish()
    assert refusal(lambda: host.find("acme", "app@1.0.1")) == "metadata.bad_signature"
    from skerry.trust.repository import with_publisher

    own = with_publisher(world.roles["targets"], "evil", [world.online.verifier], threshold=1, now=NOW)
    signers: list[Signer] = [world.online.signer]
    world.files["3.targets.json"] = sign(own, signers)
    world.versions |= {"targets": 3, "publisher-acme": 1}
    world.publish()
    assert refusal(host.refresh) in ("metadata.bad_signature", "metadata.rollback")


def test_no_step_but_those_for_files_is_asked_of_anybody() -> None:
    seen: list[Step] = []
    host = FollowingHost(WORLD)

    def answer(step: Step) -> bytes | None:
        seen.append(step)
        return host.answer(step)

    run_steps(find_target(run_steps(refresh(WORLD.first_root, now=NOW), answer), PATH), answer)
    for step in seen:
        if isinstance(step, Remote):
            assert 0 < step.max_bytes <= 5 << 20
    assert [step.name for step in seen if isinstance(step, Local)][-1] == "publisher-acme.json"


# --- the hub's field ------------------------------


def test_a_root_says_whose_it_is_and_which_keys_sign_desired_state() -> None:
    root = FollowingHost(WORLD).refresh().root
    assert hub_field(root).hub == "hub-1"
    assert [key.keyid for key in desired_keys(root)] == [KEYS[5].key_id]


@pytest.mark.parametrize("field", (None, [], {}, {"hub": 1, "desired": []}, {"hub": "h", "desired": "k"}))
def test_a_root_that_does_not_say_whose_it_is_is_refused(field: object) -> None:
    root = FollowingHost(WORLD).refresh().root
    root.unrecognized_fields[HUB_FIELD] = field
    assert refusal(lambda: hub_field(root)) == "metadata.no_hub"


def test_keys_that_the_root_does_not_hold_sign_nothing() -> None:
    root = FollowingHost(WORLD).refresh().root
    root.unrecognized_fields[HUB_FIELD] = {"hub": "h", "desired": ["unknown"], "later": "field"}
    assert hub_field(root).desired == ("unknown",)
    assert refusal(lambda: desired_keys(root)) == "metadata.no_hub"
