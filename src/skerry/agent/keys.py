"""A host's private keys as files below `keys/`, and how new ones take their place.

- Each file is PEM: PKCS#8, or what a key guard (the TPM) has sealed. Mode 0600 in a directory of 0700.
- New keys are staged beside the old ones, and put in their place by renaming once the hub has confirmed them. While
  keys are staged, either pair may be the one that the hub knows; both are there. A kill between any two steps leaves
  a pair that can be asked about again.
- The sealing key before the present one is kept, for what was sealed to it and is not opened yet.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from skerry.kit.durable import sync_directory, write_file
from skerry.kit.errors import Missing, Unavailable, Untrusted
from skerry.ports.key_guard import KeyGuard
from skerry.spec.facts import Fact, HostFacts
from skerry.trust.keys import SigningKey, key_id, new_sealing_key, sealing_public

_SEALED = b"-----BEGIN SKERRY TPM2 SEALED KEY-----\n"
_SEALED_END = b"\n-----END SKERRY TPM2 SEALED KEY-----\n"
REJOIN = "give this machine new keys: skerry site token SITE --replace HOST, then skerry agent join here"

KeyKind = Literal["tpm", "file"]


class StagedKeys(msgspec.Struct, frozen=True):
    """New keys that wait to take the place of the old: the signing key, and the public half of the sealing key."""

    sign: SigningKey
    seal_public: str


class KeyFiles:
    """The keys of one data directory. A `guard` opens what it has sealed, and seals new keys if `sealing`."""

    def __init__(self, data: Path, guard: KeyGuard | None = None, *, sealing: bool = True) -> None:
        self.folder = data / "keys"
        self._guard = guard
        self._sealing = sealing

    @property
    def kind(self) -> KeyKind | None:
        """How the signing key is kept; None while there is none."""
        try:
            return "tpm" if self._path("sign").read_bytes().startswith(_SEALED) else "file"
        except OSError:
            return None

    @property
    def pending(self) -> bool:
        """Whether new keys are staged."""
        return self._path("next-sign").exists()

    def make(self) -> StagedKeys:
        """Return the host's keys, made at the first call and then kept."""
        self._open_folder()
        if not self._path("sign").exists():
            self._write("sign", SigningKey.generate().to_pem())
        if not self._path("seal").exists():
            self._write("seal", new_sealing_key()[0])
        return StagedKeys(self.load(), sealing_public(self._read("seal")))

    def load(self) -> SigningKey:
        """Return the signing key.

        Raises:
            Missing: it is not there (`agent.keys_lost`).
            Untrusted: it is damaged (`key.unreadable`), or this machine does not open it (`key.foreign`).
            Unavailable: what opens it does not answer (`key.guard_away`).
        """
        return SigningKey.from_pem(self._read("sign"))

    def stage(self) -> StagedKeys:
        """Return new keys beside the present ones, made at the first call and then kept until `promote`.

        Those that nobody can open any more, as after the TPM was cleared, are made anew.
        """
        self._open_folder()
        if self.pending:
            with contextlib.suppress(Untrusted):
                return self._staged()
        # The signing key last: while it is not there, nothing is staged.
        self._path("next-sign").unlink(missing_ok=True)
        self._write("next-seal", new_sealing_key()[0])
        self._write("next-sign", SigningKey.generate().to_pem())
        return self._staged()

    def promote(self) -> None:
        """Put the staged keys in the place of the present ones; again, after a kill, is fine.

        Raises:
            Unavailable: the disk is full (`disk.unwritable`); nothing is lost.
        """
        if not self.pending:
            return
        try:
            if self._path("next-seal").exists():
                if self._path("seal").exists():
                    write_file(self._path("previous-seal"), self._path("seal").read_bytes())
                self._path("next-seal").replace(self._path("seal"))
                sync_directory(self.folder)
            self._path("next-sign").replace(self._path("sign"))
            sync_directory(self.folder)
        except OSError as error:
            raise Unavailable("disk.unwritable", f"cannot write {self.folder}: {error.strerror}") from error

    def vault_key(self, *, anew: bool = False) -> bytes:
        """Return the key of the host's vault, 32 bytes, made at the first call and then kept; raises as `load`.

        `anew` makes another in its place: nothing opens then that the old one closed.
        """
        self._open_folder()
        if anew or not self._path("vault").exists():
            self._write("vault", base64.b64encode(secrets.token_bytes(32)) + b"\n")
        try:
            key = base64.b64decode(self._read("vault").strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32:
            raise Untrusted("key.unreadable", f"{self._path('vault')} is damaged")
        return key

    def sealing_pems(self) -> dict[str, bytes]:
        """Return the private keys that may open what was sealed to this host, by key id; raises as `load`."""
        there = [name for name in ("seal", "previous-seal", "next-seal") if self._path(name).exists()]
        pems = [self._read(name) for name in there]
        return {key_id(sealing_public(pem)): pem for pem in pems}

    def _staged(self) -> StagedKeys:
        sign = SigningKey.from_pem(self._read("next-sign"))
        # Between the two steps of `promote` the new sealing key has its place already.
        seal = "next-seal" if self._path("next-seal").exists() else "seal"
        return StagedKeys(sign, sealing_public(self._read(seal)))

    def _open_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def _write(self, name: str, pem: bytes) -> None:
        if self._guard is not None and self._sealing:
            pem = _SEALED + base64.b64encode(self._guard.seal(pem)) + _SEALED_END
        write_file(self._path(name), pem)

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            stored = path.read_bytes()
        except FileNotFoundError as error:
            raise Missing("agent.keys_lost", f"{path} is not there", hint=REJOIN) from error
        except OSError as error:
            raise Unavailable("disk.unreadable", f"cannot read {path}: {error.strerror}") from error
        if not stored.startswith(_SEALED):
            return stored
        if self._guard is None:
            message = f"{path} is sealed by a TPM, and there is none here that can be used"
            raise Unavailable(
                "key.guard_away", message, hint=f"are tpm2-tools installed? If it is gone: {REJOIN}"
            )
        try:
            sealed = base64.b64decode(stored.removeprefix(_SEALED).removesuffix(_SEALED_END), validate=True)
        except binascii.Error as error:
            raise Untrusted("key.unreadable", f"{path} is damaged", hint=REJOIN) from error
        return self._guard.unseal(sealed)


def key_facts(files: KeyFiles) -> HostFacts:
    """Return the fact that says how the host's signing key is kept."""
    return {"keys": Fact(value=kind, source="agent")} if (kind := files.kind) is not None else {}
