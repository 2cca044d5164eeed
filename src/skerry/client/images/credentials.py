"""Credentials for registries, from the files that Podman, Docker and Skopeo write when one logs in.

Read are, in this order, `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, and
`$XDG_RUNTIME_DIR/containers/auth.json`; the first entry for the registry is taken, one for a narrower path before one
for the whole registry (containers-auth.json(5)). Credential helpers are programs of their own and are not run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from skerry.client.images.references import DOCKER_HUB, Reference
from skerry.client.source_files import open_source
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected

_MAX_FILE_BYTES = 1 << 20


class Credentials(msgspec.Struct, frozen=True):
    """A name with a password, or a token that stands for both; `helper` names a program that would know more."""

    user: str = ""
    password: str = ""
    identity_token: str = ""
    helper: str = ""

    def __repr__(self) -> str:
        """Show nothing that is secret."""
        return f"Credentials(user={self.user!r}, helper={self.helper!r})"

    @property
    def basic(self) -> str:
        """The value of a header for basic authentication (RFC 7617); empty when there are no credentials."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Entry(msgspec.Struct, frozen=True, rename={"identity_token": "identitytoken"}):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = ""


class _AuthFile(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Entry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


def find_credentials(reference: Reference, environment: Mapping[str, str]) -> Credentials:
    """Return what one is logged in with at a registry; empty credentials when one is not.

    Raises:
        Rejected: a file with credentials cannot be read (`image.credentials`).
    """
    helper = ""
    for path in _files(environment):
        stored = _load(path)
        for key in _keys(reference):
            entry = next((entry for name, entry in stored.auths.items() if _plain(name) == key), None)
            found = _credentials(entry, path) if entry else Credentials()
            if found.user or found.identity_token:
                return found
        helper = helper or stored.cred_helpers.get(reference.registry, stored.creds_store)
    return Credentials(helper=helper)


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE", ""):
        yield Path(named)
    home = environment.get("HOME", "")
    if docker := environment.get("DOCKER_CONFIG", "") or (home and f"{home}/.docker"):
        yield Path(docker) / "config.json"
    if runtime := environment.get("XDG_RUNTIME_DIR", ""):
        yield Path(runtime) / "containers" / "auth.json"


def _load(path: Path) -> _AuthFile:
    try:
        with open_source(path) as file:
            return msgspec.json.decode(file.read(_MAX_FILE_BYTES), type=_AuthFile)
    except FileNotFoundError:
        return _AuthFile()
    except (OSError, *UNREADABLE) as error:
        # The error may quote the file, and the file is secret: only its kind is told.
        raise Rejected("image.credentials", f"{path} cannot be read: {type(error).__name__}") from None


def _keys(reference: Reference) -> Iterator[str]:
    parts = reference.repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join((reference.registry, *parts[:count]))
    yield reference.registry
    if reference.registry == DOCKER_HUB:
        yield "index.docker.io"
        yield "registry-1.docker.io"


def _plain(key: str) -> str:
    """Return a key without what Docker writes around a host: `https://index.docker.io/v1/`."""
    return (
        key.removeprefix("https://")
        .removeprefix("http://")
        .rstrip("/")
        .removesuffix("/v1")
        .removesuffix("/v2")
    )


def _credentials(entry: _Entry, path: Path) -> Credentials:
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            user, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Rejected("image.credentials", f"{path} holds an entry that cannot be read") from None
    return Credentials(user=user, password=password.rstrip("\0"), identity_token=entry.identity_token)
