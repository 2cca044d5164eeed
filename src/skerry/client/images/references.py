"""Names of images in registries: `docker://REGISTRY/NAME[:TAG][@sha256:...]`.

What is left out is filled in as engines do: no registry means Docker Hub, one word there means `library/`, no tag
means `latest`. Grammar: distribution/reference and the OCI distribution specification 1.1.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from skerry.kit.errors import Rejected

DOCKER_HUB = "docker.io"
_host_re = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$")
_repository_re = re.compile(
    r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$"
)
_tag_re = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
_digest_re = re.compile(r"^sha256:[0-9a-f]{64}$")


class Reference(msgspec.Struct, frozen=True):
    """One image in a registry; `digest` counts for more than `tag`."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def text(self) -> str:
        """As people write it."""
        pinned = f"@{self.digest}" if self.digest else ""
        return f"docker://{self.registry}/{self.repository}:{self.tag}{pinned}"

    @property
    def version(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag

    @property
    def host(self) -> str:
        """Where its API is."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine."""
        name = self.registry.rpartition(":")[0] if _has_port(self.registry) else self.registry
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False


def parse_reference(text: str) -> Reference:
    """Return the image that a text such as `registry.example.org/team/app:1.2` names.

    Raises:
        Rejected: it names none (`image.reference`).
    """
    rest, _, digest = text.partition("@")
    registry, slash, path = rest.partition("/")
    if not slash or not (set(registry) & {".", ":"} or registry == "localhost"):
        registry, path = DOCKER_HUB, rest
    repository, colon, tag = path.partition(":")
    if registry in (DOCKER_HUB, "index.docker.io"):
        registry, repository = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    parts_fit = _host_re.match(registry) and _repository_re.match(repository) and len(repository) <= 255
    if not parts_fit or (colon and not _tag_re.match(tag)) or ("@" in text and not _digest_re.match(digest)):
        hint = "write docker://REGISTRY/NAME:TAG or docker://REGISTRY/NAME@sha256:DIGEST"
        raise Rejected("image.reference", f"not the name of an image: {text[:200]!r}", hint=hint)
    return Reference(registry, repository, tag or "latest", digest)


def _has_port(registry: str) -> bool:
    return bool(re.search(r":[0-9]{1,5}$", registry)) and not re.fullmatch(
        r"[0-9a-fA-F:]*:[0-9a-fA-F:]*:.*", registry
    )
