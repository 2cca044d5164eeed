"""`skerry publisher`, `skerry release` and `skerry root` as people type them, and root ceremonies with files alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.main import run
from skerry.client.profile import Context, load_profile, save_profile
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey
from skerry.trust.repository import RootKeys, make_root, sign
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble
from tests.unit.signing_hub import CLOCK

pytestmark = pytest.mark.trust

DOCUMENT = """\
kind: Application
metadata: {{name: reader}}
spec:
  version: {version}
  components:
    - {{name: c, command: [x], bundle: {{files: [{{path: app, source: app}}]}}}}
"""


class Shell:
    """A command line on a machine of its own."""

    def __init__(self, folder: Path, hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.hub, self._capsys = folder, hub, capsys
        self.targets = str(hub.signing.offline / "targets.pem")
        self.root = str(hub.signing.offline / "root.pem")
        self.err = ""

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command that ends with an exit code; return what it prints, errors in `err`."""
        found = run([str(argument) for argument in arguments])
        shown = self._capsys.readouterr()
        self.err = shown.err
        assert found == code, f"{arguments}: {found}\n{shown.out}\n{shown.err}"
        return shown.out

    def view(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run a command with JSON as output and return that."""
        return json.loads(self.run(*arguments, "-o", "json", code=code))

    def key(self, name: str, *arguments: str) -> Path:
        """Make a key pair; return the private file."""
        self.run("publisher", "key", self.folder / name, *arguments)
        return self.folder / name

    def release(self, version: str) -> Path:
        (self.folder / "app").write_bytes(b"app")
        path = self.folder / f"release-{version}.yaml"
        path.write_text(DOCUMENT.format(version=version))
        return path


def public(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield Shell(tmp_path, hub, capsys)


def test_a_publisher_is_added_pushes_revokes_and_is_revoked(shell: Shell) -> None:
    assert shell.run("publisher", "list") == ""
    planned = shell.view("publisher", "add", "acme", "--signer", shell.targets, "--dry-run")
    assert (planned["roles"], planned["dry_run"]) == ({"targets": 2}, True)
    assert shell.view("publisher", "list") == []
    assert "publisher-acme 1" in shell.run("publisher", "add", "acme", "--signer", shell.targets)
    shell.run("publisher", "add", "acme", "--signer", shell.targets, code=5)
    assert "rotate acme" in shell.err
    assert "signed by publisher acme" in shell.run("release", "push", shell.release("1.0.0"), "--dry-run")
    assert "signed by publisher acme" in shell.run("release", "push", shell.release("1.0.0"))
    assert "VOUCHED FOR: reader@1.0.0" in shell.run("release", "verify", "reader@1.0.0")
    revoke = ("release", "revoke", "reader@1.0.0", "--why", "wrong digits", "--running", "replace")
    assert shell.view(*revoke, "--dry-run")["roles"] == {}
    assert shell.run("release", "verify", "reader@1.0.0")
    assert "is replaced where it runs" in shell.run(*revoke)
    found = shell.view("release", "verify", "reader@1.0.0", code=76)
    assert (found["vouched"], found["revoked"]["why"]) == (False, "wrong digits")
    shell.run("publisher", "revoke", "acme", "--why", "their key is lost", "--signer", shell.targets)
    (view,) = shell.view("publisher", "list")
    assert view["revoked"]["why"] == "their key is lost"
    shell.run("release", "push", shell.release("1.1.0"), code=2)
    assert "no publisher yet" in shell.err
    shell.run("publisher", "add", "acme", "--signer", shell.targets, code=5)


def test_the_offline_key_of_another_role_adds_nobody(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.root, code=2)
    assert "does not count" in shell.err
    assert shell.view("publisher", "list") == []
    shell.run("publisher", "add", "No Name", "--signer", shell.targets, code=2)


def test_rotating_replaces_the_key_of_this_machine_by_a_fresh_one_each_time(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.targets)
    shell.run("release", "push", shell.release("1.0.0"))
    keys: list[str] = [shell.view("publisher", "list")[0]["keys"][0]]
    for _ in range(2):
        shell.run("publisher", "rotate", "acme", "--signer", shell.targets)
        keys += shell.view("publisher", "list")[0]["keys"]
    assert len(set(keys)) == 3, "a key that was replaced never comes back"
    shell.run("release", "push", shell.release("1.1.0"))
    for version in ("1.0.0", "1.1.0"):
        assert shell.view("release", "verify", f"reader@{version}")["steps"][-1]["signed_by"] == keys[-1:]
    renewed = shell.view("publisher", "renew", "acme")
    assert renewed["roles"]["publisher-acme"] > 3
    new = shell.key("new.pem", "--type", "ecdsa")
    rotate = ("publisher", "rotate", "acme", "--key", public(new), "--signer", shell.targets)
    assert shell.view(*rotate, "--dry-run")["roles"]["targets"] == 5
    shell.run(*rotate, "--publisher-signer", new)
    shell.run("release", "push", shell.release("1.2.0"))


def test_keys_of_a_publisher_stay_where_they_are(shell: Shell) -> None:
    keys = [shell.key(f"{name}.pem") for name in "abc"]
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    keys[2] = keys[2].rename(elsewhere / "c.pem")
    named = [part for name in "abc" for part in ("--key", str(shell.folder / f"{name}.pem.pub"))]
    add = ("publisher", "add", "acme", *named, "--threshold", "2", "--signer", shell.targets)
    view = shell.view(*add)
    assert (len(view["keys"]), view["roles"], view["signs_here"]) == (
        3,
        {"targets": 2, "publisher-acme": 1},
        True,
    )
    push = ("release", "push", shell.release("1.0.0"))
    shell.run(*push, "--publisher", "acme", "--signer", keys[2], code=2)
    assert "signs with 2 keys; 1 given" in shell.err
    shell.run(*push, "--signer", keys[2], "--signer", f"command:sh -c 'exec cat {keys[0]}'", code=2)
    assert "PRIVATE" not in shell.err
    shell.run(*push, "--signer", keys[2], "--signer", keys[1])


def test_a_passphrase_comes_from_a_file_and_is_asked_from_nobody_without_a_terminal(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shell.folder / "p").write_text("open sesame\n")
    key = shell.key("k.pem", "--passphrase-file", str(shell.folder / "p"))
    add = ("publisher", "add", "acme", "--key", public(key), "--signer", shell.targets)
    shell.run(*add, code=2)
    assert "--passphrase-file" in shell.err
    monkeypatch.setenv("SKERRY_KEY_PASSPHRASE_FILE", str(shell.folder / "p"))
    shell.run(*add)
    shell.run("release", "push", shell.release("1.0.0"))
    (shell.folder / "p").write_text("close sesame\n")
    shell.run("release", "push", shell.release("1.1.0"), code=2)
    assert "not the passphrase" in shell.err and "sesame" not in shell.err


def test_who_signs_is_found_when_there_is_only_one_and_asked_for_when_not(shell: Shell) -> None:
    key = shell.key("k.pem")
    own = ("--signer", shell.targets)
    shell.run("publisher", "add", "acme", "--key", public(key), *own)
    (next((shell.folder / "private" / "hubs").iterdir()) / "publishers.json").unlink()
    shell.run("release", "push", shell.release("1.0.0"), code=2)
    assert "no key of publisher acme is known here" in shell.err
    shell.run("release", "push", shell.release("1.0.0"), "--signer", key)
    shell.run("publisher", "add", "beta", *own)
    shell.run("release", "push", shell.release("1.1.0"), "--publisher", "acme", "--signer", key)
    assert "signed by publisher beta" in shell.run("release", "push", shell.release("1.2.0"))
    (next((shell.folder / "private" / "hubs").iterdir()) / "publishers.json").unlink()
    assert "signed by publisher acme" in shell.run("release", "push", shell.release("1.3.0"), "--signer", key)
    shell.run("release", "push", shell.release("1.4.0"), code=2)
    assert "--publisher: acme, beta" in shell.err


def test_a_login_of_before_fetches_what_it_lacks_and_believes_only_what_was_pinned(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.targets)
    path = shell.folder / "private" / "config.json"
    context = load_profile(path).contexts["default"]
    assert not context.metadata_root, "the test logs in without it"
    other = SigningKey.generate()
    keys = RootKeys(
        root=[other.verifier], targets=[other.verifier], online=other.verifier, desired=[other.verifier]
    )
    forged = sign(make_root("evil", keys, version=1, now=CLOCK.now()), [other.signer])
    trust_root = TrustRoot(hub="evil", ca_pem=shell.hub.ca_pem, root=msgspec.json.decode(forged))
    shell.hub.trust_root = msgspec.json.encode(trust_root)
    shell.run("release", "push", shell.release("1.0.0"), code=76)
    assert "is not the hub you mean" in shell.err
    save_profile(
        path, load_profile(path).with_context("default", Context(hub=context.hub, root=context.root))
    )


def test_a_root_ceremony_takes_files_alone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (
        shell.key(f"{name}.pem", *how) for name, how in (("a", ()), ("b", ("--type", "ecdsa")), ("c", ()))
    )
    first, second, third = (shell.folder / f"{number}.root.json" for number in (1, 2, 3))
    first.write_bytes(shell.hub.signing.pinned)
    monkeypatch.setenv("SKERRY_CONFIG", str(shell.folder / "nobody.json"))
    keys = [part for key in (a, b, c) for part in ("--add-key", str(public(key)))]
    (old,) = shell.view("root", "show", first)["keys"]["root"]
    made = shell.view(
        "root",
        "rotate",
        "--from",
        first,
        *keys,
        "--remove-key",
        old[:12],
        "--threshold",
        "2",
        "--out",
        second,
    )
    assert [(need["whose"], need["threshold"]) for need in made["needs"]] == [("root 1", 1), ("root 2", 2)]
    assert made["missing"] == 3
    shell.run("root", "rotate", "--from", first, "--out", second, code=5)
    assert "for root 2: 1 of 2 signatures, 1 signature missing" in shell.run(
        "root", "sign", second, "--signer", a
    )
    shell.run("root", "sign", second, "--signer", shell.targets, code=2)
    assert "does not count" in shell.err
    assert shell.view("root", "sign", second, "--signer", b)["missing"] == 1
    assert shell.view("root", "sign", second, "--signer", shell.root)["missing"] == 0
    assert shell.view("root", "show", second)["missing"] == 0
    shell.run("root", "rotate", "--from", second, "--threshold", "4", "--out", third, code=2)
    assert "threshold of 4 does not fit" in shell.err
    shell.run("root", "sign", second, "--signer", c, "--root", second, code=2)
    assert "follows on 1, not on 2" in shell.err
    second.with_name(second.name + ".root").unlink()
    shell.run("root", "sign", second, "--signer", c, code=2)
    assert "--root" in shell.err


def test_a_root_and_targets_of_new_keys_go_into_force_together(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.targets)
    shell.run("release", "push", shell.release("1.0.0"))
    new_root, new_targets = shell.key("r.pem"), shell.key("t.pem")
    shown = shell.view("root", "show")
    second, targets = shell.folder / "2.json", shell.folder / "targets.json"
    said = shell.run(
        "root", "rotate", "--add-key", public(new_root), "--remove-key", shown["keys"]["root"][0][:16],
        "--add-targets-key", public(new_targets), "--remove-targets-key", shown["keys"]["targets"][0][:16],
        "--out", second,
    )  # fmt: skip
    assert f"skerry root targets --root {second}" in said
    shell.run("root", "sign", second, "--signer", new_root)
    shell.run("root", "publish", second, code=76)
    assert "root 2 needs 1 signatures for root 1, and has 0" in shell.err
    shell.run("root", "sign", second, "--signer", shell.root)
    shell.run("root", "publish", second, code=76)
    assert "the hub wants targets signed by them" in shell.err
    shell.run("root", "targets", "--root", second, "--out", targets)
    shell.run("root", "publish", second, targets, code=76)
    shell.run("root", "sign", targets, "--signer", shell.targets, code=2)
    shell.run("root", "sign", targets, "--signer", new_targets)
    shell.run("root", "publish", second, targets, "--dry-run")
    assert shell.view("root", "show")["version"] == 1
    assert shell.view("root", "publish", second, targets)["roles"] == {"root": 2, "targets": 3}
    assert shell.view("root", "show")["version"] == 2
    shell.run("publisher", "add", "beta", "--signer", shell.targets, code=2)
    shell.run("publisher", "add", "beta", "--signer", new_targets)
    found = shell.view("release", "verify", "reader@1.0.0")
    assert [step["version"] for step in found["steps"][:2]] == [2, 4]
    shell.run("root", "publish", second, code=2)


def test_a_root_that_the_old_keys_did_not_sign_is_not_followed(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.targets)
    thief = shell.key("thief.pem")
    forged = shell.folder / "2.json"
    (old,) = shell.view("root", "show")["keys"]["root"]
    shell.run("root", "rotate", "--add-key", public(thief), "--remove-key", old[:8], "--out", forged)
    shell.run("root", "sign", forged, "--signer", thief)
    shell.run("root", "publish", forged, code=76)
    shell.hub.signing.served["2.root.json"] = forged.read_bytes()
    for command in (
        ("root", "show"),
        ("release", "push", shell.release("1.0.0")),
        ("publisher", "renew", "acme"),
    ):
        shell.run(*command, code=76)
    assert shell.view("release", "verify", "reader@1.0.0", code=76)["code"] == "metadata.bad_signature"


def test_a_root_names_other_keys_of_the_hub(shell: Shell) -> None:
    online, desired = SigningKey.generate().verifier, SigningKey.generate().verifier
    keys = {key.keyid: key.to_dict() for key in (online, desired)}
    file = shell.folder / "hub-keys.json"
    file.write_text(json.dumps({"online": online.keyid, "desired": [desired.keyid], "keys": keys}))
    second = shell.folder / "2.json"
    made = shell.view("root", "rotate", "--hub-keys", file, "--out", second)
    assert (made["keys"]["snapshot"], made["keys"]["desired"]) == ([online.keyid], [desired.keyid])
    shell.run("root", "sign", second, "--signer", shell.root)
    shell.run("root", "publish", second, code=2)
    assert "skerry hub keys install" in shell.err
    again = shell.view("root", "rotate", "--hub-keys", second, "--out", shell.folder / "3.json")
    assert again["keys"]["timestamp"] == [online.keyid]
    file.write_text("{}")
    shell.run("root", "rotate", "--hub-keys", file, "--out", shell.folder / "4.json", code=2)
    assert "does not hold a hub's public keys" in shell.err


def test_a_lost_answer_loses_no_key(shell: Shell) -> None:
    shell.hub.refuse("POST /metadata", 503, title="unavailable", code="hub.away", detail="not now")
    shell.run("publisher", "add", "acme", "--signer", shell.targets, code=69)
    shell.hub.refusals.clear()
    view = shell.view("publisher", "add", "acme", "--signer", shell.targets)
    shell.run("release", "push", shell.release("1.0.0"))
    keys = next((shell.folder / "private" / "hubs").iterdir()) / "keys"
    assert sorted(file.name for file in keys.iterdir()) == ["publisher-acme.pem", "publisher-acme.pem.pub"]
    assert shell.view("publisher", "list")[0]["keys"] == view["keys"]


def test_a_key_that_may_be_in_force_is_known_here_although_no_answer_came(shell: Shell) -> None:
    for command in (("add", "acme"), ("rotate", "acme")):
        shell.hub.signing.mute = True
        shell.run("publisher", *command, "--signer", shell.targets, code=69)
        shell.hub.signing.mute = False
        shell.run("release", "push", shell.release("1.0.0"))
    shell.run("publisher", "add", "acme", "--signer", shell.targets, code=5)
    shell.hub.refuse("POST /metadata", 403, title="denied", code="auth.role", detail="admins only")
    shell.run("publisher", "rotate", "acme", "--signer", shell.targets, code=77)
    shell.hub.refusals.clear()
    shell.run("release", "push", shell.release("1.1.0"))


def test_a_restored_hub_gets_back_what_it_lost(shell: Shell) -> None:
    shell.run("publisher", "add", "acme", "--signer", shell.targets)
    shell.run("release", "push", shell.release("1.0.0"))
    shell.hub.signing.begin()
    shell.run("release", "push", shell.release("1.1.0"), code=76)
    assert "skerry publisher resend" in shell.err
    lost = shell.view("publisher", "resend", "acme", "--dry-run")
    assert lost["roles"] == {"targets": 2, "publisher-acme": 2}
    shell.run("publisher", "resend", "acme")
    assert "lacks nothing" in shell.run("publisher", "resend", "acme")
