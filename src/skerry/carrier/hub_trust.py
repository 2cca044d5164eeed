"""What a host or relay trusts of its hub: the signed metadata it keeps, and the keys that the newest root names.

The files are in a directory of their own, each written so that a power cut leaves the old or the new; one that is
damaged is fetched again. The root is followed from the pinned one every time, so no file is believed for being there.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from urllib.parse import quote

from securesystemslib.signer import Key
from tuf.api.metadata import Root

from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable, Untrusted
from skerry.ports.link import Link
from skerry.trust.metadata import Keep, Local, Remote, Step, desired_keys, follow_root, run_steps
from skerry.trust.repository import read_as

MAX_FILE_BYTES = 8 << 20


class HubTrust:
    """The metadata of one host or relay, the newest `root`, and the keys its hub signs with. Its methods block."""

    def __init__(self, pinned: bytes, folder: Path) -> None:
        """Load what was kept.

        Raises:
            Untrusted: the pinned root is none.
        """
        self.pinned = pinned
        self._folder = folder
        self._writing = threading.Lock()
        self.root = run_steps(follow_root(pinned, online=False), self.answer_kept).root
        self.root_version = self.root.version
        self.keys: tuple[Key, ...] = desired_keys(self.root)

    def knows(self, key_id: str) -> bool:
        """Tell whether the newest root names a key."""
        return any(key.keyid == key_id for key in self.keys)

    def past_keys(self) -> tuple[Key, ...]:
        """Return the keys that any root held so far has named, the newest root's first."""
        found = {key.keyid: key for key in self.keys}
        kept = (self._load(f"{version}.root.json") for version in range(1, self.root_version))
        for content in (self.pinned, *kept):
            with contextlib.suppress(Untrusted):
                root = read_as(content, Root).signed if content else None
                found.update((key.keyid, key) for key in (desired_keys(root) if root else ()))
        return tuple(found.values())

    def follow_root(self, link: Link, token: str) -> bool:
        """Ask upstream for newer roots; tell whether there was one.

        Raises:
            Untrusted: what came does not follow on the root that is held.
            Unavailable: no answer came.
        """
        before = self.root_version
        self.note_root(
            run_steps(follow_root(self.pinned, online=True), lambda step: self.answer(step, link, token)).root
        )
        return self.root_version != before

    def answer_kept(self, step: Step) -> bytes | None:
        """Answer a step from what is kept alone."""
        match step:
            case Local():
                return self._load(step.name)
            case Keep():
                self._keep(step)
                return None
            case Remote():
                return None

    def answer(self, step: Step, link: Link, token: str) -> bytes | None:
        """Answer a step, with what upstream has where it asks for that."""
        if isinstance(step, Remote):
            return link.metadata(step.name, token=token, max_bytes=step.max_bytes)
        return self.answer_kept(step)

    def note_root(self, root: Root) -> None:
        """Take the keys of a root that was verified."""
        if root.version >= self.root_version:
            self.root, self.root_version, self.keys = root, root.version, desired_keys(root)

    def _keep(self, step: Keep) -> None:
        with self._writing:  # roots are followed by whoever meets a signature of a newer one
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_file(self._file(step.name), step.content)
            except OSError as error:
                raise Unavailable("disk.full", f"cannot keep {step.name}: {error}") from error

    def _load(self, name: str) -> bytes | None:
        try:
            with self._file(name).open("rb") as file:
                return file.read(MAX_FILE_BYTES)
        except OSError:
            return None

    def _file(self, name: str) -> Path:
        return self._folder / quote(name, "")
