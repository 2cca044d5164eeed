"""The hub's part in certificates as one file, `pki/authorities.json`: issuers with their keys, and roots.

One file, so that a key and its certificate are always replaced together. Made at the first start: the hub is the root
then. With a root kept elsewhere, `next_key` waits for the certificate that is asked for, and the hub's own root stays
trusted until what it issued has run out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Missing, Rejected, Untrusted
from skerry.trust.authorities import (
    Inspected,
    Issuing,
    check_chain,
    check_crl,
    each_of,
    inspect_authority,
    key_hash,
    make_request,
    make_root,
    new_key,
)

FILE = "pki/authorities.json"
MAX_ISSUERS = 8


class StoredIssuer(msgspec.Struct, frozen=True):
    """An issuer that this hub is or was, with its private key; `chain` as `skerry.trust.authorities.Issuing` has it."""

    key: str
    chain: str

    def __repr__(self) -> str:
        return "StoredIssuer(...)"

    @property
    def issuing(self) -> Issuing:
        """The same, to issue with."""
        return Issuing(self.key.encode(), self.chain.encode())


class PkiState(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored: `issuers` and `roots`, the newest first, and `upper_crls`, lists of issuers above the hub."""

    issuers: tuple[StoredIssuer, ...]
    roots: tuple[str, ...]
    upper_crls: tuple[str, ...] = ()
    next_key: str = ""

    def __repr__(self) -> str:
        return f"PkiState({len(self.issuers)} issuers)"


class PkiFile:
    """The file of one hub's data directory. `state` is replaced as a whole; usable from any thread."""

    def __init__(self, data: Path, hub: str, now: datetime) -> None:
        """Open it, made at the first call.

        Raises:
            Rejected: it is damaged (`pki.unreadable`).
        """
        self.path = data / FILE
        self._hub = hub
        if self.path.exists():
            self.state = self._load()
        else:
            root = make_root(f"Skerry root {hub}", now)
            stored = StoredIssuer(root.key.decode(), root.chain.decode())
            self._save(PkiState(issuers=(stored,), roots=(stored.chain,)))

    @property
    def issuer(self) -> Issuing:
        """Who issues now."""
        return self.state.issuers[0].issuing

    def request(self) -> str:
        """Return a signing request for the hub, to be signed by a root kept elsewhere; again is of the same key."""
        if not self.state.next_key:
            self._save(msgspec.structs.replace(self.state, next_key=new_key().decode()))
        key = self.state.next_key.encode()
        return make_request(key, f"Skerry hub {self._hub} {key_hash(key)[:16]}")

    def check_install(self, chain: str, root: str, crls: Sequence[str]) -> Inspected:
        """Return what a root has signed for this hub.

        Raises:
            Missing: nothing was asked for (`pki.no_request`).
            Rejected: it is for another key (`pki.other_key`), or a list is missing (`pki.no_crl`).
            Untrusted: the chain does not lead to the root.
            Conflict: there are too many issuers that still count (`pki.too_many`).
        """
        found = inspect_authority(chain)
        if not self.state.next_key:
            raise Missing("pki.no_request", "nothing was asked for", hint="skerry pki csr makes a request")
        if key_hash(self.state.next_key.encode()) != found.key:
            hint = "sign what skerry pki csr prints, and import that"
            raise Rejected(
                "pki.other_key", "the certificate is not for the key that was asked for", hint=hint
            )
        check_chain(chain, [root])
        # Whoever checks every link needs a list of every issuer above the hub.
        for one in (*each_of(chain)[1:], root):
            if not any(_is_of(crl, one) for crl in crls):
                who = inspect_authority(one).subject
                raise Rejected(
                    "pki.no_crl",
                    f"there is no list of revoked certificates of {who}",
                    hint="import it as well",
                )
        if len(self.state.issuers) >= MAX_ISSUERS:
            raise Conflict("pki.too_many", f"{MAX_ISSUERS} issuers still count; wait until one has run out")
        return found

    def install(self, chain: str, root: str, crls: Sequence[str]) -> None:
        """Take what a root has signed into use: the hub issues with it from now on; raises as `check_install`."""
        self.check_install(chain, root, crls)
        state = self.state
        above = [*each_of(chain)[1:], root]
        lists = tuple(crl for crl in crls if any(_is_of(crl, one) for one in above))
        kept = tuple(crl for crl in state.upper_crls if not any(_is_of(crl, one) for one in above))
        self._save(
            PkiState(
                issuers=(StoredIssuer(state.next_key, chain), *state.issuers),
                roots=(root, *(one for one in state.roots if one != root)),
                upper_crls=(*lists, *kept),
            )
        )

    def drop(self, issuers: frozenset[str]) -> None:
        """Forget issuers, by the hash of their key, that nothing counts of any more, and roots that led to no other.

        The one that issues now stays.
        """
        state = self.state
        left = [one for one in state.issuers[1:] if key_hash(one.key.encode()) not in issuers]
        if len(left) == len(state.issuers) - 1:
            return
        remaining = (state.issuers[0], *left)
        needed = {check_chain(one.chain, state.roots) for one in remaining}
        roots = tuple(one for one in state.roots if one in needed)
        above = [cert for one in remaining for cert in (*each_of(one.chain), *roots)]
        crls = tuple(crl for crl in state.upper_crls if any(_is_of(crl, one) for one in above))
        self._save(msgspec.structs.replace(state, issuers=remaining, roots=roots, upper_crls=crls))

    def _load(self) -> PkiState:
        try:
            state = msgspec.json.decode(self.path.read_bytes(), type=PkiState)
        except UNREADABLE as error:
            raise Rejected(
                "pki.unreadable", f"{self.path} is damaged", hint="restore it from a backup"
            ) from error
        if not state.issuers or not state.roots:
            raise Rejected("pki.unreadable", f"{self.path} names no issuer", hint="restore it from a backup")
        return state

    def _save(self, state: PkiState) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self.path, msgspec.json.encode(state))
        self.state = state


def _is_of(crl: str, cert: str) -> bool:
    try:
        check_crl(crl, cert)
    except Untrusted:
        return False
    return True
