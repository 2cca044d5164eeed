"""What this machine keeps of one hub beside the login: verified metadata, what was signed here, and keys made here.

`hubs/<id of the hub>/` beside the profile. `metadata/` is what was verified last, and counts against anything older;
`signed/` is what was signed here and taken by the hub; `keys/` and `publishers.json` say who signs when nobody is
named. Rules: readable by the owner alone; every file is replaced as a whole; one process at a time.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected, Unavailable

MAX_FILE_BYTES = 8 << 20
_root_re = re.compile(r"^([1-9][0-9]{0,11})\.root\.json$")


class HubFiles:
    """The folder of one hub."""

    def __init__(self, profile: Path, hub: str) -> None:
        """`profile` is the file with the logins, `hub` the id in the trust root that was pinned."""
        self.folder = profile.parent / "hubs" / quote(hub, safe="")[:128].replace(".", "%2E")
        self.keys = self.folder / "keys"

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes of this machine out; they wait."""
        try:
            file = (self._make(self.folder) / "lock").open("ab")
        except OSError as error:
            raise Unavailable(
                "disk.unwritable", f"cannot write to {self.folder}: {error.strerror}"
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def metadata(self, name: str) -> bytes | None:
        """Return a metadata file that was verified, None where there is none."""
        return _read(self.folder / "metadata" / name)

    def keep_metadata(self, name: str, content: bytes) -> None:
        """Keep a metadata file that was verified, in the place of what was."""
        write_file(self._make(self.folder / "metadata") / name, content)

    def root_versions(self) -> list[int]:
        """Return the versions of the roots that were kept, in order."""
        folder = self.folder / "metadata"
        names = (_root_re.match(file.name) for file in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(match[1]) for match in names if match)

    def signed(self, role: str) -> bytes | None:
        """Return the newest of a role that was signed here and taken by the hub."""
        return _read(self.folder / "signed" / f"{quote(role, safe='')}.json")

    def keep_signed(self, role: str, content: bytes) -> None:
        """Keep what the hub has taken of what was signed here."""
        write_file(self._make(self.folder / "signed") / f"{quote(role, safe='')}.json", content)

    def keys_folder(self) -> Path:
        """Return where keys are made, made if need be."""
        return self._make(self.keys)

    def publishers(self) -> dict[str, tuple[str, ...]]:
        """Return who signs for which publisher, as `--signer` names them."""
        content = _read(self.folder / "publishers.json")
        if content is None:
            return {}
        try:
            return msgspec.json.decode(content, type=dict[str, tuple[str, ...]])
        except UNREADABLE as error:
            path = self.folder / "publishers.json"
            hint = "mend it, or move it away and name --publisher and --signer"
            raise Rejected("profile.unreadable", f"{path} cannot be read", hint=hint) from error

    def set_publisher(self, name: str, signers: Sequence[str]) -> None:
        """Note who signs for a publisher from now on; nobody here, if `signers` is empty."""
        every: Mapping[str, Sequence[str]] = {**self.publishers(), name: tuple(signers)}
        content = msgspec.json.encode({publisher: found for publisher, found in every.items() if found})
        write_file(self._make(self.folder) / "publishers.json", content)

    def _make(self, folder: Path) -> Path:
        try:
            self.folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # `parents` would make what lies in between readable by others.
            for part in (self.folder.parent, self.folder, folder):
                part.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Unavailable("disk.unwritable", f"cannot make {folder}: {error.strerror}") from error
        return folder


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable("disk.unreadable", f"cannot read {path}: {error.strerror}") from error
    return content if len(content) <= MAX_FILE_BYTES else None
