"""Whose signatures count: thresholds, keys that come and go, and the chain of roots."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from skerry.trust.metadata import MAX_ROOT_ROTATIONS
from tests.conformance.upstream import Client, Upstream

pytestmark = pytest.mark.trust

KEYS = [CryptoSigner.generate_ed25519() for _ in range(10)]


def with_keys(upstream: Upstream, role: str, keys: str, threshold: int, signers: str) -> None:
    """Let a role have these keys, by their digits, and be signed with those."""
    upstream.rotate(role, 0)
    for digit in keys:
        upstream.root.add_key(KEYS[int(digit)].public_key, role)
    upstream.root.roles[role].threshold = threshold
    upstream.signers[role] = [KEYS[int(digit)] for digit in signers]


def altered(upstream: Upstream, name: str, change: Callable[[Any], object]) -> None:
    content = json.loads(upstream.files[name])
    change(content)
    upstream.files[name] = json.dumps(content).encode()


# Keys, threshold and signers of each root; the last one counts or not.
ROOTS = {
    "other key, signed by both": (["1/1/1", "2/1/21", "2/1/2"], True),
    "signatures of strangers do no harm": (["1/1/314", "2/1/3214", "2/1/324"], True),
    "any three of five": (["01234/3/024", "01234/3/041", "01234/3/134"], True),
    "one of five changes": (["01234/3/024", "01345/3/041"], True),
    "all of five change": (["01234/3/024", "56789/3/024567", "56789/3/567"], True),
    "a higher threshold": (["123/1/1", "123/2/12"], True),
    "a lower threshold": (["123/2/12", "123/1/12", "123/1/1"], True),
    "one more key and a higher threshold": (["1/1/1", "12/2/12"], True),
    "not signed by the old key": (["1/1/1", "2/1/234"], False),
    "not signed by the new key": (["1/1/1", "2/1/134"], False),
    "too few of the new": (["01234/3/024", "01345/3/024"], False),
    "too few of the old": (["01234/3/024", "01345/3/045"], False),
    "new threshold not reached": (["123/1/1", "123/2/2"], False),
    "old threshold not reached": (["123/2/12", "123/1/1"], False),
    "signed by nobody": (["1/1/1", "1/1/"], False),
}


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("case", ROOTS)
def test_a_root_counts_when_it_and_the_one_before_have_enough_signatures(client: Client, case: str) -> None:
    roots, is_right = ROOTS[case]
    upstream = client.upstream
    upstream.files = {name: file for name, file in upstream.files.items() if "root" not in name}
    upstream.rewind("root")
    for root in roots:
        keys, threshold, signers = root.split("/")
        with_keys(upstream, "root", keys, int(threshold), signers)
        upstream.publish("root")
    client.init()
    assert client.refresh() == ("" if is_right else "metadata.bad_signature")
    taken = len(roots) if is_right else len(roots) - 1
    assert (client.folder / "root.json").read_bytes() == upstream.files[f"{taken}.root.json"]


SIGNED = {
    "another key": ("2/1/2", True),
    "strangers beside it": ("1/1/314", True),
    "the first three": ("01234/3/012", True),
    "the last three": ("01234/3/432", True),
    "the old key only": ("2/1/134", False),
    "two that count and one that does not": ("01345/3/024", False),
    "one too few": ("01345/3/04", False),
    "nobody": ("1/1/", False),
    "more signatures asked for than there are keys": ("012/4/012", False),
}


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("role", ("timestamp", "snapshot", "targets"))
@pytest.mark.parametrize("case", SIGNED)
def test_a_role_counts_when_enough_of_its_keys_signed(client: Client, role: str, case: str) -> None:
    which, is_right = SIGNED[case]
    keys, threshold, signers = which.split("/")
    with_keys(client.upstream, role, keys, int(threshold), signers)
    client.upstream.publish_all()
    client.upstream.publish("root")
    assert client.refresh() == ("" if is_right else "metadata.bad_signature")
    assert client.version(role) == (2 if is_right else None)


@pytest.mark.rule("TRUST-4")
def test_software_that_a_stranger_signed_is_refused(client: Client) -> None:
    client.refresh()
    client.upstream.signers["targets"] = [CryptoSigner.generate_ed25519()]
    client.upstream.add_target("targets", "evil", b"evil")
    client.upstream.publish_all()
    assert client.download("evil") == "metadata.bad_signature"
    assert client.downloaded() == []


@pytest.mark.rule("TRUST-4")
def test_a_stranger_who_borrows_a_key_id_is_refused(client: Client) -> None:
    stranger = CryptoSigner.generate_ed25519()
    stranger.public_key.keyid = client.upstream.signers["targets"][0].public_key.keyid
    client.upstream.signers["targets"] = [stranger]
    client.upstream.publish_all()
    assert client.refresh() == "metadata.bad_signature"


def test_a_key_that_the_root_names_twice_for_a_role_is_refused(client: Client) -> None:
    upstream = client.upstream
    upstream.publish("root", "timestamp")

    def double(content: Any) -> None:
        role = content["signed"]["roles"]["timestamp"]
        role["keyids"] *= 3
        role["threshold"] = 2

    altered(upstream, "2.root.json", double)
    assert client.refresh() == "metadata.malformed"
    assert client.versions == [1, None, None, None]


@pytest.mark.parametrize("name", ("2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"))
def test_two_signatures_of_one_key_id_are_refused(client: Client, name: str) -> None:
    if name == "2.root.json":
        client.upstream.publish("root")
    altered(client.upstream, name, lambda content: content["signatures"].append(content["signatures"][0]))
    assert client.refresh() == "metadata.malformed"


@pytest.mark.rule("TRUST-4")
def test_one_signature_many_times_does_not_reach_a_threshold(client: Client) -> None:
    with_keys(client.upstream, "targets", "123", 2, "1")
    client.upstream.publish_all()
    client.upstream.publish("root")
    altered(client.upstream, "2.targets.json", lambda c: c["signatures"].extend(c["signatures"] * 3))
    assert client.refresh() in ("metadata.bad_signature", "metadata.malformed")
    assert client.version("targets") is None


@pytest.mark.parametrize("sig", ("", "00", "zz", "ab" * 64))
def test_a_signature_that_does_not_hold_beside_enough_that_do_does_no_harm(client: Client, sig: str) -> None:
    with_keys(client.upstream, "timestamp", "12", 1, "12")
    client.upstream.publish("timestamp", "root")
    altered(client.upstream, "timestamp.json", lambda content: content["signatures"][0].update(sig=sig))
    assert client.refresh() == ""


@pytest.mark.parametrize("make", (CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa))
def test_keys_of_the_other_usual_kinds_count_as_well(client: Client, make: Any) -> None:
    client.upstream.rotate("targets", 0)
    client.upstream.signers["targets"] = [make()]
    client.upstream.root.add_key(client.upstream.signers["targets"][0].public_key, "targets")
    client.upstream.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == ""
    altered(client.upstream, "2.targets.json", lambda content: content["signed"].update(x=1))
    (client.folder / "targets.json").unlink()
    assert client.refresh() == "metadata.bad_signature"


def test_a_role_whose_key_was_taken_away_is_asked_for_again(client: Client) -> None:
    client.refresh()
    client.upstream.rotate("targets")
    client.upstream.publish("root")
    assert client.refresh() == "metadata.bad_signature"
    client.upstream.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == ""


# --- chains of roots ------------------------------


@pytest.mark.rule("TRUST-4")
def test_many_roots_at_once_are_gone_through_one_by_one(client: Client) -> None:
    for _ in range(9):
        old = client.upstream.signers["root"]
        client.upstream.rotate("root")
        new = client.upstream.signers["root"]
        client.upstream.signers["root"] = [*old, *new]
        client.upstream.publish("root")
        client.upstream.signers["root"] = new
    assert client.refresh() == ""
    assert client.asked[:10] == [f"{number}.root.json" for number in range(2, 12)]
    assert client.version("root") == 10
    assert client.refresh() == ""
    assert client.asked == ["11.root.json", "timestamp.json"]


@pytest.mark.rule("TRUST-4")
def test_a_root_under_the_name_of_another_version_is_refused(client: Client) -> None:
    client.upstream.publish("root")
    client.upstream.publish("root")
    client.upstream.files["2.root.json"] = client.upstream.files["3.root.json"]
    assert client.refresh() == "metadata.rollback"
    client.upstream.files["2.root.json"] = client.upstream.files["1.root.json"]
    assert client.refresh() == "metadata.rollback"
    assert client.versions == [1, None, None, None]


@pytest.mark.rule("TRUST-4")
def test_nothing_after_a_gap_counts(client: Client) -> None:
    for _ in range(3):
        client.upstream.publish("root")
    del client.upstream.files["3.root.json"]
    assert client.refresh() == ""
    assert client.asked[:2] == ["2.root.json", "3.root.json"]
    assert client.version("root") == 2


@pytest.mark.rule("TRUST-4")
def test_roots_before_one_that_is_refused_are_kept(client: Client) -> None:
    client.upstream.publish("root")
    client.upstream.signers["root"] = [CryptoSigner.generate_ed25519()]
    client.upstream.publish("root")
    assert client.refresh() == "metadata.bad_signature"
    assert client.versions == [2, None, None, None]


def test_a_kept_root_that_was_damaged_is_fetched_anew(client: Client) -> None:
    client.upstream.publish("root")
    client.refresh()
    (client.folder / "roots" / "2.root.json").write_bytes(b"[]")
    assert client.refresh() == ""
    assert client.asked[:2] == ["2.root.json", "3.root.json"]


def test_so_many_roots_are_followed_at_a_time_and_no_more(client: Client) -> None:
    for _ in range(MAX_ROOT_ROTATIONS + 1):
        client.upstream.publish("root")
    assert client.refresh() == ""
    assert client.version("root") == MAX_ROOT_ROTATIONS + 1
