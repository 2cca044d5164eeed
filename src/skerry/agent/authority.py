"""A host's own intermediate: its key, made here and kept beside the vault, and what the hub says of it.

- The file is encrypted under the key of the vault, and replaced as a whole. One that does not open is set aside: the
  host makes another key, and asks for an intermediate again.
- What was taken is used without a link until it has run out. One that has run out is asked for like any other: a host
  proves who it is by the key it was enrolled with.
- What is revoked adds up. A list that leaves out what one before it had is not taken; a host that is told that its own
  intermediate is revoked makes another key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.agent.keys import KeyFiles
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable, Untrusted
from skerry.spec.pki import Authority, HostPki, RevokedAuthority, SitePki
from skerry.trust.pki import add_revoked, authority_name

_MAGIC = b"skerry-authority-1\n"

Note = Callable[..., None]


class AuthorityState(msgspec.Struct, frozen=True):
    """All a host keeps of it. `roots` and `crls` are those taken last; `peers` are other hosts' own lists."""

    key: bytes = b""
    key_hash: str = ""
    request: str = ""
    chain: str = ""
    serial: str = ""
    not_after: datetime | None = None
    crl: str = ""
    domain: str = ""
    roots: tuple[str, ...] = ()
    crls: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    revoked: tuple[RevokedAuthority, ...] = ()

    def __repr__(self) -> str:
        return f"AuthorityState({self.serial})"


class HostAuthority:
    """The intermediate of one host. `now` is the time the host believes. Blocking where it says so."""

    def __init__(
        self, data: Path, keys: KeyFiles, *, host: str, now: Callable[[], datetime], note: Note
    ) -> None:
        self.path = data / "vault" / "authority.bin"
        self.state = AuthorityState()
        self._keys = keys
        self._host = host
        self._now = now
        self._note = note
        self._sealing = b""
        self._followed: SitePki | None = None
        self._told: set[str] = set()

    def is_settled(self, pki: SitePki) -> bool:
        """Tell whether `follow` has nothing to do; costs nothing."""
        return pki is self._followed or (bool(self._sealing) and pki == self._followed)

    def follow(self, pki: SitePki) -> None:
        """Take what the hub says; make a key if there is none that may be used. Blocking; again is harmless.

        Raises:
            Unavailable: the key of the vault is not at hand now, or the disk is full.
        """
        self._open()
        state = self._with_revoked(self.state, pki)
        state = self._with_key(state)
        if pki.roots:
            state = msgspec.structs.replace(state, roots=pki.roots, domain=pki.domain)
        peers = tuple(one.crl for name, one in sorted(pki.hosts.items()) if one.crl and name != self._host)
        if pki.hosts:
            state = msgspec.structs.replace(state, peers=peers)
        authority = pki.hosts.get(self._host)
        if authority is not None and self._is_newer(authority, state):
            state = self._taken(authority, state)
        self._save(state)
        self._followed = pki

    def view(self, pki: SitePki) -> HostPki:
        """Return what the hub is to hear."""
        state = self.state
        shown = pki.hosts.get(self._host)
        known = shown is not None and shown.key == state.key_hash
        heard = shown is not None and shown.crl == state.crl
        return HostPki(
            request="" if known else state.request,
            crl="" if heard else state.crl,
            serial=state.serial,
            not_after=state.not_after,
        )

    @property
    def why_none(self) -> str:
        """Why no certificate can be issued now; empty when one can be."""
        state = self.state
        if not state.chain:
            return "the hub has not issued this host's intermediate yet"
        if state.not_after is not None and state.not_after <= self._now():
            return f"this host's intermediate ran out at {state.not_after:%Y-%m-%d %H:%M}Z"
        return ""

    # ── what follow does ─────────────────────────────────────────────────────────────────────────────

    def _with_revoked(self, state: AuthorityState, pki: SitePki) -> AuthorityState:
        from skerry.trust.authorities import revoked_by

        revoked = add_revoked(state.revoked, pki.revoked, self._now())
        try:
            lasting = {one.serial for one in revoked}
            before = frozenset[str]().union(*(revoked_by(crl) for crl in state.crls)) & lasting
            left_out = before - frozenset[str]().union(*(revoked_by(crl) for crl in pki.crls))
        except Untrusted as error:
            left_out = frozenset({error.message})
        if left_out:
            self._note_once("pki.crl_refused", f"the lists leave out what was revoked: {min(left_out)}")
            return msgspec.structs.replace(state, revoked=revoked)
        return msgspec.structs.replace(state, revoked=revoked, crls=pki.crls or state.crls)

    def _with_key(self, state: AuthorityState) -> AuthorityState:
        """Return the state with a key that may be used, made anew where the one held is revoked."""
        from skerry.trust.authorities import key_hash, make_empty_crl, make_request, new_key

        revoked = {one.key for one in state.revoked} | {one.serial for one in state.revoked}
        if state.key and not {state.key_hash, state.serial} & revoked:
            return state
        if state.key:
            self._note("pki.revoked", "the intermediate of this host was revoked; asking with another key")
        key = new_key()
        own = key_hash(key)
        name = authority_name(self._host, own)
        return AuthorityState(
            key=key,
            key_hash=own,
            request=make_request(key, name),
            crl=make_empty_crl(key, name, self._now()),
            domain=state.domain,
            roots=state.roots,
            crls=state.crls,
            peers=state.peers,
            revoked=state.revoked,
        )

    def _is_newer(self, authority: Authority, state: AuthorityState) -> bool:
        if authority.key != state.key_hash or authority.serial == state.serial:
            return False
        return state.not_after is None or authority.not_after > state.not_after

    def _taken(self, authority: Authority, state: AuthorityState) -> AuthorityState:
        from skerry.trust.authorities import check_chain, check_crl, inspect_authority

        try:
            found = inspect_authority(authority.chain)
            check_chain(authority.chain, state.roots)
            if found.key != state.key_hash or found.serial != authority.serial:
                raise Untrusted("pki.cert_refused", "it is of another key, or not the one it is said to be")
            check_crl(state.crl, authority.chain)
        except Untrusted as error:
            self._note_once("pki.refused", f"{error.code}: {error.message}")
            return state
        self._note("pki.taken", f"intermediate {found.serial}, until {found.not_after:%Y-%m-%d}")
        return msgspec.structs.replace(
            state,
            chain=authority.chain,
            serial=found.serial,
            not_after=found.not_after,
        )

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if self._sealing:
            return
        from skerry.trust.sealing import decrypt_with

        try:
            key = self._keys.vault_key()
        except Untrusted:  # it never opens again
            key = self._keys.vault_key(anew=True)
        try:
            opened = decrypt_with(key, self.path.read_bytes().removeprefix(_MAGIC), _MAGIC)
            self.state = msgspec.json.decode(opened, type=AuthorityState)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable("disk.unreadable", f"cannot read {self.path}: {error.strerror}") from error
        except (Untrusted, *UNREADABLE):
            self._note("pki.key_lost", "the host's intermediate does not open, and was set aside")
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_suffix(".damaged"))
        self._sealing = key

    def _save(self, state: AuthorityState) -> None:
        if state == self.state:
            return
        from skerry.trust.sealing import encrypt_with

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self.path, _MAGIC + encrypt_with(self._sealing, msgspec.json.encode(state), _MAGIC))
        self.state = state

    def _note_once(self, kind: str, message: str) -> None:
        if f"{kind} {message}" not in self._told:
            self._told.add(f"{kind} {message}")
            self._note(kind, message)
