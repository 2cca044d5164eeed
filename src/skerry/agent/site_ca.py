"""The certificates a host issues to itself: asked for by name, renewed in time, without a link.

Whoever needs one asks at every step; asking is cheap. The answer is a directory whose files change all at once, or None
with `why`: as long as the hub has not issued the host's intermediate, or when the names are not this site's to give.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.agent.authority import AuthorityState, HostAuthority
from skerry.agent.certificate_files import CertificateFolders, CertificateNote
from skerry.agent.secret_files import Owner
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.errors import Bug, SkerryError, Unavailable
from skerry.ports.clock import Clock
from skerry.spec.pki import IssuedCertificate
from skerry.trust.pki import is_leaf_due, site_domain

HOST_FOLDER = "host"


class Wanted(msgspec.Struct, frozen=True):
    """A certificate that is wanted: for DNS names, addresses and URIs, as a client's, a server's, or both.

    `name` is its directory in `folder`. Folders with a dot in their name are components'; all others belong to who
    asks. `owner` may read the key.
    """

    name: str
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    client: bool = True
    server: bool = True
    folder: str = HOST_FOLDER
    owner: Owner = Owner()

    @property
    def names(self) -> tuple[str, ...]:
        """All names it is for."""
        return (*self.dns, *self.addresses, *self.uris)


class CertificateFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a certificate is: `cert` (with all between it and a root), its `key`, whom to trust, and who is revoked.

    The paths stay the same for ever; what they lead to changes all at once, by the host's own clock at `placed_at`, and
    `mark` tells one content from another.
    """

    cert: Path
    key: Path
    bundle: Path
    crl: Path
    not_after: datetime
    serial: str
    issued_at: datetime
    placed_at: datetime
    mark: str


class LocalCertificates:
    """What one host issues to itself. `on_renewed` are told the folder and name of what has changed."""

    def __init__(
        self,
        authority: HostAuthority,
        folders: CertificateFolders,
        clock: Clock,
        *,
        site: str,
        now: Callable[[], datetime],
    ) -> None:
        """`now` is the time that the host believes, `clock` its own clock."""
        self._clock = clock
        self._authority = authority
        self._folders = folders
        self._site = site
        self._now = now
        self._held: dict[tuple[str, str], tuple[Wanted, CertificateFiles | None]] = {}
        self._why: dict[tuple[str, str], str] = {}
        self._trusted_of: tuple[AuthorityState, str] = (AuthorityState(), "")
        self.on_renewed: list[Callable[[str, str], None]] = []

    @property
    def domain(self) -> str:
        """The domain that this site's names are in; empty while it is not known."""
        domain = self._authority.state.domain
        return site_domain(self._site, domain) if domain else ""

    @property
    def trust_domain(self) -> str:
        """The domain of all sites, in which applications have their SPIFFE IDs; empty while it is not known."""
        return self._authority.state.domain

    def ask(self, wanted: Wanted) -> CertificateFiles | None:
        """Return where a certificate is, issued and renewed as needed; None when there is none, and `why` says why.

        It is kept up to date from then on, until `keep` leaves it out. What is there and still holds is returned even
        when it could not be renewed.
        """
        key = (wanted.folder, wanted.name)
        if not all(_is_plain(part) for part in key):
            raise Bug("certificate.name", f"not a name of a certificate: {key}")
        before, files = self._held.get(key, (None, None))
        if before == wanted and files is not None and not self._is_due(files):
            return files
        self._held[key] = (wanted, files if before == wanted else None)
        self._renew(key)
        return self._held[key][1]

    def why(self, name: str, folder: str = HOST_FOLDER) -> str:
        """Return why there is no such certificate, or no newer one; empty when all is well."""
        return self._why.get((folder, name), "")

    def renew(self) -> None:
        """Renew all that is due."""
        for key, (_, files) in list(self._held.items()):
            if files is None or self._is_due(files):
                self._renew(key)

    def keep(self, folder: str, names: set[str]) -> None:
        """Remove what is in a folder under other names."""
        self._held = {k: held for k, held in self._held.items() if k[0] != folder or k[1] in names}
        self._why = {k: why for k, why in self._why.items() if k in self._held}
        self._folders.keep(folder, names)

    def keep_components(self, places: set[str]) -> None:
        """Remove the folders of components that are needed no more: those with a dot in their name."""
        for folder in self._folders.folders() - places:
            if "." in folder:
                self.keep(folder, set())

    def issued(self) -> dict[str, IssuedCertificate]:
        """Return what there is, by `folder/name`, for the hub."""
        return {
            f"{folder}/{name}": IssuedCertificate(
                serial=files.serial, not_after=files.not_after, names=wanted.names[:64]
            )
            for (folder, name), (wanted, files) in sorted(self._held.items())
            if files is not None
        }

    @property
    def trouble(self) -> str:
        """What hinders a certificate, the first of it."""
        return next((f"{'/'.join(key)}: {why}" for key, why in sorted(self._why.items())), "")

    # ── issuing ──────────────────────────────────────────────────────────────────────────────────────

    def _is_due(self, files: CertificateFiles) -> bool:
        state = self._authority.state
        if not files.mark.startswith(f"{state.serial}.") or not files.mark.endswith(self._trusted()):
            return True
        return is_leaf_due(files.issued_at, files.not_after, self._now()) or not files.key.exists()

    def _renew(self, key: tuple[str, str]) -> None:
        wanted, files = self._held[key]
        try:
            found = self._found(wanted) or self._issued(wanted)
        except SkerryError as error:
            self._why[key] = error.message
            if files is not None and files.not_after <= self._now():
                self._held[key] = (wanted, None)
            return
        self._why.pop(key, None)
        self._held[key] = (wanted, found)
        if files != found:
            for tell in self.on_renewed:
                tell(*key)

    def _found(self, wanted: Wanted) -> CertificateFiles | None:
        """Return what is there already, from a run of the agent before this one, if it is what is wanted."""
        note = self._folders.note(wanted.folder, wanted.name)
        state = self._authority.state
        if note is None or note.wanted != _mark_of(wanted) or note.issuer != state.serial:
            return None
        if is_leaf_due(note.issued_at, note.not_after, self._now()):
            return None
        if note.trusted != self._trusted():
            files = self._folders.read(wanted.folder, wanted.name)
            return self._place(wanted, files, msgspec.structs.replace(note, trusted=self._trusted()))
        return _files(self._folders.folder(wanted.folder) / wanted.name, note)

    def _issued(self, wanted: Wanted) -> CertificateFiles:
        from skerry.trust.authorities import Issuing
        from skerry.trust.local_certificates import LeafNames, issue_leaf

        state, now = self._authority.state, self._now()
        if why := self._authority.why_none:
            raise Unavailable("certificate.no_authority", why)
        names = LeafNames(
            subject=wanted.name,
            dns=wanted.dns,
            addresses=wanted.addresses,
            uris=wanted.uris,
            client=wanted.client,
            server=wanted.server,
        )
        leaf = issue_leaf(Issuing(state.key, state.chain.encode()), names, domain=state.domain, now=now)
        note = CertificateNote(
            serial=leaf.serial,
            issuer=state.serial,
            issued_at=now,
            placed_at=now,
            not_after=leaf.not_after,
            wanted=_mark_of(wanted),
            trusted=self._trusted(),
        )
        return self._place(wanted, {"cert.pem": leaf.chain.encode(), "key.pem": leaf.key}, note)

    def _place(self, wanted: Wanted, files: dict[str, bytes], note: CertificateNote) -> CertificateFiles:
        state = self._authority.state
        note = msgspec.structs.replace(note, placed_at=self._clock.now())
        files = {
            **files,
            "bundle.pem": "".join(state.roots).encode(),
            "crl.pem": "".join((*state.crls, *state.peers, state.crl)).encode(),
        }
        link = self._folders.put(wanted.folder, wanted.name, files, note, wanted.owner)
        return _files(link, note)

    def _trusted(self) -> str:
        """Return the mark of what is trusted and revoked, worked out once for each state."""
        state = self._authority.state
        if self._trusted_of[0] is not state:
            mark = _digest((*state.roots, *state.crls, *state.peers, state.crl))
            self._trusted_of = (state, mark)
        return self._trusted_of[1]


def _files(link: Path, note: CertificateNote) -> CertificateFiles:
    return CertificateFiles(
        cert=link / "cert.pem",
        key=link / "key.pem",
        bundle=link / "bundle.pem",
        crl=link / "crl.pem",
        not_after=note.not_after,
        serial=note.serial,
        issued_at=note.issued_at,
        placed_at=note.placed_at,
        mark=f"{note.issuer}.{note.serial}.{note.trusted}",
    )


def _is_plain(part: str) -> bool:
    return bool(part) and part[0] != "." and all(c.isalnum() or c in "-_." for c in part)


def _mark_of(wanted: Wanted) -> str:
    return _digest((wanted.dns, wanted.addresses, wanted.uris, wanted.client, wanted.server))


def _digest(what: object) -> str:
    return hex_of(digest_of(encode_canonical(what)))
