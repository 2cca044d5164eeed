"""How root, targets, snapshot and timestamp are made, changed and signed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from skerry.kit.errors import Conflict, Missing, Rejected, Untrusted
from skerry.trust.metadata import hub_field
from skerry.trust.repository import (
    BIN_PREFIX,
    ONLINE_VALID,
    ROOT_VALID,
    TARGETS_VALID,
    RootKeys,
    bin_prefix,
    check_threshold,
    first_targets,
    keys_of,
    make_root,
    make_snapshot,
    make_timestamp,
    next_of,
    publisher_of,
    publisher_role,
    publishers_of,
    read_as,
    require_newer,
    revoked_publishers,
    sign,
    signed_by,
    snapshot_versions,
    target_path,
    to_bytes,
    with_publisher,
    without_publisher,
)
from tests.unit.trust_world import KEYS, NOW, REVOKED, verifiers

pytestmark = pytest.mark.trust

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def root_keys(**changes: Any) -> RootKeys:
    held: dict[str, Any] = {
        "root": verifiers(KEYS[:3]),
        "targets": verifiers(KEYS[3:5]),
        "online": KEYS[5].verifier,
        "desired": verifiers(KEYS[6:8]),
        "root_threshold": 2,
    }
    return RootKeys(**(held | changes))


def targets_bytes() -> bytes:
    return sign(first_targets(NOW), [KEYS[3].signer])


@given(publisher=NAMES, bits=st.integers(1, 12), number=st.integers(0, 1 << 12))
def test_whose_a_role_or_a_bin_is_follows_from_its_name(publisher: str, bits: int, number: int) -> None:
    assert publisher_of(publisher_role(publisher)) == publisher
    digits = (bits + 3) // 4
    assert publisher_of(f"{bin_prefix(publisher)}-{number % (1 << bits):0{digits}x}") == publisher
    assert bin_prefix(publisher).startswith(BIN_PREFIX)


@given(one=NAMES, other=NAMES)
def test_names_of_two_publishers_roles_and_bins_are_never_the_same(one: str, other: str) -> None:
    def roles(publisher: str) -> set[str]:
        return {publisher_role(publisher)} | {
            f"{bin_prefix(publisher)}-{number:0{digits}x}" for digits in (1, 2, 3) for number in range(16)
        }

    if one != other:
        assert roles(one).isdisjoint(roles(other))


@pytest.mark.parametrize(
    "role", ("root", "targets", "snapshot", "timestamp", "", "publisher-", "bin-", "bin-0")
)
def test_what_is_nobodys_role_has_no_publisher(role: str) -> None:
    assert publisher_of(role) == ""


def test_a_release_has_one_path() -> None:
    assert target_path("acme", "app@1.0.0") == "releases/acme/app@1.0.0.json"


def test_a_root_says_whose_keys_it_names_and_reads_back() -> None:
    content = sign(make_root("hub-1", root_keys(), version=4, now=NOW), [KEYS[0].signer, KEYS[1].signer])
    root: Root = read_as(content, Root).signed
    assert (root.version, root.expires, root.consistent_snapshot) == (4, NOW + ROOT_VALID, True)
    assert hub_field(root).hub == "hub-1"
    held = keys_of(root)
    assert [key.keyid for key in held.root] == [key.key_id for key in KEYS[:3]]
    assert [key.keyid for key in held.desired] == [key.key_id for key in KEYS[6:8]]
    assert (held.online.keyid, held.root_threshold, held.targets_threshold) == (KEYS[5].key_id, 2, 1)
    assert root.roles["snapshot"].keyids == root.roles["timestamp"].keyids == [KEYS[5].key_id]
    root.verify_delegate("root", read_as(content, Root).signed_bytes, read_as(content, Root).signatures)


@pytest.mark.parametrize(
    "changes",
    (
        {"root_threshold": 0},
        {"root_threshold": 4},
        {"targets_threshold": 3},
        {"targets": []},
        {"root": verifiers([KEYS[0], KEYS[0]])},
    ),
)
def test_a_root_that_nobody_could_sign_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        make_root("hub-1", root_keys(**changes), version=1, now=NOW)
    assert refused.value.code == "root.threshold"


def test_thresholds_from_one_to_the_number_of_keys_fit() -> None:
    check_threshold("x", 3, 1)
    check_threshold("x", 3, 3)


def test_a_publisher_is_added_with_its_own_paths_alone_and_its_keys_replaced() -> None:
    first = with_publisher(targets_bytes(), "acme", verifiers(KEYS[8:10]), threshold=2, now=NOW)
    role = publishers_of(first.signed)["acme"]
    assert (first.signed.version, first.signed.expires) == (2, NOW + TARGETS_VALID)
    assert (role.paths, role.terminating, role.threshold) == (["releases/acme/*"], True, 2)
    second = with_publisher(to_bytes(first), "acme", verifiers(KEYS[10:11]), threshold=1, now=NOW)
    assert publishers_of(second.signed)["acme"].keyids == [KEYS[10].key_id]
    assert second.signed.delegations is not None
    assert set(second.signed.delegations.keys) == {KEYS[10].key_id}
    assert first.signatures == {}


def test_a_key_that_two_publishers_share_stays_when_one_goes() -> None:
    content = targets_bytes()
    for publisher in ("acme", "other"):
        content = to_bytes(with_publisher(content, publisher, verifiers(KEYS[8:9]), threshold=1, now=NOW))
    gone = without_publisher(content, "acme", REVOKED, NOW)
    assert list(publishers_of(gone.signed)) == ["other"]
    assert gone.signed.delegations is not None
    assert set(gone.signed.delegations.keys) == {KEYS[8].key_id}
    assert revoked_publishers(gone.signed) == {"acme": REVOKED}
    read_again = read_as(to_bytes(gone), Targets).signed
    assert revoked_publishers(read_again) == {"acme": REVOKED}
    back = with_publisher(to_bytes(gone), "acme", verifiers(KEYS[9:10]), threshold=1, now=NOW)
    assert revoked_publishers(back.signed) == {}


def test_a_publisher_that_is_not_there_cannot_go_and_a_threshold_must_fit() -> None:
    with pytest.raises(Missing) as missing:
        without_publisher(targets_bytes(), "acme", REVOKED, NOW)
    assert missing.value.code == "publisher.missing"
    for threshold in (0, 2):
        with pytest.raises(Rejected) as refused:
            with_publisher(targets_bytes(), "acme", verifiers(KEYS[8:9]), threshold=threshold, now=NOW)
        assert refused.value.code == "root.threshold"


def test_what_is_strange_about_revoked_publishers_revokes_nobody() -> None:
    targets = Targets(unrecognized_fields={"x-skerry": {"revoked": {"acme": {"why": 1}}}})
    assert revoked_publishers(targets) == {}


def test_fields_that_nobody_knows_stay_when_metadata_is_changed() -> None:
    content = json.loads(targets_bytes())
    content["signed"]["x-later"] = {"a": [1, None]}
    changed = with_publisher(json.dumps(content).encode(), "acme", verifiers(KEYS[8:9]), threshold=1, now=NOW)
    assert json.loads(to_bytes(changed))["signed"]["x-later"] == {"a": [1, None]}


@given(versions=st.dictionaries(NAMES, st.integers(1, 10**9), max_size=6))
def test_a_snapshot_lists_the_versions_it_was_made_of_and_no_hashes(versions: dict[str, int]) -> None:
    content = sign(make_snapshot(versions, version=7, now=NOW), [KEYS[5].signer])
    snapshot: Snapshot = read_as(content, Snapshot).signed
    assert snapshot_versions(snapshot) == versions
    assert (snapshot.version, snapshot.expires) == (7, NOW + ONLINE_VALID)
    assert all(meta.hashes is None and meta.length is None for meta in snapshot.meta.values())


def test_a_timestamp_names_the_version_of_the_snapshot() -> None:
    timestamp: Timestamp = read_as(to_bytes(make_timestamp(9, version=11, now=NOW)), Timestamp).signed
    assert (timestamp.version, timestamp.snapshot_meta.version) == (11, 9)


def test_signatures_are_added_to_those_that_are_there_and_metadata_is_compact() -> None:
    once = sign(make_root("hub-1", root_keys(), version=1, now=NOW), [KEYS[0].signer])
    twice = sign(read_as(once, Root), [KEYS[1].signer])
    assert signed_by(read_as(twice, Root), verifiers(KEYS[:4])) == {KEYS[0].key_id, KEYS[1].key_id}
    assert b"\n" not in twice and b": " not in twice


def test_a_signature_under_somebody_elses_key_id_is_not_theirs() -> None:
    metadata = read_as(sign(first_targets(NOW), [KEYS[3].signer]), Targets)
    (signature,) = metadata.signatures.values()
    metadata.signatures = {KEYS[4].key_id: signature}
    assert signed_by(metadata, verifiers(KEYS)) == set()


@pytest.mark.parametrize(
    "content", (b"", b"{}", b"[1]", b"\xff", b'{"signed":{"_type":"root"},"signatures":[]}')
)
def test_what_is_no_metadata_is_untrusted(content: bytes) -> None:
    with pytest.raises(Untrusted) as refused:
        read_as(content, Targets)
    assert refused.value.code == "metadata.malformed"


def test_metadata_of_another_type_is_untrusted_and_says_so() -> None:
    with pytest.raises(Untrusted, match="targets metadata, not root"):
        read_as(targets_bytes(), Root)


def test_what_follows_is_one_version_on_and_not_signed() -> None:
    late = NOW + timedelta(days=3, microseconds=5)
    signed = next_of(targets_bytes(), Targets, late)
    assert (signed.version, signed.expires) == (2, NOW + timedelta(days=3))
    assert Metadata(signed).signatures == {}


@given(held=st.integers(0, 5), offered=st.integers(0, 6))
def test_only_what_is_newer_follows(held: int, offered: int) -> None:
    if offered > held:
        require_newer("targets", held=held, given=offered)
    else:
        with pytest.raises(Conflict) as refused:
            require_newer("targets", held=held, given=offered)
        assert refused.value.code == "metadata.not_next"
        assert refused.value.facts == {"held": held}
