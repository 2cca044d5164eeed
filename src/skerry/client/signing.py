"""Who signs on this machine: a key file, a device or service behind a URI, or a program.

Each is named by a text: a path; a private key URI of securesystemslib such as `hsm:2?label=...`; or
`command:PROGRAM ARGUMENTS`. Rules: every signature is verified before it is used, by one of the keys that count;
secrets are asked for or read from a file, and are in no text, no error and no log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer, SSlibKey
from tuf.api.metadata import Metadata

from skerry.client.key_files import read_private
from skerry.client.signing_command import COMMAND_PREFIX, CommandSigner
from skerry.kit.errors import Rejected, SkerryError
from skerry.spec.publishing import SignedRole
from skerry.trust.repository import to_bytes

AskSecret = Callable[[str], str]
"""Returns a secret: a passphrase or PIN. It is told what for, in a few words."""

_uri_re = re.compile(r"^[a-z][a-z0-9+-]{1,30}:")


class RoleSigner(Protocol):
    """Whoever signs with one key."""

    name: str
    """As it was named, without secrets."""

    def sign(self, payload: bytes, keys: Sequence[Key]) -> Signature:
        """Return a signature that was verified with one of `keys`, whose id it names.

        Raises:
            Rejected: none came, or none that any of `keys` verifies (`signing.*`).
        """
        ...


class KeyFileSigner:
    """Signs with a private key in memory."""

    def __init__(self, name: str, signer: CryptoSigner) -> None:
        self.name = name
        self._signer = signer
        self.public: SSlibKey = signer.public_key

    def sign(self, payload: bytes, keys: Sequence[Key]) -> Signature:
        """See `RoleSigner`."""
        key = next((key for key in keys if same_key(key, self.public)), None)
        if key is None:
            raise foreign_key(self.name, self.public.keyid)
        made = Signature(key.keyid, self._signer.sign(payload).signature)
        return require_valid(self.name, made, payload, [key])


class UriSigner:
    """Signs with what securesystemslib finds behind a private key URI, such as a PKCS#11 token."""

    def __init__(self, uri: str, ask: AskSecret) -> None:
        self.name = uri
        self._ask = ask
        self._secrets: dict[str, str] = {}

    def sign(self, payload: bytes, keys: Sequence[Key]) -> Signature:
        """See `RoleSigner`. Which of the keys it is, shows by which of them verifies the signature.

        It is asked once for each kind of key, and not again after a failure: tokens lock after a few wrong PINs.
        """
        why = "it has no kind of key that counts here"
        for kind in dict.fromkeys(key.scheme for key in keys):
            alike = [key for key in keys if key.scheme == kind]
            try:
                signer = Signer.from_priv_key_uri(self.name, alike[0], self._secret)
            except Exception as error:  # whatever the library of a device or service raises
                why = self._told(error)
                continue
            try:
                made = signer.sign(payload)
            except SkerryError:
                raise
            except Exception as error:
                raise self._failed(self._told(error)) from None
            return require_valid(self.name, made, payload, alike)
        raise self._failed(why)

    def _told(self, error: Exception) -> str:
        """Return what a library said, without secrets."""
        text = f"{type(error).__name__}: {error}"
        for secret in self._secrets.values():
            text = text.replace(secret, "...")
        return text[:300]

    def _failed(self, why: str) -> Rejected:
        hint = "is the device plugged in, is its library named, and does it hold a key that counts here?"
        return Rejected("signing.failed", f"{self.name} did not sign: {why}", hint=hint)

    def _secret(self, what: str) -> str:
        if what not in self._secrets:
            self._secrets[what] = self._ask(f"{what.capitalize()} of {self.name}")
        return self._secrets[what]


def open_signer(text: str, ask: AskSecret) -> RoleSigner:
    """Return who signs, by the text that names it.

    Raises:
        Rejected: the text names nobody (`signing.scheme`), or its key cannot be read (`key.*`).
    """
    if text.startswith(COMMAND_PREFIX):
        return CommandSigner(text, require_valid)
    if _uri_re.match(text) and not Path(text).exists():
        scheme = text.partition(":")[0]
        if scheme not in SIGNER_FOR_URI_SCHEME:
            hint = "a file, command:PROGRAM, or a private key URI such as hsm:2?label=NAME"
            raise Rejected("signing.scheme", f"{scheme}: is no kind of key", hint=hint)
        return UriSigner(text, ask)
    path = Path(text).expanduser()
    return KeyFileSigner(text, CryptoSigner(read_private(path, ask)))


def open_signers(texts: Sequence[str], ask: AskSecret) -> list[RoleSigner]:
    """Return who signs, by the texts that name them."""
    return [open_signer(text, ask) for text in texts]


def sign_metadata(
    metadata: Metadata[Any], signers: Sequence[RoleSigner], keys: Sequence[Key], *, threshold: int, what: str
) -> bytes:
    """Return the bytes of metadata, signed by at least `threshold` of `keys`.

    Raises:
        Rejected: these signers are too few (`signing.too_few`), or one has a key that does not count.
    """
    add_signatures(metadata, signers, keys)
    made = {name for name in metadata.signatures if name in {key.keyid for key in keys}}
    if len(made) < threshold:
        others = ", ".join(sorted(key.keyid[:12] for key in keys if key.keyid not in made))
        message = f"{what} needs signatures of {threshold} keys, and has {len(made)}"
        hint = f"name more with --signer; those of these keys count: {others}"
        raise Rejected("signing.too_few", message, hint=hint)
    return to_bytes(metadata)


def add_signatures(metadata: Metadata[Any], signers: Sequence[RoleSigner], keys: Sequence[Key]) -> list[str]:
    """Add signatures to those that metadata has; return the ids of the keys that made them."""
    payload, made = metadata.signed_bytes, list[str]()
    for signer in signers:
        signature = signer.sign(payload, keys)
        metadata.signatures[signature.keyid] = signature
        made.append(signature.keyid)
    return made


def sign_roles(
    unsigned: Mapping[str, Metadata[Any]],
    signers: Sequence[RoleSigner],
    keys: Sequence[Key],
    *,
    threshold: int,
) -> tuple[SignedRole, ...]:
    """Return roles, each signed by at least `threshold` of `keys`. Raises as `sign_metadata`."""
    return tuple(
        SignedRole(
            role=role,
            content=sign_metadata(part, signers, keys, threshold=threshold, what=f"the role {role}"),
        )
        for role, part in unsigned.items()
    )


def same_key(one: Key, other: Key) -> bool:
    """Tell whether two keys are the same public key, whatever ids they go by."""
    return (one.scheme, one.keyval.get("public", "").strip()) == (
        other.scheme,
        other.keyval.get("public", "").strip(),
    )


def require_valid(name: str, made: Signature, payload: bytes, keys: Sequence[Key]) -> Signature:
    """Return a signature under the id of the key that verifies it; the id it came with says nothing.

    Raises:
        Rejected: none does (`signing.bad_signature`).
    """
    for key in keys:
        try:
            key.verify_signature(Signature(key.keyid, made.signature), payload)
        except (UnverifiedSignatureError, VerificationError, ValueError):
            continue
        return Signature(key.keyid, made.signature)
    hint = "it signed something else, or with a key that does not count here"
    raise Rejected("signing.bad_signature", f"the signature of {name} does not verify", hint=hint)


def foreign_key(name: str, keyid: str) -> Rejected:
    """Return the error for a key whose signature would not count."""
    hint = "skerry publisher list and skerry root show say whose keys count for what"
    return Rejected("signing.foreign_key", f"the key of {name} ({keyid[:12]}) does not count here", hint=hint)
