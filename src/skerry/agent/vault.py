"""The vault: the values of secrets that a host holds, as one file encrypted under a key of this host.

The key is a file beside the host's other keys, sealed by the TPM where they are. The file is replaced as a whole, so
that a power cut leaves the old or the new one. One that does not open is set aside: what the hub sealed to this host is
in the desired state, and opens again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.agent.keys import KeyFiles
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable, Untrusted
from skerry.spec.secret import SecretOrder
from skerry.trust.secret_choice import HeldVersion, InUse

_MAGIC = b"skerry-vault-1\n"
MAX_REVOKED = 4096


class VaultEntry(msgspec.Struct, frozen=True):
    """One version with its value in clear; it is in memory and in the vault's file, and told to nobody.

    What the host made itself has the `order` for it, which `round` of it this is, when it was made, and the public half
    of a pair of keys.
    """

    id: str
    name: str
    version: int
    value: bytes
    not_before: datetime | None = None
    expires_at: datetime | None = None
    order: SecretOrder | None = None
    round: int = 0
    made_at: datetime | None = None
    public: str = ""

    def __repr__(self) -> str:
        return f"VaultEntry({self.name} {self.version})"

    @property
    def held(self) -> HeldVersion:
        """What is to be chosen from."""
        return HeldVersion(self.id, self.version, self.not_before, self.round)

    @property
    def revoked_as(self) -> str:
        """The id under which it would be revoked: that of the version, also where a host makes several values of it."""
        return self.order.id if self.order is not None else self.id

    @property
    def told(self) -> str:
        """How people are told which one it is."""
        return f"{self.name} {self.version}" + (f", made here as number {self.round}" if self.order else "")


class VaultState(msgspec.Struct, frozen=True):
    """Everything in a vault: entries by id, ids that were revoked, and by name which version is used."""

    entries: Mapping[str, VaultEntry] = {}
    revoked: tuple[str, ...] = ()
    uses: Mapping[str, InUse] = {}

    def __repr__(self) -> str:
        return f"VaultState({len(self.entries)} entries)"


class Vault:
    """The vault of one data directory. Blocking."""

    def __init__(self, data: Path, keys: KeyFiles) -> None:
        self.path = data / "vault" / "vault.bin"
        self._keys = keys
        self._key = b""
        self.state = VaultState()
        self.lost = ""

    @property
    def is_there(self) -> bool:
        """Tell whether anything was ever put into it."""
        return self.path.exists()

    def open(self) -> None:
        """Read the vault, made empty when it is not there; again is free. One that is `lost` begins anew.

        Raises:
            Unavailable: what opens it does not answer now.
        """
        if self._key:
            return
        from skerry.trust.sealing import decrypt_with

        try:
            key = self._keys.vault_key()
        except Untrusted:  # it never opens again
            key = self._keys.vault_key(anew=True)
        try:
            content = self.path.read_bytes()
            opened = decrypt_with(key, content.removeprefix(_MAGIC), _MAGIC)
            self.state = msgspec.json.decode(opened, type=VaultState)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable("disk.unreadable", f"cannot read {self.path}: {error.strerror}") from error
        except (Untrusted, *UNREADABLE):
            self.lost = "the vault was damaged or of another key, and set aside; beginning with an empty one"
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_suffix(".damaged"))
        self._key = key

    def save(self, state: VaultState) -> None:
        """Replace what is in the vault.

        Raises:
            Unavailable: no room; the vault is as it was.
        """
        if state == self.state:
            return
        from skerry.trust.sealing import encrypt_with

        state = msgspec.structs.replace(state, revoked=state.revoked[-MAX_REVOKED:])
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self.path, _MAGIC + encrypt_with(self._key, msgspec.json.encode(state), _MAGIC))
        self.state = state
