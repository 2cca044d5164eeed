"""Certificates as applications find them: a directory in memory for each, whose files change all at once.

`<root>/<folder>/<name>` is a link to a directory with `cert.pem` (the certificate, then all between it and a root),
`key.pem`, `bundle.pem` (roots to trust) and `crl.pem` (lists of what is revoked). A renewal writes another directory
and turns the link, so that key and certificate always match, whatever is cut off when. The directory before it stays
until the next renewal, for who is about to read it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.agent.secret_files import Owner, SecretFiles, write_for
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Unavailable

_NOTE = "note.json"


class CertificateNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory holds: kept beside the files, so that another run of the agent knows.

    `placed_at` is by the host's own clock, all else by the time it believes.
    """

    serial: str
    issuer: str
    issued_at: datetime
    placed_at: datetime
    not_after: datetime
    wanted: str
    trusted: str


class CertificateFolders:
    """The directories of one host's certificates. `root` is None where nothing is in memory.

    Where they were put is written into `place`, as for secrets.
    """

    def __init__(self, root: Path | None, place: Path | None = None) -> None:
        self._files = SecretFiles(root, place)
        self.root = root

    def wipe(self) -> None:
        """Remove everything."""
        self._files.wipe()

    def folder(self, folder: str) -> Path:
        """Return where the certificates of a folder are.

        Raises:
            Unavailable: nothing is in memory here (`secret.no_memory`).
        """
        return self._files.folder(folder)

    def note(self, folder: str, name: str) -> CertificateNote | None:
        """Return what is there under a name."""
        if self.root is None:
            return None
        try:
            return msgspec.json.decode((self.root / folder / name / _NOTE).read_bytes(), type=CertificateNote)
        except (OSError, *UNREADABLE):
            return None

    def read(self, folder: str, name: str) -> dict[str, bytes]:
        """Return the files that are there under a name."""
        place = self.folder(folder) / name
        return {file: (place / file).read_bytes() for file in ("cert.pem", "key.pem")}

    def put(
        self, folder: str, name: str, files: Mapping[str, bytes], note: CertificateNote, owner: Owner
    ) -> Path:
        """Have a name hold these files, all of them from one moment to the next; return its directory.

        Raises:
            Unavailable: no room, or nothing is in memory here; what was there is still there.
        """
        base = self.folder(folder)
        mark = f"{note.serial}.{note.trusted[:12]}"
        try:
            self._files.open(base)
            fresh, link = base / f".{name}.{mark}", base / name
            if fresh.is_dir() and link.is_symlink() and link.readlink() == Path(fresh.name):
                return link
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            fresh.chmod(0o755)
            for file, content in files.items():
                write_for(fresh / file, content, owner if file == "key.pem" else Owner(container=True))
            write_for(fresh / _NOTE, msgspec.json.encode(note), Owner())
            before = link.readlink().name if link.is_symlink() else ""
            turned = base / f".{name}.link"
            turned.unlink(missing_ok=True)
            turned.symlink_to(fresh.name)
            turned.replace(link)
            self._forget_old(base, name, {fresh.name, before})
        except OSError as error:
            raise Unavailable(
                "certificate.unplaced", f"cannot write below {self.root}: {error.strerror}"
            ) from error
        return link

    def folders(self) -> set[str]:
        """Return which folders there are."""
        if self.root is None or not self.root.is_dir():
            return set()
        return {base.name for base in self.root.iterdir()}

    def keep(self, folder: str, names: AbstractSet[str]) -> None:
        """Remove what is in a folder under other names; without any, the folder as well."""
        if self.root is None or not (base := self.root / folder).is_dir():
            return
        if not names:
            shutil.rmtree(base, ignore_errors=True)
            return
        for link in [one for one in base.iterdir() if one.is_symlink() and one.name not in names]:
            link.unlink(missing_ok=True)
            self._forget_old(base, link.name, set())

    def _forget_old(self, base: Path, name: str, keep: AbstractSet[str]) -> None:
        for found in base.glob(f".{name}.*.*"):
            if found.name not in keep and not found.is_symlink():
                shutil.rmtree(found, ignore_errors=True)
