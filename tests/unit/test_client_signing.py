"""Signers: key files, programs and tokens; whatever they return is verified, and none of their secrets is told."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer

from skerry.client.key_files import (
    KeyKind,
    make_key_pair,
    public_path,
    read_passphrase,
    read_private,
    read_public,
)
from skerry.client.signing import UriSigner, open_signer, require_valid
from skerry.client.signing_command import MAX_OUTPUT, CommandSigner
from skerry.kit.errors import Conflict, Rejected, SkerryError
from skerry.trust.keys import SigningKey

pytestmark = pytest.mark.trust

PASSPHRASE = "a passphrase of this test"
KINDS: tuple[KeyKind, ...] = ("ed25519", "ecdsa")


def never(what: str) -> str:
    raise AssertionError(what)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", ("", PASSPHRASE))
def test_a_key_pair_signs_what_its_public_half_verifies(
    tmp_path: Path, kind: KeyKind, passphrase: str
) -> None:
    path = tmp_path / "k.pem"
    made = make_key_pair(path, kind, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = read_public(public_path(path))
    assert public == made
    assert (b"ENCRYPTED" in path.read_bytes()) == bool(passphrase)
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return passphrase

    signature = open_signer(str(path), ask).sign(b"payload", [SigningKey.generate().verifier, public])
    public.verify_signature(signature, b"payload")
    assert signature.keyid == public.keyid
    assert len(asked) == bool(passphrase)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(Conflict):
        make_key_pair(tmp_path / "k.pem")
    (tmp_path / "k.pem").unlink()
    with pytest.raises(Conflict):
        make_key_pair(tmp_path / "k.pem")
    assert not (tmp_path / "k.pem").exists() and before


@pytest.mark.rule("TRUST-2")
def test_nothing_of_a_key_or_passphrase_is_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    make_key_pair(path, passphrase=PASSPHRASE)
    damaged = tmp_path / "damaged.pem"
    content = path.read_text().splitlines()
    damaged.write_text("\n".join([content[0], content[1][:40], content[-1]]))
    tries: list[Callable[[], object]] = [
        lambda: read_private(path, lambda _: "another " + PASSPHRASE),
        lambda: read_private(damaged, lambda _: PASSPHRASE),
        lambda: read_public(path),
        lambda: read_public(damaged),
        lambda: open_signer(str(tmp_path / "absent"), never),
    ]
    for attempt in tries:
        with pytest.raises(Rejected) as caught:
            attempt()
        told = f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.facts} {caught.value.__cause__!r}"
        assert PASSPHRASE not in told
        assert content[1][:20] not in told


def test_a_passphrase_is_a_files_line(tmp_path: Path) -> None:
    (tmp_path / "p").write_text(f"{PASSPHRASE} \n")
    assert read_passphrase(tmp_path / "p") == f"{PASSPHRASE} "
    (tmp_path / "p").write_text("\n")
    with pytest.raises(Rejected, match="does not hold a passphrase"):
        read_passphrase(tmp_path / "p")


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    for name, arguments in (("rsa", ("rsa", "-pkeyopt", "rsa_keygen_bits:2048")), ("x25519", ("x25519",))):
        path = tmp_path / name
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", *arguments, "-out", str(path)],
            check=True,
            capture_output=True,
        )
        with pytest.raises(Rejected, match="neither an Ed25519 nor"):
            read_private(path, never)


def test_a_key_that_does_not_count_signs_nothing(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k.pem")
    with pytest.raises(Rejected, match="does not count here") as caught:
        open_signer(str(tmp_path / "k.pem"), never).sign(b"x", [SigningKey.generate().verifier])
    assert caught.value.code == "signing.foreign_key"


def command(tmp_path: Path, code: str, *, limit_s: float = 30.0) -> CommandSigner:
    script = tmp_path / "sign.py"
    script.write_text(code)
    return CommandSigner(
        f"command:{sys.executable} '{script}' --token=hidden", require_valid, limit_s=limit_s
    )


SIGN = """
import base64, os, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open({path!r}, "rb").read(), None)
assert os.environ["SKERRY_SIGNING_KEYS"] == {ids!r}
text = base64.b64encode(key.sign(sys.stdin.buffer.read())).decode()
print(text[:20], file=sys.stderr)
print(text[:30] + "\\n" + text[30:])
"""


def test_a_program_signs_and_is_told_whose_signatures_count(tmp_path: Path) -> None:
    public = make_key_pair(tmp_path / "k.pem")
    other = SigningKey.generate().verifier
    code = SIGN.format(path=str(tmp_path / "k.pem"), ids=f"{other.keyid},{public.keyid}")
    signature = command(tmp_path, code).sign(b"p" * 1_000_000, [other, public])
    assert signature.keyid == public.keyid


def test_openssl_is_enough_of_a_program(tmp_path: Path) -> None:
    public = make_key_pair(tmp_path / "k.pem", "ecdsa")
    line = f"command:sh -c 'openssl dgst -sha256 -sign {tmp_path / 'k.pem'} | base64'"
    assert open_signer(line, never).sign(b"payload", [public]).keyid == public.keyid


@pytest.mark.parametrize(
    ("code", "says"),
    (
        ("print('not base64 at all!')", "something else than a signature"),
        ("", "something else than a signature"),
        ("import sys; sys.exit(3)", "exit code 3"),
        (f"print('A' * {MAX_OUTPUT + 1})", "printed more than"),
        ("import base64; print(base64.b64encode(bytes(64)).decode())", "does not verify"),
    ),
)
def test_garbage_of_a_program_is_refused(tmp_path: Path, code: str, says: str) -> None:
    with pytest.raises(Rejected, match=says) as caught:
        command(tmp_path, code).sign(b"payload", [SigningKey.generate().verifier])
    assert "hidden" not in str(caught.value)


def test_a_program_that_signs_something_else_is_refused(tmp_path: Path) -> None:
    public = make_key_pair(tmp_path / "k.pem")
    code = SIGN.format(path=str(tmp_path / "k.pem"), ids=public.keyid).replace(
        "buffer.read()", "buffer.read()[1:]"
    )
    with pytest.raises(Rejected, match="does not verify"):
        command(tmp_path, code).sign(b"payload", [public])


@pytest.mark.parametrize("then", ("sleep 600", "exec >&-; sleep 600"))
def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, then: str) -> None:
    text = f"command:sh -c 'sleep 600 & echo $! > {tmp_path / 'child'}; {then}'"
    with pytest.raises(Rejected, match="did not end within"):
        CommandSigner(text, require_valid, limit_s=1.5).sign(b"payload", [SigningKey.generate().verifier])
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    ends_at = time.monotonic() + 20
    while child.exists() and ") Z " not in child.read_text() and time.monotonic() < ends_at:
        time.sleep(0.01)
    assert not child.exists() or ") Z " in child.read_text()


def test_a_program_that_is_not_there_or_not_named_is_said(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be started"):
        open_signer("command:/no/such/program", never).sign(b"x", [])
    for text in ("command:", "command:'", "gpg:ABCD", "nothing:x"):
        with pytest.raises(SkerryError):
            open_signer(text, never).sign(b"x", [])


class TokenSigner(Signer):
    """A token behind a URI, with a PIN and one key, that counts how often it is used."""

    held = CryptoSigner.generate_ecdsa()
    uses = 0

    def __init__(self, public: Key, ask: Callable[[str], str]) -> None:
        self._public, self._ask = public, ask

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> TokenSigner:
        assert secrets_handler is not None
        if public_key.scheme != cls.held.public_key.scheme:
            raise ValueError("unsupported scheme")
        return cls(public_key, secrets_handler)

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        TokenSigner.uses += 1
        pin = self._ask("pin")
        if pin != "123456":
            raise RuntimeError(f"wrong pin {pin}")
        return Signature(self._public.keyid, self.held.sign(payload).signature)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> type[TokenSigner]:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "token", TokenSigner)
    monkeypatch.setattr(TokenSigner, "uses", 0)
    return TokenSigner


def test_a_token_is_known_by_what_it_signs_and_asked_for_its_pin_once(token: type[TokenSigner]) -> None:
    own = token.held.public_key
    others = [SigningKey.generate().verifier, CryptoSigner.generate_ecdsa().public_key]
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return "123456"

    signer = open_signer("token:1", ask)
    for payload in (b"one", b"two"):
        assert signer.sign(payload, [*others, own]).keyid == own.keyid
    assert (asked, token.uses) == (["Pin of token:1"], 2)
    with pytest.raises(Rejected, match="does not verify"):
        signer.sign(b"three", others)
    with pytest.raises(Rejected, match="unsupported scheme"):
        signer.sign(b"four", others[:1])


def test_a_wrong_pin_is_tried_once_and_not_told(token: type[TokenSigner]) -> None:
    keys = [CryptoSigner.generate_ecdsa().public_key for _ in range(4)]
    with pytest.raises(Rejected) as caught:
        UriSigner("token:1", lambda _: "654321").sign(b"x", keys)
    assert token.uses == 1, "a few wrong PINs lock a token"
    assert "654321" not in str(caught.value)
