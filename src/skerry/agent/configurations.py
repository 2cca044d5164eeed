"""The configurations that a host keeps, by digest: what its releases were given, for as long as a record names it.

Rules: one is durable before any record names it; a file that is not what its name says counts as not there. Nothing
here needs the hub: after a reboot without a link the last good configuration is where it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.durable import write_file
from skerry.spec.configuration import Configured


class Configurations:
    """Keeps configurations in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, Configured] = {}

    def load(self, digest: str) -> Configured | None:
        """Return a configuration, None when it is not here or damaged."""
        held = self._held.get(digest)
        if held is None:
            try:
                content = self._path(digest).read_bytes()
                held = msgspec.json.decode(content, type=Configured) if digest_of(content) == digest else None
            except (OSError, msgspec.ValidationError, *UNREADABLE):
                held = None
            if held is not None:
                self._held[digest] = held
        return held

    def keep(self, wanted: Iterable[tuple[str, Configured]]) -> None:
        """Store configurations durably; one that is not what its digest says is left out.

        Raises:
            Unavailable: no room.
        """
        for digest, configured in wanted:
            content = encode_canonical(configured)
            if self.load(digest) is None and digest_of(content) == digest:
                self._directory.mkdir(parents=True, exist_ok=True)
                write_file(self._path(digest), content)

    def forget(self, needed: AbstractSet[str]) -> None:
        """Remove all that are not needed."""
        if not self._directory.is_dir():
            return
        names = {self._path(digest).name for digest in needed}
        for found in self._directory.iterdir():
            if found.name not in names:
                found.unlink(missing_ok=True)
        self._held = {digest: held for digest, held in self._held.items() if digest in needed}

    def _path(self, digest: str) -> Path:
        return self._directory / f"{hex_of(digest)}.json"
