"""KeyFile: the key that opens all stored secrets, as a file, readable by its owner alone.

One key per line, `skerry-secrets-key-1 <32 bytes in base64>`, the newest first: that one wraps, each of them unwraps. A
key is known by the first half of a SHA-256. The file is the hub's own (`keys/secrets.key`, made when it is first
needed), or one that somebody else provides, such as systemd with `LoadCredential`; that one is never written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.key_encryption import KeyEncryption, Wrapped
from skerry.trust.sealing import KEY_BYTES, decrypt_with, encrypt_with

ENVIRONMENT = "SKERRY_SECRETS_KEY_FILE"
CREDENTIAL = "skerry-secrets-key"
OWN = Path("keys") / "secrets.key"
_WORD = "skerry-secrets-key-1"
_MAX_BYTES = 64 << 10


class KeyFile(KeyEncryption):
    """Keys read from a file at the first need, and then kept. Usable from any number of threads."""

    def __init__(self, path: Path, *, own: bool) -> None:
        """`own` says that the file is made when it is not there."""
        self.path = path
        self.own = own
        self._keys: Sequence[bytes] = ()
        self._loading = threading.Lock()

    @classmethod
    def find(cls, data: Path, environment: Mapping[str, str]) -> KeyFile:
        """Return the file of a hub: the one that the environment names, systemd's credential, or the hub's own."""
        if named := environment.get(ENVIRONMENT):
            return cls(Path(named), own=False)
        credential = Path(environment.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / CREDENTIAL
        if credential.is_file():
            return cls(credential, own=False)
        return cls(data / OWN, own=True)

    def newest(self) -> str:
        return _id(self._load()[0])

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        newest = self._load()[0]
        return Wrapped(_id(newest), encrypt_with(newest, key, context))

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        for key in self._load(make=False):
            if _id(key) == wrapped.key_id:
                return decrypt_with(key, wrapped.wrapped, context)
        message = f"the key {wrapped.key_id[:16]} that opens stored secrets is not in {self.path}"
        raise Unavailable("secrets.key_away", message, hint="put it back there as another line")

    @property
    def several(self) -> bool:
        """Tell whether there are older keys beside the newest."""
        return len(self._load()) > 1

    def add(self) -> None:
        """Put a fresh key before the others.

        Raises:
            Rejected: the file is not the hub's own (`secrets.key_foreign`).
        """
        self._write([secrets.token_bytes(KEY_BYTES), *self._load()])

    def drop_older(self) -> None:
        """Keep the newest key alone; raises as `add`. What the others wrapped does not open any more."""
        self._write(self._load()[:1])

    def _load(self, *, make: bool = True) -> Sequence[bytes]:
        # Two threads that both find no file must not make two keys, of which one is lost.
        with self._loading:
            return self._load_once(make=make)

    def _load_once(self, *, make: bool) -> Sequence[bytes]:
        if not self._keys:
            try:
                with self.path.open("rb") as file:
                    self._keys = self._parse(file.read(_MAX_BYTES))
            except FileNotFoundError:
                if not (self.own and make):
                    raise Unavailable("secrets.key_away", f"{self.path} is not there") from None
                self._write([secrets.token_bytes(KEY_BYTES)])
            except OSError as error:
                message = f"cannot read {self.path}: {error.strerror}"
                raise Unavailable("secrets.key_away", message) from error
        return self._keys

    def _parse(self, content: bytes) -> Sequence[bytes]:
        keys: list[bytes] = []
        for line in filter(None, (line.split() for line in content.splitlines())):
            try:
                key = base64.b64decode(line[-1], validate=True)
            except binascii.Error:
                key = b""
            if len(line) != 2 or line[0].decode("ascii", "replace") != _WORD or len(key) != KEY_BYTES:
                keys.clear()
                break
            keys.append(key)
        if not keys:  # what is wrong with which line is left out, as it might quote a key
            hint = f"each line is {_WORD} and 32 bytes in base64"
            raise Unavailable("secrets.key_away", f"{self.path} does not hold keys alone", hint=hint)
        return keys

    def _write(self, keys: Sequence[bytes]) -> None:
        if not self.own:
            hint = "write the new key as its first line, then run this again: it goes over to that one"
            raise Rejected("secrets.key_foreign", f"{self.path} is not the hub's to write", hint=hint)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [f"{_WORD} {base64.b64encode(key).decode()}\n" for key in keys]
        write_file(self.path, "".join(lines).encode())
        self._keys = tuple(keys)


def _id(key: bytes) -> str:
    return hashlib.sha256(b"skerry-secrets-key\n" + key).hexdigest()[:32]
