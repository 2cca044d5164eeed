"""Looking a target up: in which order roles are asked, whose word counts for a path, and what names may be called."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner

from skerry.trust.metadata import MAX_DELEGATIONS
from tests.conformance.upstream import LATER, NOW, Client, Upstream

pytestmark = pytest.mark.trust


class Graph(NamedTuple):
    """Delegations `who>whom`, with `!` for a terminating one and paths after a colon; whom a lookup asks."""

    delegations: str
    asked: str
    path: str = "nowhere"


GRAPHS = {
    "one": Graph("targets>a", "a"),
    "in their order": Graph("targets>b targets>a", "b a"),
    "depth first": Graph("targets>a targets>b a>c a>d", "a c d b"),
    "deeper first": Graph("targets>a targets>b a>c c>d", "a c d b"),
    "below the second": Graph("targets>a targets>b b>c", "a b c"),
    "terminating, and nobody after it": Graph("targets>a! targets>b", "a"),
    "terminating below, and nobody after it": Graph("targets>a targets>b a>c! a>d", "a c"),
    "those below a terminating one": Graph("targets>a targets>b a>c! c>d", "a c d"),
    "a terminating one of other paths": Graph("targets>a!:x/* targets>b", "b"),
    "not for the path": Graph("targets>a:*.py targets>b a>c", "b"),
    "not for the path, below": Graph("targets>a targets>b a>c:*.py c>d", "a b"),
    "a cycle": Graph("targets>a targets>b b>c c>d d>b", "a b c d"),
    "itself": Graph("targets>a a>a", "a"),
    "by two ways": Graph("targets>a targets>b b>c a>c", "a c b"),
    "by the way whose path fits": Graph("targets>a targets>b b>c a>c:*.py", "a b c"),
    "a star does not cross a slash": Graph("targets>a:* targets>b:*/* targets>c:x/*", "b c", "x/y"),
    "several paths": Graph("targets>a:x,y/?,nowhere", "a"),
    "case counts": Graph("targets>a:NOWHERE targets>b:n[no]where", "b"),
}


def build(upstream: Upstream, graph: str) -> None:
    for edge in graph.split():
        pair, _, paths = edge.partition(":")
        who, _, whom = pair.partition(">")
        name = whom.removesuffix("!")
        upstream.delegate(
            who, name, *(paths.split(",") if paths else ("*", "*/*")), terminating=whom.endswith("!")
        )
    upstream.publish_all()


@pytest.mark.parametrize("case", GRAPHS)
def test_roles_are_asked_in_order_depth_first_and_each_once(client: Client, case: str) -> None:
    graph = GRAPHS[case]
    build(client.upstream, graph.delegations)
    assert client.download(graph.path) == "target.unknown"
    assert client.asked[4:] == [f"1.{role}.json" for role in graph.asked.split()]


TREE = "targets>a:*.doc,*.md targets>b:releases/*/* b>c:releases/x/* b>d:releases/y/*.zip"
FOUND = {
    "plain": (b"of targets", ""),
    "README.md": (b"of a", "a"),
    "releases/x/1": (b"of c", "b c"),
    "releases/y/1.zip": (b"of d", "b d"),
    "releases/z/1.zip": (None, "b"),
    "releases/y/1.tar": (None, "b"),
    "sub/README.md": (None, ""),
}


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("path", FOUND)
def test_a_role_is_believed_only_for_the_paths_of_everybody_above_it(client: Client, path: str) -> None:
    content, asked = FOUND[path]
    build(client.upstream, TREE)
    upstream = client.upstream
    upstream.add_target("targets", "plain", b"of targets")
    upstream.add_target("a", "README.md", b"of a")
    upstream.add_target("a", "sub/README.md", b"of a")
    upstream.add_target("c", "releases/x/1", b"of c")
    for name in ("releases/y/1.zip", "releases/z/1.zip", "releases/y/1.tar"):
        upstream.add_target("d", name, b"of d")
    upstream.publish_all()
    assert client.download(path) == ("" if content else "target.unknown")
    assert client.downloaded() == ([content] if content else [])
    assert client.asked[4:] == [f"2.{role}.json" for role in asked.split()]


def test_the_first_who_lists_a_target_is_believed(client: Client) -> None:
    build(client.upstream, "targets>a targets>b")
    client.upstream.add_target("b", "file", b"of b")
    client.upstream.add_target("a", "file", b"of a")
    client.upstream.publish_all()
    assert client.download("file") == ""
    assert client.downloaded() == [b"of a"]


def test_so_many_roles_are_asked_and_no_more(client: Client) -> None:
    names = [f"r{number}" for number in range(MAX_DELEGATIONS + 4)]
    for name in names:
        client.upstream.delegate("targets", name)
    client.upstream.add_target(names[MAX_DELEGATIONS - 1], "near", b"near")
    client.upstream.add_target(names[-1], "far", b"far")
    client.upstream.publish_all()
    assert client.download("near") == ""
    assert client.download("far") == "target.unknown"
    assert client.asked == ["2.root.json", "timestamp.json"]
    assert len(list(client.folder.glob("r*.json"))) == MAX_DELEGATIONS + 1  # and root.json


@pytest.mark.rule("TRUST-4")
def test_a_role_that_two_delegate_to_is_verified_for_each_of_them(client: Client) -> None:
    build(client.upstream, "targets>a targets>b a>shared:x* b>shared:y*")
    client.upstream.add_target("shared", "y", b"content")
    strangers = client.upstream.targets("b").delegations
    assert strangers is not None and strangers.roles is not None
    stranger = CryptoSigner.generate_ed25519().public_key
    strangers.keys[stranger.keyid] = stranger
    strangers.roles["shared"].keyids = [stranger.keyid]
    client.upstream.publish_all()
    assert client.download("x") == "target.unknown"
    assert client.version("shared") == 2
    assert client.download("y") == "metadata.bad_signature"


@pytest.mark.rule("TRUST-6")
def test_a_delegated_role_that_has_expired_is_not_believed(client: Client) -> None:
    client.upstream.delegate("targets", "team", expires=NOW + timedelta(days=7))
    client.upstream.add_target("team", "one", b"one")
    client.upstream.add_target("team", "two", b"two")
    client.upstream.publish_all()
    assert client.download("one") == ""
    assert client.download("two", days=18) == "metadata.expired"
    assert client.downloaded() == [b"one"]
    client.upstream.signed["team"].expires = LATER
    client.upstream.publish("team", "snapshot", "timestamp")
    assert client.download("two", days=18) == ""


@pytest.mark.rule("TRUST-6")
def test_a_delegated_role_that_comes_expired_is_not_kept(client: Client) -> None:
    client.upstream.delegate("targets", "team", expires=NOW)
    client.upstream.publish_all()
    assert client.refresh() == ""
    assert client.download("one") == "metadata.expired"
    assert client.version("team") is None


@pytest.mark.rule("TRUST-5")
def test_a_delegated_role_of_another_version_than_is_named_is_refused(client: Client) -> None:
    client.upstream.delegate("targets", "team")
    client.upstream.publish_all()
    old = client.upstream.files["1.team.json"]
    client.upstream.publish("team", "snapshot", "timestamp")
    client.upstream.files["2.team.json"] = old
    assert client.download("x") == "metadata.rollback"


def test_a_delegated_role_is_fetched_again_only_when_it_changed(client: Client) -> None:
    build(client.upstream, "targets>a targets>b")
    client.download("x")
    client.upstream.publish("b", "snapshot", "timestamp")
    client.download("x")
    assert client.asked == ["2.root.json", "timestamp.json", "3.snapshot.json", "2.b.json"]


@pytest.mark.parametrize(
    "role", ("?", "#", "/role", "../role", "..", ".", "a b", "%2e%2e", "\u00fc", "a\\b", "-")
)
def test_any_name_of_a_role_is_quoted_on_the_wire_and_on_disk(client: Client, role: str) -> None:
    client.upstream.delegate("targets", role)
    client.upstream.publish_all()
    assert client.download("nowhere") == "target.unknown"
    assert client.asked[-1] == f"1.{quote(role, '')}.json"
    assert client.version(role) == 1
    inside = {file.parent for file in client.folder.rglob("*.json")}
    assert inside == {client.folder}
    assert {file.name for file in client.folder.parent.iterdir()} == {"metadata", "trusted_root.json"}


@pytest.mark.rule("TRUST-5")
@pytest.mark.parametrize("role", ("2.root", "17.root"))
def test_no_role_takes_the_place_of_a_kept_root(client: Client, role: str) -> None:
    client.upstream.publish("root")
    root = client.upstream.files["2.root.json"]
    client.upstream.delegate("targets", role)
    client.upstream.publish_all()
    client.upstream.files["2.root.json"] = root
    client.upstream.files.pop("17.root.json", None)
    assert client.refresh() == ""
    assert client.download("nowhere") == "metadata.malformed"
    assert (client.folder / "roots" / "2.root.json").read_bytes() == root


@pytest.mark.parametrize("role", ("root", "timestamp", "snapshot", "targets", ""))
def test_no_delegated_role_has_a_name_of_the_top_level(client: Client, role: str) -> None:
    client.upstream.delegate("targets", "teams")
    client.upstream.publish("targets", "snapshot", "timestamp")
    content = client.upstream.files["2.targets.json"]
    assert b'"name":"teams"' in content
    client.upstream.files["2.targets.json"] = content.replace(b'"teams"', b'"%s"' % role.encode())
    assert client.refresh() == "metadata.malformed"


# --- bins by hash ------------------------------


@pytest.mark.parametrize("bits", (1, 4, 5, 8))
def test_of_many_bins_only_the_one_of_the_path_is_asked_for(client: Client, bits: int) -> None:
    bins = client.upstream.delegate_to_bins("targets", "bin", bits)
    paths = [f"path/{number}" for number in range(6)]
    for path in paths:
        client.upstream.add_target(bins.get_role_for_target(path), path, path.encode())
    client.upstream.publish_all()
    for path in paths:
        assert client.download(path) == ""
    assert client.downloaded() == sorted(path.encode() for path in paths)
    client.download("another")
    assert len(client.asked) in (2, 3)
    kept = {file.name for file in client.folder.glob("bin-*.json")}
    assert kept == {f"{bins.get_role_for_target(path)}.json" for path in (*paths, "another")}


@pytest.mark.rule("TRUST-4")
def test_a_bin_is_not_believed_for_a_path_of_another_bin(client: Client) -> None:
    bins = client.upstream.delegate_to_bins("targets", "bin", 4)
    right = bins.get_role_for_target("path")
    wrong = next(name for name in bins.get_roles() if name != right)
    client.upstream.add_target(wrong, "path", b"content")
    client.upstream.publish_all()
    assert client.download("path") == "target.unknown"
    assert client.asked[-1] == f"1.{right}.json"


@pytest.mark.rule("TRUST-4")
def test_a_bin_that_a_stranger_signed_is_refused(client: Client) -> None:
    bins = client.upstream.delegate_to_bins("targets", "bin", 2)
    client.upstream.signers[bins.get_role_for_target("path")] = [CryptoSigner.generate_ed25519()]
    client.upstream.publish_all()
    assert client.download("path") == "metadata.bad_signature"
