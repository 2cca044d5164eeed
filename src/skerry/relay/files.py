"""The files of signed metadata that pass through, and the trust root: kept, so that hosts need no upstream for them.

A file with a version in its name never changes: one that the root's own keys sign is kept once its signature holds.
What only a delegation vouches for is asked for again now and then, so that a bad copy does not stay. The
timestamp is asked for anew after a few seconds, and replaced by no older one: what came in a bundle may be newer than
what is above. Hosts verify all of it themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import structlog
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from skerry.kit.digests import digest_of, parse_digest
from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, SkerryError, Unavailable
from skerry.ports.clock import Clock
from skerry.relay.identity import Identity
from skerry.relay.loops.upstream import Upward

_log = structlog.get_logger()

FRESH_S = 3.0
ASK_AGAIN_S = 600.0
PATIENCE_S = 5.0
"""For so long is waited for a newer file than the one that is kept, or for a root that few hubs ever have."""
FAILING_PATIENCE_S = 0.5
MAX_FILES = 4_000
MAX_BYTES = 256 << 20
MAX_FILE_BYTES = 5 << 20
TIMESTAMP = "timestamp.json"
_versioned = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_.%+@-]{1,200})\.json\Z")


class MetadataFiles:
    """Metadata files by name. Lives in one event loop."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        upward: Upward,
        clock: Clock,
        fetch_root: Callable[[str], bytes],
    ) -> None:
        """`fetch_root` brings the trust root of a digest from above; blocking."""
        self._folder = folder
        self._identity = identity
        self._upward = upward
        self._clock = clock
        self._fetch_root = fetch_root
        self._asked_at: dict[str, float] = {}
        self._lasting: set[str] = set()
        self._asking: dict[str, asyncio.Task[bytes | None]] = {}

    async def metadata(self, name: str) -> bytes:
        """Return a metadata file.

        Raises:
            Missing: there is none of that name, or it is not here and the upstream is away.
        """
        if len(name) > 250:
            raise Missing("metadata.absent", "there is no metadata file of such a name")
        kept = await asyncio.to_thread(self._load, name)
        if kept is not None and self._is_fresh(name, kept):
            return kept
        try:
            # Who waits has its own limit: what is kept is better than no answer, and the newest comes in time.
            spare = kept is not None or await asyncio.to_thread(self._follows_a_root, name)
            async with asyncio.timeout(self._patience_s() if spare else None):
                content = await self._ask_once(name)
        except (Unavailable, TimeoutError):
            content = kept
        if content is None:
            content = kept  # what came in a bundle may be more than there is above
        if content is None:
            raise Missing("metadata.absent", f"there is no metadata file {name[:150]}")
        return content

    async def take_in(self, files: Mapping[str, bytes]) -> None:
        """Keep metadata that came by another way, by name; the caller has verified it. Whoever asks gets it at once.

        Raises:
            Unavailable: it cannot be kept (`disk.unwritable`).
        """
        await asyncio.to_thread(self._take_in, files)

    def _take_in(self, files: Mapping[str, bytes]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            if name == TIMESTAMP:
                content = self._newer_timestamp(self._load(name), content)
            write_file(self._file(name), content)
        self._trim()

    def _newer_timestamp(self, kept: bytes | None, content: bytes) -> bytes:
        """Return the newer one of two timestamps; of one that the root's keys do not sign, the other."""
        root = self._identity.trust.root
        if kept is not None and _signed_version(kept, Timestamp.type, root) > _signed_version(
            content, Timestamp.type, root
        ):
            return kept
        return content

    async def trust_root(self, digest: str) -> bytes:
        """Return the bytes of the TrustRoot with a digest; this relay's own if none is named."""
        if digest in ("", self._identity.place.root):
            return self._identity.raw_root
        parse_digest(digest)
        name = f"trust-root-{digest.removeprefix('sha256:')}"
        kept = await asyncio.to_thread(self._load, name)
        if kept is not None and digest_of(kept) == digest:
            return kept
        raw = await self._upward.ask(self._fetch_root, digest)
        await asyncio.to_thread(self._keep, name, raw)
        return raw

    def _patience_s(self) -> float:
        return FAILING_PATIENCE_S if self._upward.failing else PATIENCE_S

    def _follows_a_root(self, name: str) -> bool:
        """Tell whether a file would be the root after one that is here, for which every host asks in vain."""
        found = _versioned.match(name)
        if found is None or found[2] != Root.type:
            return False
        before = int(found[1]) - 1
        return before == self._identity.trust.root_version or self._file(f"{before}.root.json").exists()

    def _is_fresh(self, name: str, kept: bytes) -> bool:
        """Tell whether a kept file need not be asked for."""
        asked_at = self._asked_at.get(name)
        age_s = self._clock.monotonic() - asked_at if asked_at is not None else ASK_AGAIN_S
        found = _versioned.match(name)
        if found is None:
            return age_s < FRESH_S
        if name in self._lasting or _is_signed(kept, int(found[1]), found[2], self._identity.trust.root):
            self._lasting.add(name)
            return True
        return age_s < ASK_AGAIN_S

    async def _ask_once(self, name: str) -> bytes | None:
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(task)

    async def _ask(self, name: str) -> bytes | None:
        token = self._upward.token()
        if not token:
            raise Unavailable("relay.no_token", "there is no leave from above to fetch metadata yet")
        try:
            content = await self._upward.ask(
                self._upward.link.metadata, name, token=token, max_bytes=MAX_FILE_BYTES
            )
        except SkerryError as error:
            raise Unavailable("metadata.unavailable", error.message) from error
        if content is not None:
            if name == TIMESTAMP:
                kept = await asyncio.to_thread(self._load, name)
                content = self._newer_timestamp(kept, content)
            await asyncio.to_thread(self._keep, name, content)
            self._asked_at[name] = self._clock.monotonic()
            while len(self._asked_at) > MAX_FILES:
                del self._asked_at[next(iter(self._asked_at))]
        return content

    def _keep(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._file(name), content, sync=False)
            self._trim()
        except (OSError, Unavailable):
            _log.warning("metadata.not_kept", name=name)

    def _trim(self) -> None:
        """Remove the oldest files when there are too many."""
        files = sorted(
            ((one.stat(), one) for one in self._folder.iterdir()), key=lambda item: item[0].st_mtime
        )
        size = sum(found.st_size for found, _ in files)
        while files and (len(files) > MAX_FILES or size > MAX_BYTES):
            found, oldest = files.pop(0)
            size -= found.st_size
            oldest.unlink(missing_ok=True)

    def _load(self, name: str) -> bytes | None:
        try:
            return self._file(name).read_bytes()
        except OSError:
            return None

    def _file(self, name: str) -> Path:
        return self._folder / quote(name, "")


def _is_signed(content: bytes, version: int, role: str, root: Root) -> bool:
    """Tell whether a file is that version of a role of the top level, as the root's keys sign it."""
    return role in (Snapshot.type, Targets.type) and _signed_version(content, role, root) == version


def _signed_version(content: bytes, role: str, root: Root) -> int:
    """Return the version of a role's metadata, 0 when the root's keys do not sign it as that."""
    try:
        found = cast(Any, Metadata.from_bytes(content))
        root.verify_delegate(role, found.signed_bytes, found.signatures)
    except (RepositoryError, DeserializationError, ValueError, KeyError, TypeError):
        return 0
    return int(found.signed.version) if found.signed.type == role else 0
