"""Refreshing the top level: what is taken, and what an upstream that lies, repeats or holds back cannot do."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.conformance.upstream import LATER, NOW, Client, Upstream, serving

pytestmark = pytest.mark.trust

PAST = NOW - timedelta(days=1)


def test_a_refresh_asks_for_each_file_once_and_keeps_it_under_its_plain_name(client: Client) -> None:
    assert client.refresh() == ""
    assert client.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert sorted(file.name for file in client.folder.glob("*.json")) == [
        "root.json", "snapshot.json", "targets.json", "timestamp.json",
    ]  # fmt: skip
    for role in ("timestamp", "snapshot", "targets"):
        assert (client.folder / f"{role}.json").read_bytes() == client.upstream.files[f"{role}.json"]


def test_when_nothing_has_changed_only_the_next_root_and_the_timestamp_are_asked_for(client: Client) -> None:
    client.refresh()
    assert client.refresh() == ""
    assert client.asked == ["2.root.json", "timestamp.json"]


def test_without_consistent_snapshots_names_have_no_versions(tmp_path: Any) -> None:
    upstream = Upstream(consistent=False)
    upstream.add_target("targets", "a/file", b"content")
    upstream.publish_all()
    with serving(upstream) as url:
        client = Client(tmp_path, upstream, url)
        client.init()
        assert client.download("a/file") == ""
        assert client.asked == ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"]
        assert client.upstream.asked[-1] == "a/file"


def test_a_damaged_first_root_ends_it_before_anything_is_asked_for(client: Client) -> None:
    first = json.loads(client.upstream.files["1.root.json"])
    unsigned = json.loads(client.upstream.files["1.root.json"])
    del first["signed"]["version"]
    unsigned["signatures"][0]["sig"] = "00" * 64
    for root, code in ((first, "metadata.malformed"), (unsigned, "metadata.bad_signature")):
        client.init(json.dumps(root).encode())
        assert client.refresh() == code
        assert client.upstream.asked == []


def test_fields_that_nobody_knows_are_part_of_what_is_signed_and_are_kept(client: Client) -> None:
    root = client.upstream.root
    root.unrecognized_fields["x-new"] = {"deep": ["er", 1]}
    root.keys[root.roles["root"].keyids[0]].unrecognized_fields["x-key"] = "value"
    root.roles["root"].unrecognized_fields["x-role"] = True
    client.upstream.timestamp.unrecognized_fields["x-time"] = None
    client.upstream.publish("root", "timestamp")
    assert client.refresh() == ""
    assert client.versions == [2, 2, 1, 1]
    assert (client.folder / "root.json").read_bytes() == client.upstream.files["2.root.json"]
    altered = json.loads(client.upstream.files["timestamp.json"])
    altered["signed"]["x-time"] = "other"
    altered["signed"]["version"] = 2
    client.upstream.files["timestamp.json"] = json.dumps(altered).encode()
    assert client.refresh() == "metadata.bad_signature"


def test_a_timestamp_of_the_same_version_with_another_content_changes_nothing(client: Client) -> None:
    client.refresh()
    before = (client.folder / "timestamp.json").read_bytes()
    client.upstream.timestamp.snapshot_meta.version = 100
    client.upstream.publish("timestamp", bump=False)
    assert client.refresh() == ""
    assert (client.folder / "timestamp.json").read_bytes() == before


# --- rollback -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("TRUST-5")
def test_an_older_timestamp_is_refused(client: Client) -> None:
    client.upstream.publish("timestamp")
    client.refresh()
    client.upstream.rewind("timestamp")
    client.upstream.publish("timestamp")
    assert client.refresh() == "metadata.rollback"
    assert client.versions == [1, 2, 1, 1]
    assert client.asked[-1] == "timestamp.json"


@pytest.mark.rule("TRUST-5")
@pytest.mark.parametrize("hashes", (False, True))
def test_a_newer_timestamp_that_names_an_older_snapshot_is_refused(client: Client, hashes: bool) -> None:
    client.upstream.hashes = hashes
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh() == ""
    client.upstream.rewind("snapshot")
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh() == "metadata.rollback"
    assert client.versions == [1, 2, 2, 1]
    assert client.asked[-1] == "timestamp.json"


@pytest.mark.rule("TRUST-5")
@pytest.mark.parametrize("hashes", (False, True))
@pytest.mark.parametrize("role", ("targets", "team"))
def test_a_newer_snapshot_that_names_an_older_role_is_refused(
    client: Client, hashes: bool, role: str
) -> None:
    client.upstream.hashes = hashes
    client.upstream.delegate("targets", "team")
    client.upstream.publish("team", "targets")
    client.upstream.publish_all()
    assert client.refresh() == ""
    client.upstream.rewind(role)
    client.upstream.publish(role, "snapshot", "timestamp")
    assert client.refresh() == "metadata.rollback"
    assert (client.version("snapshot"), client.version("targets")) == (2, 3)


@pytest.mark.rule("TRUST-5")
def test_a_snapshot_that_lists_a_role_no_more_is_refused(client: Client) -> None:
    client.upstream.delegate("targets", "team")
    client.upstream.publish_all()
    client.refresh()
    del client.upstream.snapshot.meta["team.json"]
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh() == "metadata.malformed"
    assert client.version("snapshot") == 2


@pytest.mark.rule("TRUST-5")
def test_what_has_expired_on_disk_still_counts_against_what_is_older(client: Client) -> None:
    client.upstream.timestamp.expires = NOW + timedelta(days=7)
    client.upstream.snapshot.expires = NOW + timedelta(days=7)
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh() == ""
    client.upstream.timestamp.expires = client.upstream.snapshot.expires = LATER
    client.upstream.rewind("timestamp")
    client.upstream.publish("timestamp")
    assert client.refresh(days=18) == "metadata.rollback"
    client.upstream.rewind("timestamp", 3)
    client.upstream.rewind("snapshot")
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh(days=18) == "metadata.rollback"
    client.upstream.rewind("snapshot", 3)
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh(days=18) == ""


# --- fast forward, and recovery by other keys ------------------------------


def test_after_a_fast_forward_of_the_timestamp_its_new_key_begins_anew(client: Client) -> None:
    client.upstream.signed["timestamp"].version = 99_999
    client.upstream.publish("timestamp")
    assert client.refresh() == ""
    client.upstream.rotate("timestamp")
    client.upstream.rewind("timestamp")
    client.upstream.publish("timestamp", "root")
    assert client.refresh() == ""
    assert client.versions == [2, 1, 1, 1]


def test_after_a_fast_forward_of_the_snapshot_new_keys_of_both_begin_anew(client: Client) -> None:
    client.upstream.signed["snapshot"].version = 99_999
    client.upstream.publish("snapshot", "timestamp")
    assert client.refresh() == ""
    for role in ("snapshot", "timestamp"):
        client.upstream.rotate(role)
        client.upstream.rewind(role)
    client.upstream.publish("snapshot", "timestamp", "root")
    assert client.refresh() == ""
    assert client.versions == [2, 1, 1, 1]


def test_after_a_fast_forward_of_a_role_the_snapshots_new_key_begins_anew(client: Client) -> None:
    client.upstream.delegate("targets", "team")
    client.upstream.publish("team")
    client.upstream.signed["targets"].version = 99_999
    client.upstream.publish_all()
    assert client.refresh() == ""
    client.upstream.rotate("snapshot")
    client.upstream.rewind("targets")
    del client.upstream.snapshot.meta["team.json"]
    client.upstream.publish("targets", "snapshot", "timestamp", "root")
    assert client.refresh() == ""
    assert client.version("targets") == 1


# --- freeze, expiry ------------------------------


@pytest.mark.rule("TRUST-6")
@pytest.mark.parametrize("role", ("root", "timestamp", "snapshot", "targets"))
def test_an_expired_role_is_not_taken_and_nothing_below_it(client: Client, role: str) -> None:
    assert client.refresh() == ""
    client.upstream.signed[role].expires = PAST
    client.upstream.publish_all()
    client.upstream.publish("root")
    assert client.refresh() == "metadata.expired"
    # The newest root counts also when it has expired: its keys may be new. All else stays as it was.
    taken = {"root": 0, "timestamp": 0, "snapshot": 1, "targets": 2}[role]
    assert client.versions == [2, *([2] * taken), *([1] * (3 - taken))]


@pytest.mark.rule("TRUST-6")
def test_an_upstream_that_repeats_what_it_had_is_believed_until_that_expires(client: Client) -> None:
    client.upstream.timestamp.expires = NOW + timedelta(days=7)
    client.upstream.publish("timestamp")
    assert client.refresh() == ""
    assert client.refresh(days=6.9) == ""
    assert client.refresh(days=7) == "metadata.expired"
    client.upstream.timestamp.expires = NOW + timedelta(days=21)
    client.upstream.publish("timestamp")
    assert client.refresh(days=18) == ""


def test_a_root_in_between_may_have_expired(client: Client) -> None:
    client.upstream.root.expires = PAST
    client.upstream.publish("root")
    client.upstream.root.expires = LATER
    client.upstream.publish("root")
    assert client.refresh() == ""
    assert client.version("root") == 3


# --- mix and match ------------------------------


@pytest.mark.rule("TRUST-5")
@pytest.mark.parametrize("role", ("snapshot", "targets"))
def test_a_file_of_another_version_than_is_named_is_refused(client: Client, role: str) -> None:
    old = client.upstream.files[f"1.{role}.json"]
    client.upstream.publish_all()
    client.upstream.files[f"2.{role}.json"] = old
    assert client.refresh() == "metadata.rollback"
    assert client.version(role) is None


@pytest.mark.rule("TRUST-5")
@pytest.mark.parametrize("role", ("snapshot", "targets"))
def test_a_file_of_another_content_than_is_named_is_refused(client: Client, role: str) -> None:
    client.upstream.hashes = True
    client.upstream.signed[role].unrecognized_fields["x"] = "1"
    client.upstream.publish_all()
    client.upstream.signed[role].unrecognized_fields["x"] = "2"
    client.upstream.files[f"2.{role}.json"] = client.upstream.sign(role)
    assert client.refresh() == "metadata.mismatch"
    assert client.version(role) is None


@pytest.mark.parametrize("role", ("snapshot", "targets"))
def test_a_file_of_another_type_is_refused(client: Client, role: str) -> None:
    client.upstream.files[f"1.{role}.json"] = client.upstream.files["timestamp.json"]
    assert client.refresh() == "metadata.malformed"
    assert client.version(role) is None


@pytest.mark.parametrize("role", ("timestamp", "snapshot", "targets"))
def test_a_damaged_file_on_disk_is_fetched_anew(client: Client, role: str) -> None:
    client.refresh()
    (client.folder / f"{role}.json").write_bytes(b"{")
    assert client.refresh() == ""
    assert client.versions == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ("timestamp.json", "1.snapshot.json", "1.targets.json"))
def test_a_file_that_upstream_does_not_have_is_missing(client: Client, name: str) -> None:
    del client.upstream.files[name]
    assert client.refresh() == "metadata.missing"


def test_a_role_that_the_snapshot_does_not_list_is_not_asked_for(client: Client) -> None:
    client.upstream.delegate("targets", "team")
    client.upstream.publish("targets", "snapshot", "timestamp")
    assert client.download("x") == "metadata.incomplete"
    assert client.asked[-1] == "2.targets.json"
