"""DockerImages: images in a Docker-compatible engine, made from verified blobs.

Rules:
- An image is ours while it carries the tag of our owner; removing is taking that tag away, and the engine
  deletes what no tag and no container holds. So several agents share an image on one engine.
- The tag is given only after the identity was checked: what a broken load left behind is not ours, and not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from skerry.adapters.docker_archive import archive_of
from skerry.adapters.docker_names import check_owner
from skerry.adapters.engine_api import NOTHING, Answer, EngineApi, part
from skerry.kit.digests import hex_of, parse_digest
from skerry.kit.errors import Rejected, SkerryError, Unavailable, Untrusted
from skerry.kit.quantities import format_size
from skerry.ports.images import ImageParts

_REPOSITORY = "skerry.local/image"
_LOAD_LIMIT_S = 900.0
_ANSWER_LIMIT_BYTES = 4 << 20
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class DockerImages:
    """Images of one owner behind one engine's socket."""

    def __init__(self, socket: Path, *, owner: str) -> None:
        self._api = EngineApi(socket)
        self._repository = f"{_REPOSITORY}-{check_owner(owner).lower()}"
        self._turn = asyncio.Lock()

    async def loaded(self) -> AbstractSet[str]:
        """See `Images.loaded`."""
        return await asyncio.to_thread(self._loaded)

    async def load(self, parts: ImageParts, blob: Callable[[str], Path]) -> None:
        """See `Images.load`; one after the other."""
        async with self._turn:
            await asyncio.to_thread(self._load, parts, blob)

    async def prune(self, keep: AbstractSet[str]) -> AbstractSet[str]:
        """See `Images.prune`; an image that another agent on this engine has loaded, too, stays for that one."""
        async with self._turn:
            return await asyncio.to_thread(self._prune, keep)

    def _loaded(self) -> set[str]:
        return set(self._ours())

    def _ours(self) -> dict[str, str]:
        """Return our images: the tag by identity."""
        query = {"filters": json.dumps({"reference": [f"{self._repository}:*"]})}
        answer = self._api.call("GET", "/images/json", query=query)
        _need(answer, "list images")
        found: dict[str, str] = {}
        for image in answer.json():
            for tag in image.get("RepoTags") or ():
                if tag.startswith(f"{self._repository}:") and tag == self._tag(image["Id"]):
                    found[image["Id"]] = tag
        return found

    def _tag(self, identity: str) -> str:
        return f"{self._repository}:{hex_of(identity)[:40]}"

    def _load(self, parts: ImageParts, blob: Callable[[str], Path]) -> None:
        identity = str(parse_digest(parts.identity))
        tag = self._tag(identity)
        if self._id_of(tag) == identity:
            return
        self._check_room(parts)
        # Under another name until it is checked: a tag of ours says that the image is whole.
        loading = f"{self._repository}:loading"
        try:
            self._stream(archive_of(parts, blob, tag=loading))
            found = self._id_of(loading)
            if found != identity:
                raise Untrusted(
                    "image.mismatch",
                    f"the engine made another image of it: {found or 'none'}, not {identity}",
                    image=identity,
                )
            self._rename(identity, tag)
        finally:
            # With it goes what was loaded, unless it is tagged otherwise by now.
            with contextlib.suppress(Unavailable):
                self._untag(loading)

    def _check_room(self, parts: ImageParts) -> None:
        """Refuse what cannot fit before any byte is sent: Podman holds on to the room of a failed load a while."""
        answer = self._api.call("GET", "/info")
        place = Path(str(answer.json().get("DockerRootDir") or "/nowhere")) if answer.is_good else None
        if place is None or not place.is_dir():
            return
        needed = sum(size for _, size in parts.layers)
        with contextlib.suppress(OSError):
            if place.stat().st_dev == Path("/var/tmp").stat().st_dev:  # noqa: S108 - the engine's, only looked at
                # Podman and Docker first write the whole archive there.
                needed *= 2
            free = shutil.disk_usage(place).free
            if free < needed:
                message = (
                    f"disk full: the image needs {format_size(needed)} at {place}, {format_size(free)} free"
                )
                raise Unavailable("disk.full", message)

    def _stream(self, archive: Iterator[bytes]) -> None:
        query = {"quiet": "1"}
        with self._api.request(
            "POST", "/images/load", query=query, body=archive, timeout_s=_LOAD_LIMIT_S
        ) as stream:
            answer = Answer(stream.status, stream.read_all(_ANSWER_LIMIT_BYTES))
        reason = "" if answer.is_good else answer.message
        # Docker says 200 and then, in one of the JSON lines of the body, that it failed.
        for line in answer.content.splitlines() if answer.is_good else ():
            with contextlib.suppress(ValueError, AttributeError):
                said: Any = json.loads(line)
                reason = reason or str(
                    said.get("error") or said.get("errorDetail", NOTHING).get("message") or ""
                )
        if reason:
            raise _failure(reason[:1000])

    def _rename(self, identity: str, tag: str) -> None:
        repository, _, name = tag.rpartition(":")
        query = {"repo": repository, "tag": name}
        answer = self._api.call("POST", f"/images/{part(identity)}/tag", query=query)
        if answer.status not in (200, 201):
            raise Unavailable("runtime.engine_failed", f"cannot tag the image: {answer.message}")

    def _id_of(self, name: str) -> str | None:
        answer = self._api.call("GET", f"/images/{part(name)}/json")
        if answer.status == 404:
            return None
        _need(answer, "inspect an image")
        found = str(answer.json().get("Id", ""))
        return found if found.startswith("sha256:") else f"sha256:{found}"

    def _prune(self, keep: AbstractSet[str]) -> set[str]:
        gone: set[str] = set()
        used = self._used()
        for identity, tag in self._ours().items():
            if identity not in keep and identity not in used and self._untag(tag):
                gone.add(identity)
        self._untag(f"{self._repository}:loading")
        return gone

    def _used(self) -> set[str]:
        """Return the images of all containers, also those of others and those that have ended."""
        answer = self._api.call("GET", "/containers/json", query={"all": "1"})
        _need(answer, "list containers")
        return {str(container.get("ImageID", "")) for container in answer.json()}

    def _untag(self, tag: str) -> bool:
        """Take a tag away, and with the last one the image; False when a container uses it."""
        answer = self._api.call("DELETE", f"/images/{part(tag)}")
        if answer.status in (404, 409) or "in use" in answer.message:
            return answer.status == 404
        _need(answer, "remove an image")
        return True


def _need(answer: Answer, what: str) -> None:
    if not answer.is_good:
        raise Unavailable("runtime.engine_failed", f"the engine cannot {what}: {answer.message}")


def _failure(reason: str) -> SkerryError:
    if _FULL.search(reason):
        return Unavailable("disk.full", f"the engine has no room for the image: {reason}")
    if re.search(r"connection refused|context canceled|timeout|i/o error|input/output error", reason):
        return Unavailable("runtime.engine_failed", f"the engine cannot load the image: {reason}")
    return Rejected("image.malformed", f"the engine takes it for no image: {reason}")
