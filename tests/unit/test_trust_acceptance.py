"""What a hub takes into its repository: what every host would take, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    SuccinctRoles,
    TargetFile,
    Targets,
)

from skerry.kit.errors import SkerryError
from skerry.trust.acceptance import LEAST_VALID, MAX_STEP, MOST_VALID
from skerry.trust.publishers import MAX_BITS, sign_anew
from skerry.trust.repository import next_of, read_as, sign, target_path, with_publisher
from tests.unit.trust_world import KEYS, NOW, FollowingHost, World, target_for, verifiers

pytestmark = [pytest.mark.trust, pytest.mark.rule("TRUST-9")]

ROLE = "publisher-acme"


def make_world(*, bits: int = 0) -> World:
    world = World()
    world.add_publisher("acme")
    if bits:
        world.fill("acme", [f"app@1.{number}.0" for number in range(40)], bits=bits)
    else:
        world.push("acme", "app@1.0.0")
        world.push("acme", "app@1.1.0")
        world.revoke("acme", "app@1.1.0")
    return world


def refusal(world: World, given: Mapping[str, bytes]) -> str:
    """Return the code of the hub's refusal, empty when it takes it; a refused world stays as it was."""
    before = dict(world.roles)
    try:
        world.offer(given)
    except SkerryError as refused:
        assert world.roles == before
        return refused.code
    return ""


def changed_role(world: World, change: Callable[[Targets], object], role: str = ROLE) -> dict[str, bytes]:
    """Return a role of the publisher's, changed and rightly signed, one version on."""
    signed: Targets = next_of(world.roles[role], Targets, NOW + timedelta(days=300))
    change(signed)
    return world.sign_roles("acme", {role: Metadata(signed)})


def changed_targets(world: World, change: Callable[[Targets], object]) -> dict[str, bytes]:
    signed: Targets = next_of(world.roles["targets"], Targets, NOW + timedelta(days=300))
    change(signed)
    return world.sign_targets(Metadata(signed))


def changed_root(world: World, change: Callable[[Any], object], keys: Any = None) -> dict[str, bytes]:
    metadata = world.next_root(world.versions["root"] + 1)
    change(metadata.signed)
    return {"root": sign(metadata, world.signers(world.root_keys if keys is None else keys))}


def setting(**fields: Any) -> Callable[[Any], None]:
    def change(signed: Any) -> None:
        for name, value in fields.items():
            setattr(signed, name, value)

    return change


def test_what_a_host_would_take_is_taken_and_says_of_whom_it_is() -> None:
    world = make_world()
    accepted = world.offer(world.signed_release("acme", "app@2.0.0"))
    assert accepted.publishers == {"acme"}
    assert {role: version for role, (version, _) in accepted.roles.items()} == {ROLE: 4}
    assert FollowingHost(world).find("acme", "app@2.0.0") is not None


# --- releases ------------------------------


def path(release: str) -> str:
    return target_path("acme", release)


def listed(release: str, *, at: str | None = None, **changes: Any) -> Callable[[Targets], None]:
    """List one more release, with some of its custom metadata changed."""

    def change(signed: Targets) -> None:
        target: TargetFile = target_for("acme", release)
        target.unrecognized_fields["custom"] |= changes
        signed.targets[at or path(release)] = target

    return change


def swapped(signed: Targets) -> None:
    signed.targets[path("app@1.0.0")] = target_for("acme", "app@1.0.0", b"another")


def longer(signed: Targets) -> None:
    signed.targets[path("app@1.0.0")].length += 1


def resummed(signed: Targets) -> None:
    signed.targets[path("app@1.0.0")].unrecognized_fields["custom"]["version"] = "9.9.9"


def hashed(signed: Targets) -> None:
    listed("app@2.0.0")(signed)
    signed.targets[path("app@2.0.0")].hashes["md5"] = "0" * 32


WRONG_RELEASES: dict[str, tuple[Callable[[Targets], object], str]] = {
    "other bytes": (swapped, "metadata.changed"),
    "another length": (longer, "metadata.changed"),
    "another summary": (resummed, "metadata.bad_target"),
    "dropped": (lambda signed: signed.targets.pop(path("app@1.0.0")), "metadata.dropped"),
    "a revoked one dropped": (lambda signed: signed.targets.pop(path("app@1.1.0")), "metadata.dropped"),
    "revoked no more": (listed("app@1.1.0"), "metadata.unrevoked"),
    "another publisher's path": (
        listed("app@2.0.0", at="releases/other/app@2.0.0.json"),
        "metadata.bad_path",
    ),
    "outside all releases": (listed("app@2.0.0", at="app@2.0.0.json"), "metadata.bad_path"),
    "below a folder": (listed("app@2.0.0", at="releases/acme/x/app@2.0.0.json"), "metadata.bad_path"),
    "upwards": (listed("app@2.0.0", at="releases/acme/../app@2.0.0.json"), "metadata.bad_path"),
    "no version": (listed("app@2.0.0", at="releases/acme/app.json"), "metadata.bad_path"),
    "no document": (listed("app@2.0.0", at="releases/acme/app@2.0.0"), "metadata.bad_path"),
    "another name inside": (listed("app@2.0.0", application="other"), "metadata.bad_target"),
    "another version inside": (listed("app@2.0.0", version="3.0.0"), "metadata.bad_target"),
    "an unknown field inside": (listed("app@2.0.0", later=1), "metadata.bad_custom"),
    "a second hash": (hashed, "metadata.bad_target"),
}


@pytest.mark.rule("TRUST-8")
@pytest.mark.parametrize("case", WRONG_RELEASES)
def test_a_release_that_changes_vanishes_or_is_none_is_refused(case: str) -> None:
    change, code = WRONG_RELEASES[case]
    world = make_world()
    assert refusal(world, changed_role(world, change)) == code


def misplaced(world: World, release: str, **how: Any) -> dict[str, bytes]:
    """List a release in the first bin that is not its own."""
    shelf = world.shelf("acme")
    right = shelf.role_for(path(release))
    wrong = next(name for name in ("bin-acme-0", "bin-acme-1") if name != right)
    moved = changed_role(world, listed(release, **how), wrong)
    if shelf.find(release) is not None:
        moved |= changed_role(world, lambda signed: signed.targets.pop(path(release)), right)
    return moved


@pytest.mark.rule("TRUST-8")
@pytest.mark.parametrize("release", ("app@1.3.0", "app@2.0.0"))
def test_a_release_in_the_wrong_bin_would_be_lost_and_is_refused(release: str) -> None:
    world = make_world(bits=1)
    assert refusal(world, misplaced(world, release)) == "metadata.misplaced"


@pytest.mark.rule("TRUST-8")
def test_a_release_in_the_role_itself_would_hide_that_in_its_bin_and_is_refused() -> None:
    world = make_world(bits=1)

    def hide(signed: Targets) -> None:
        signed.targets[path("app@1.3.0")] = target_for("acme", "app@1.3.0", b"another")

    assert refusal(world, changed_role(world, hide)) == "metadata.misplaced"


@pytest.mark.rule("TRUST-8")
def test_other_bins_that_lose_a_release_are_refused() -> None:
    world = make_world(bits=1)
    holders = world.holder("acme")
    ids = [key.keyid for key in holders.keys]
    bins = SuccinctRoles(ids, 1, 2, "bin-acme")
    everything = world.shelf("acme").targets()
    everything.pop(path("app@1.3.0"))
    top: Targets = next_of(world.roles[ROLE], Targets, NOW + timedelta(days=300))
    top.delegations = Delegations({key.keyid: key for key in holders.keys}, succinct_roles=bins)
    parts = {name: Targets(version=2, expires=NOW + timedelta(days=300)) for name in bins.get_roles()}
    for place, target in everything.items():
        parts[bins.get_role_for_target(place)].targets[place] = target
    unsigned: dict[str, Metadata[Any]] = {ROLE: Metadata(top)}
    unsigned |= {name: Metadata(part) for name, part in parts.items()}
    assert refusal(world, world.sign_roles("acme", unsigned)) == "metadata.dropped"
    # With the old bins in the place of some of the new ones, whose names are the same, it is no better.
    kept = {role: one for role, one in unsigned.items() if role not in ("bin-acme-0", "bin-acme-1")}
    assert refusal(world, world.sign_roles("acme", kept)) in ("metadata.misplaced", "metadata.dropped")


# --- roles of a publisher ------------------------------


def bins_of(bits: int, prefix: str) -> Callable[[Targets], None]:
    def change(signed: Targets) -> None:
        succinct = SuccinctRoles([KEYS[6].key_id], 1, bits, prefix)
        signed.delegations = Delegations({KEYS[6].key_id: KEYS[6].verifier}, succinct_roles=succinct)

    return change


def delegating(signed: Targets) -> None:
    friend = DelegatedRole("friend", [KEYS[7].key_id], 1, terminating=False, paths=["*"])
    signed.delegations = Delegations({KEYS[7].key_id: KEYS[7].verifier}, {"friend": friend})


WRONG_ROLES: dict[str, tuple[Callable[[Targets], object], str]] = {
    "delegates to a friend": (delegating, "metadata.bad_role"),
    "another publisher's bins": (bins_of(1, "bin-other"), "metadata.bad_role"),
    "bins of another name": (bins_of(1, "targets"), "metadata.bad_role"),
    "too many bins": (bins_of(MAX_BITS + 1, "bin-acme"), "metadata.bad_role"),
    "far too many bins": (bins_of(32, "bin-acme"), "metadata.bad_role"),
    "bins that were not sent": (bins_of(1, "bin-acme"), "metadata.incomplete"),
    "the same version": (setting(version=3), "metadata.not_next"),
    "an older version": (setting(version=1), "metadata.not_next"),
    "a version far ahead": (setting(version=3 + MAX_STEP + 1), "metadata.gap"),
    "a version beyond all": (setting(version=10**400), "metadata.gap"),
    "expired": (setting(expires=NOW - timedelta(days=1)), "metadata.bad_expiry"),
    "expires at once": (setting(expires=NOW + LEAST_VALID), "metadata.bad_expiry"),
    "expires never": (setting(expires=NOW + MOST_VALID), "metadata.bad_expiry"),
}


@pytest.mark.parametrize("case", WRONG_ROLES)
def test_a_publishers_role_that_no_host_could_follow_is_refused(case: str) -> None:
    change, code = WRONG_ROLES[case]
    world = make_world()
    assert refusal(world, changed_role(world, change)) == code


def test_a_jump_of_versions_within_reason_is_taken() -> None:
    world = make_world()
    assert refusal(world, changed_role(world, setting(version=3 + MAX_STEP))) == ""


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("signers", ([], [KEYS[7]], [KEYS[4]], [KEYS[0], KEYS[2]]))
def test_a_role_that_its_publisher_did_not_sign_is_refused(signers: list[Any]) -> None:
    world = make_world()
    world.holders["acme"] = signers
    assert refusal(world, changed_role(world, listed("app@2.0.0"))) == "metadata.bad_signature"


@pytest.mark.rule("TRUST-4")
def test_too_few_signatures_of_a_publisher_are_refused() -> None:
    world = make_world()
    world.add_publisher("acme", KEYS[7:9])
    world.holders["acme"] = KEYS[7:8]
    assert refusal(world, changed_role(world, listed("app@2.0.0"))) == "metadata.bad_signature"


def test_a_publisher_that_nobody_knows_is_missing_and_a_revoked_one_too() -> None:
    world = make_world()
    given = {"publisher-other": world.roles[ROLE]}
    assert refusal(world, given) == "publisher.missing"
    following = changed_role(world, listed("app@2.0.0"))
    world.drop_publisher("acme")
    assert refusal(world, following) == "publisher.missing"


def test_bins_without_their_role_and_bins_that_are_nobodys_are_refused() -> None:
    world = World()
    world.add_publisher("acme")
    part = world.sign_roles("acme", {"bin-acme-0": Metadata(Targets(expires=NOW + timedelta(days=9)))})
    assert refusal(world, part) == "metadata.incomplete"
    world.push("acme", "app@1.0.0")
    assert refusal(world, part) == "metadata.not_yours"


@pytest.mark.parametrize("role", ("snapshot", "timestamp", "other", "publisher-", "bin-0", "1.root", ""))
def test_roles_that_nobody_sends_to_a_hub_are_refused(role: str) -> None:
    world = make_world()
    assert refusal(world, {role: world.roles[ROLE]}) == "metadata.not_yours"


@pytest.mark.parametrize("role", ("root", "targets", ROLE))
@pytest.mark.parametrize("content", (b"", b"{}", b"\xff", b"[" * 9000, b'{"signed":1,"signatures":[]}'))
def test_what_is_no_metadata_is_refused(role: str, content: bytes) -> None:
    assert refusal(make_world(), {role: content}) == "metadata.malformed"


@pytest.mark.parametrize("version", (4.5, "4", True, None))
def test_versions_that_are_no_whole_numbers_are_refused(version: object) -> None:
    world = make_world()
    content = json.loads(changed_role(world, listed("app@2.0.0"))[ROLE])
    content["signed"]["version"] = version
    code = refusal(world, {ROLE: json.dumps(content).encode()})
    assert code in ("metadata.malformed", "metadata.bad_signature", "metadata.not_next")


def test_of_several_roles_all_are_taken_or_none() -> None:
    world = make_world()
    world.add_publisher("other", [KEYS[7]])
    right = world.signed_release("acme", "app@2.0.0")
    assert refusal(world, right | {"publisher-other": right[ROLE]}) == "metadata.bad_signature"
    assert refusal(world, right) == ""


# --- the top level ------------------------------


def publisher(name: str, role: str, *paths: str, **how: Any) -> Callable[[Targets], None]:
    def change(signed: Targets) -> None:
        key = KEYS[8]
        made = DelegatedRole(
            role, [key.key_id], 1, terminating=how.get("terminating", True), paths=list(paths)
        )
        assert signed.delegations is not None and signed.delegations.roles is not None
        signed.delegations.keys[key.key_id] = key.verifier
        signed.delegations.roles[name] = made

    return change


def lists(signed: Targets) -> None:
    signed.targets["releases/acme/app@9.0.0.json"] = target_for("acme", "app@9.0.0")


WRONG_TARGETS: dict[str, tuple[Callable[[Targets], object], str]] = {
    "lists a release itself": (lists, "metadata.bad_targets"),
    "delegates to bins": (bins_of(1, "bin-x"), "metadata.bad_targets"),
    "all paths": (publisher("publisher-x", "publisher-x", "*"), "metadata.bad_targets"),
    "another's paths": (publisher("publisher-x", "publisher-x", "releases/acme/*"), "metadata.bad_targets"),
    "its paths and others": (
        publisher("publisher-x", "publisher-x", "releases/x/*", "releases/acme/*"),
        "metadata.bad_targets",
    ),
    "not terminating": (
        publisher("publisher-x", "publisher-x", "releases/x/*", terminating=False),
        "metadata.bad_targets",
    ),
    "no publisher's name": (publisher("team", "team", "releases/team/*"), "metadata.bad_targets"),
    "a name with a star": (publisher("publisher-*", "publisher-*", "releases/*/*"), "metadata.bad_targets"),
    "a bin's name": (publisher("bin-x-0", "bin-x-0", "releases/x/*"), "metadata.bad_targets"),
    "the same version": (setting(version=2), "metadata.not_next"),
    "a version beyond all": (setting(version=10**30), "metadata.gap"),
    "expired": (setting(expires=NOW), "metadata.bad_expiry"),
}


@pytest.mark.parametrize("case", WRONG_TARGETS)
def test_targets_that_would_let_publishers_out_of_their_paths_are_refused(case: str) -> None:
    change, code = WRONG_TARGETS[case]
    world = make_world()
    assert refusal(world, changed_targets(world, change)) == code


@pytest.mark.rule("TRUST-4")
def test_targets_that_others_signed_are_refused() -> None:
    world = make_world()
    world.targets_keys = [KEYS[6], world.online]
    assert refusal(world, changed_targets(world, setting())) == "metadata.bad_signature"


def test_new_keys_of_a_publisher_come_with_everything_signed_anew() -> None:
    world = make_world(bits=1)
    targets = with_publisher(world.roles["targets"], "acme", verifiers(KEYS[8:9]), threshold=1, now=NOW)
    alone = world.sign_targets(targets)
    assert refusal(world, alone) == "metadata.bad_signature"
    world.holders["acme"] = [KEYS[8]]
    anew = sign_anew(world.shelf("acme"), holders=world.holder("acme"), now=NOW)
    signed = world.sign_roles("acme", anew)
    without_a_bin = {role: content for role, content in signed.items() if role != "bin-acme-1"}
    assert refusal(world, alone | without_a_bin) == "metadata.bad_signature"
    assert refusal(world, alone | signed) == ""


# --- the root ------------------------------


def foreign(signed: Any) -> None:
    signed.unrecognized_fields["x-skerry"]["hub"] = "hub-2"


def without_desired(signed: Any) -> None:
    signed.unrecognized_fields["x-skerry"]["desired"] = [KEYS[0].key_id]


def unknown_desired(signed: Any) -> None:
    signed.unrecognized_fields["x-skerry"]["desired"] = ["unknown"]


def without_field(signed: Any) -> None:
    del signed.unrecognized_fields["x-skerry"]


def online_of(role: str) -> Callable[[Any], None]:
    def change(signed: Any) -> None:
        signed.roles[role].keyids = [KEYS[9].key_id]
        signed.keys[KEYS[9].key_id] = KEYS[9].verifier

    return change


def also_online(role: str) -> Callable[[Any], None]:
    def change(signed: Any) -> None:
        signed.roles[role].keyids.append(KEYS[9].key_id)
        signed.keys[KEYS[9].key_id] = KEYS[9].verifier

    return change


def threshold(role: str, count: int) -> Callable[[Any], None]:
    def change(signed: Any) -> None:
        signed.roles[role].threshold = count

    return change


WRONG_ROOTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a gap": (setting(version=3), "metadata.gap"),
    "the same version": (setting(version=1), "metadata.not_next"),
    "expired": (setting(expires=NOW), "metadata.bad_expiry"),
    "another hub": (foreign, "metadata.foreign_root"),
    "no hub": (without_field, "metadata.bad_root"),
    "others sign desired state": (without_desired, "metadata.foreign_root"),
    "nobody signs desired state": (unknown_desired, "metadata.bad_root"),
    "others sign the timestamp": (online_of("timestamp"), "metadata.foreign_root"),
    "others sign the snapshot": (online_of("snapshot"), "metadata.bad_root"),
    "others sign the timestamp as well": (also_online("timestamp"), "metadata.bad_root"),
    "others sign the snapshot as well": (also_online("snapshot"), "metadata.bad_root"),
    "a timestamp that nobody can sign": (threshold("timestamp", 2), "metadata.bad_root"),
    "a snapshot that nobody can sign": (threshold("snapshot", 2), "metadata.bad_root"),
    "a root that nobody can sign": (threshold("root", 3), "metadata.bad_signature"),
    "names without versions": (setting(consistent_snapshot=False), "metadata.bad_root"),
}


@pytest.mark.parametrize("case", WRONG_ROOTS)
def test_a_root_with_which_the_hub_could_not_work_is_refused(case: str) -> None:
    change, code = WRONG_ROOTS[case]
    world = make_world()
    assert refusal(world, changed_root(world, change)) == code


@pytest.mark.rule("TRUST-4")
def test_a_root_is_signed_by_the_keys_before_and_by_its_own() -> None:
    world = make_world()
    old = world.root_keys
    world.root_keys = KEYS[9:11]
    assert refusal(world, changed_root(world, setting(), keys=KEYS[9:11])) == "metadata.bad_signature"
    assert refusal(world, changed_root(world, setting(), keys=old)) == "metadata.bad_signature"
    host = FollowingHost(world)
    assert refusal(world, changed_root(world, setting(), keys=[*old, *KEYS[9:11]])) == ""
    assert host.refresh().root.version == 2


def test_a_root_with_other_targets_keys_comes_with_targets_that_these_signed() -> None:
    world = make_world()
    world.targets_keys = KEYS[9:10]
    root = changed_root(world, setting())
    assert refusal(world, root) == "metadata.bad_signature"
    again = changed_targets(world, setting())
    assert refusal(world, root | again) == ""
    assert FollowingHost(world).find("acme", "app@1.0.0") is not None


# --- everything at random ------------------------------


@pytest.mark.rule("TRUST-7")
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.integers(0, 1 << 16), flip=st.integers(1, 255))
def test_a_publication_of_which_any_byte_was_altered_is_refused_or_is_what_was_signed(
    place: int, flip: int
) -> None:
    world = make_world()
    given = world.signed_release("acme", "app@2.0.0")
    content = bytearray(given[ROLE])
    content[place % len(content)] ^= flip
    if refusal(world, {ROLE: bytes(content)}) == "":
        was, now = (read_as(one, Targets).signed for one in (given[ROLE], world.roles[ROLE]))
        assert was.targets == now.targets
        found = FollowingHost(world).find("acme", "app@2.0.0")
        assert found is not None
        assert found.sha256 == hashlib.sha256(b"the release app@2.0.0 of acme").hexdigest()
