"""Images of the engine on this machine, through the Docker-compatible API on its Unix socket.

`GET /images/NAME/json` says which image a name means now; when the cache holds all of it, nothing is exported.
`GET /images/NAME/get` exports it as `docker save` does (Docker Engine API 1.41; Podman answers alike).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx2
import msgspec

from skerry.client.images.archives import opened_archive, read_saved
from skerry.client.images.assembly import Assembly, PlatformImage
from skerry.client.images.limits import MAX_DOCUMENT_BYTES, ImageProgress
from skerry.client.images.manifests import parse_configuration
from skerry.client.images.platforms import Platform
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Missing, Rejected, Unavailable

_CONNECT_LIMIT_S = 10.0
_ANSWER_LIMIT_S = 600.0
"""An engine may write the whole archive to its own disk before the first byte comes."""


class _Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    id: str = ""


def socket_paths(environment: Mapping[str, str]) -> list[Path]:
    """Return the sockets where an engine may be, the likeliest first.

    Raises:
        Rejected: DOCKER_HOST names an engine elsewhere (`image.engine_remote`).
    """
    if host := environment.get("DOCKER_HOST", ""):
        if not host.startswith("unix://"):
            hint = "push the image to a registry and name it as docker://"
            raise Rejected("image.engine_remote", f"DOCKER_HOST={host}: only unix:// is possible", hint=hint)
        return [Path(host.removeprefix("unix://"))]
    paths = [Path("/run/podman/podman.sock"), Path("/var/run/docker.sock")]
    if runtime := environment.get("XDG_RUNTIME_DIR", ""):
        paths.insert(0, Path(runtime) / "podman" / "podman.sock")
    return paths


def read_engine(
    name: str, assembly: Assembly, *, environment: Mapping[str, str], wanted: Platform | None = None
) -> list[PlatformImage]:
    """Return an image of the first engine on this machine that has it.

    Raises:
        Missing: no engine has it (`image.not_in_engine`).
        Unavailable: no engine answers (`image.no_engine`).
    """
    paths = socket_paths(environment)
    asked: list[str] = []
    failures: list[str] = []
    for path in paths:
        try:
            _knock(path)
            with _client(path) as client:
                image = _read(client, name, assembly, wanted)
        except (OSError, httpx2.HTTPError) as error:
            failures.append(f"{path}: {error}")
            continue
        if image is not None:
            return image
        asked.append(str(path))
    if asked:
        hint = f"asked at {', '.join(asked)}; build or pull it first"
        raise Missing("image.not_in_engine", f"no engine here has the image {name}", hint=hint)
    hint = "start podman.socket or docker, or name it with DOCKER_HOST=unix://PATH"
    raise Unavailable("image.no_engine", f"no engine answers: {'; '.join(failures)}", hint=hint)


def _knock(path: Path) -> None:
    """Raise OSError when nobody listens at a socket; httpcore would leave its own open."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(_CONNECT_LIMIT_S)
        trial.connect(str(path))


def _client(path: Path) -> httpx2.Client:
    return httpx2.Client(
        transport=httpx2.HTTPTransport(uds=str(path)),
        base_url="http://engine",
        trust_env=False,
        timeout=httpx2.Timeout(_ANSWER_LIMIT_S, connect=_CONNECT_LIMIT_S),
    )


def _read(
    client: httpx2.Client, name: str, assembly: Assembly, wanted: Platform | None
) -> list[PlatformImage] | None:
    quoted = quote(name, safe="/:@")
    label = f"engine:{name}"
    with client.stream("GET", f"/images/{quoted}/json") as response:
        if response.status_code == 404:
            return None
        content = _bounded(response, label)
    if not wanted and (held := _held(content, assembly, label)):
        return [held]
    with client.stream("GET", f"/images/{quoted}/get") as response:
        if response.status_code != 200:
            reason = _bounded(response, label).decode(errors="replace")[:300]
            raise Unavailable("image.engine_failed", f"{label}: HTTP {response.status_code}: {reason}")
        chunks = _told(response.iter_raw(1 << 20), label, assembly.on_progress)
        with (
            assembly.cache.spool(chunks) as (path, _),
            opened_archive(path, assembly, name=label, stays=False) as archive,
        ):
            return read_saved(archive, assembly, wanted=wanted)


def _held(content: bytes, assembly: Assembly, label: str) -> PlatformImage | None:
    """Return the image when the cache has its configuration and all its layers."""
    try:
        identity = msgspec.json.decode(content, type=_Inspected).id
    except UNREADABLE:
        return None
    digest = identity if identity.startswith("sha256:") else f"sha256:{identity}"
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return None  # an engine that knows images otherwise
    configuration = assembly.document(digest)
    if configuration is None:
        return None
    return assembly.held(configuration, parse_configuration(configuration, where=label), name=label)


def _told(
    chunks: Iterator[bytes], label: str, on_progress: Callable[[ImageProgress], None]
) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        on_progress(ImageProgress("read", label, done))
        yield chunk


def _bounded(response: httpx2.Response, label: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_raw(1 << 16):
        content += chunk
        if len(content) > MAX_DOCUMENT_BYTES:
            raise Unavailable("image.engine_failed", f"{label}: the engine's answer is too long")
    return bytes(content)
