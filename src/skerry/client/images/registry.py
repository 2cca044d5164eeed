"""Images in a registry, by the API of the OCI distribution specification 1.1.

A download that breaks off goes on at the byte where it stopped, at once or in the next push, and is checked as a whole
before anything is unpacked from it. Layers that the cache holds are not asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from skerry.client.images.assembly import Assembly, PlatformImage
from skerry.client.images.credentials import find_credentials
from skerry.client.images.layers import StoredLayer
from skerry.client.images.limits import MAX_DOCUMENT_BYTES, MAX_IMAGE_BYTES, ImageProgress
from skerry.client.images.manifests import Descriptor
from skerry.client.images.platforms import Platform
from skerry.client.images.references import Reference, parse_reference
from skerry.client.images.registry_http import RegistryConnection, bounded
from skerry.client.images.selection import read_images
from skerry.kit.digests import digest_of, digest_of_chunks, parse_digest
from skerry.kit.errors import Rejected, Unavailable

T = TypeVar("T")

_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_READ_BYTES = 1 << 18


def read_registry(
    name: str,
    assembly: Assembly,
    *,
    environment: Mapping[str, str],
    insecure: frozenset[str] = frozenset(),
    wanted: Platform | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[PlatformImage]:
    """Return the images that a name in a registry means now.

    Raises:
        Missing, Denied, Unavailable, Untrusted: the registry does not give it.
        Rejected: the name is none, or what the registry gave is not whole.
    """
    reference = parse_reference(name)
    credentials = find_credentials(reference, environment)
    secure = [] if reference.registry in insecure else [False]
    plain = [True] if reference.registry in insecure or reference.is_loopback else []
    attempts = [*secure, *plain]
    for attempt, is_plain in enumerate(attempts):
        connection = RegistryConnection(reference, credentials, plain=is_plain)
        try:
            source = _Repository(reference, connection, assembly, sleep=sleep)
            try:
                top = source.resolve(patient=attempt == len(attempts) - 1)
            except Unavailable:
                # A registry on this machine may well speak plain HTTP.
                if attempt < len(attempts) - 1:
                    continue
                raise
            return read_images([top], source, assembly, name=reference.text, wanted=wanted)
        finally:
            connection.close()
    raise AssertionError("there is always a last attempt")


class _Repository:
    """The blobs of one repository."""

    def __init__(
        self,
        reference: Reference,
        connection: RegistryConnection,
        assembly: Assembly,
        *,
        sleep: Callable[[float], None],
    ) -> None:
        self._reference = reference
        self._connection = connection
        self._assembly = assembly
        self._sleep = sleep
        self._documents: dict[str, bytes] = {}
        self._failures = 0

    def resolve(self, *, patient: bool) -> Descriptor:
        """Return what the name means now; `patient` tries again while the registry is out of reach.

        Raises:
            Rejected: there is none of that name, or it is not what its digest says.
            Unavailable: the registry is out of reach.
        """
        ask = partial(self._manifest, self._reference.version)
        content = self._retrying(ask) if patient else ask()
        digest = digest_of(content)
        if self._reference.digest and digest != self._reference.digest:
            message = f"{self._reference.text}: the registry answers {digest}"
            raise Rejected("image.digest_mismatch", message, found=digest, expected=self._reference.digest)
        self._documents[digest] = content
        return Descriptor(digest=digest, size=len(content))

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a manifest or a configuration."""
        digest = str(parse_digest(descriptor.digest))
        if digest not in self._documents:
            is_manifest = "manifest" in descriptor.media_type or "index" in descriptor.media_type
            ask = self._manifest if is_manifest else self._small
            self._documents[digest] = self._retrying(lambda: ask(digest))
        return self._documents[digest]

    @contextlib.contextmanager
    def layer(self, descriptor: Descriptor, label: str) -> Generator[StoredLayer]:
        """Download a layer as it is stored, and open it.

        Raises:
            Rejected: it is too large, or not what its digest says.
            Unavailable: the registry is out of reach.
        """
        digest = str(parse_digest(descriptor.digest))
        if not 0 <= descriptor.size <= MAX_IMAGE_BYTES:
            raise Rejected("image.too_large", f"{label}: a layer of {descriptor.size} bytes")
        with self._assembly.cache.partial(digest) as file:
            self._download(descriptor, file, f"{label}: {digest[:19]}")
            yield StoredLayer(file, Path(digest), 0, descriptor.size, stays=False)

    def _download(self, descriptor: Descriptor, file: BinaryIO, label: str) -> None:
        for attempt in range(2):
            fresh = file.seek(0, os.SEEK_END) == 0
            while file.seek(0, os.SEEK_END) < descriptor.size:
                before = file.tell()
                self._retrying(lambda: self._fetch(descriptor, file, label))
                if file.seek(0, os.SEEK_END) <= before:
                    self._wait(Unavailable("image.registry_unreachable", f"{label} stays at byte {before}"))
            found = _digest_of(file)
            if found == descriptor.digest and file.tell() == descriptor.size:
                return
            file.truncate(0)
            # What an earlier push left may be damaged; what came just now was sent so.
            if fresh or attempt:
                message = f"{label}: the registry sent {found}, not {descriptor.digest}"
                raise Rejected("image.digest_mismatch", message, found=found, expected=descriptor.digest)

    def _fetch(self, descriptor: Descriptor, file: BinaryIO, label: str) -> None:
        """Append what the registry sends to a file, from where the file ends."""
        offset = file.seek(0, os.SEEK_END)
        headers = {"range": f"bytes={offset}-"} if offset else {}
        # Compressing a transfer anew would give other bytes than the digest names.
        headers["accept-encoding"] = "identity"
        with self._connection.get(f"blobs/{descriptor.digest}", headers) as response:
            if offset and not _continues(
                response.status_code, response.headers.get("content-range", ""), offset
            ):
                file.truncate(0)
                offset = file.seek(0)
                if response.status_code != 200:
                    return
            # As it comes: what were gathered into larger pieces would be lost with the connection.
            for chunk in response.iter_raw():
                offset += len(chunk)
                if offset > descriptor.size:
                    raise Rejected(
                        "image.digest_mismatch", f"{label}: more than {descriptor.size} bytes came"
                    )
                file.write(chunk)
                self._failures = 0
                self._tell(ImageProgress("download", label, offset, descriptor.size))

    def _manifest(self, version: str) -> bytes:
        with self._connection.get(f"manifests/{version}", {"accept": _ACCEPT}) as response:
            return bounded(response, MAX_DOCUMENT_BYTES)

    def _small(self, digest: str) -> bytes:
        with self._connection.get(f"blobs/{digest}", {}) as response:
            return bounded(response, MAX_DOCUMENT_BYTES)

    def _retrying(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return ask()
            except Unavailable as error:
                self._wait(error)

    def _wait(self, error: Unavailable) -> None:
        if self._failures >= len(_PAUSES_S):
            raise error
        pause_s = _PAUSES_S[self._failures]
        self._failures += 1
        self._tell(ImageProgress("wait", f"{error.message}; trying again in {pause_s:g} s"))
        self._sleep(pause_s)

    def _tell(self, progress: ImageProgress) -> None:
        self._assembly.on_progress(progress)


def _continues(status: int, content_range: str, offset: int) -> bool:
    """Tell whether an answer goes on at an offset (RFC 9110, section 14.4)."""
    match = re.match(r"bytes (\d+)-", content_range)
    return status == 206 and match is not None and int(match[1]) == offset


def _digest_of(file: BinaryIO) -> str:
    file.flush()
    file.seek(0)
    return digest_of_chunks(iter(lambda: file.read(_READ_BYTES), b""))[0]
