"""Where logins live: one private file with a context per hub.

Rules: `$SKERRY_CONFIG`, or else `skerry/config.json` under `$XDG_CONFIG_HOME` or `~/.config`; mode 0600 from
the first byte; replaced as a whole or not at all. For machines: `SKERRY_HUB`, `SKERRY_ROOT` and
`SKERRY_TOKEN_FILE` take the place of a login.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected

_login_hint = "log in first: skerry login URL --root DIGEST"


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One login: the hub's address, what proves that it is the hub, and the token.

    `ca_pem`, `hub_id` and `metadata_root` are of the trust root with the digest `root`; where they are empty, it is
    fetched and checked against that. `metadata_root` is the root of signed metadata that was pinned, as JSON text.
    """

    hub: str
    root: str = ""
    ca_pem: str = ""
    hub_id: str = ""
    metadata_root: str = ""
    token: str = msgspec.field(default="")
    who: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """All logins of a person, and which one is meant when none is named."""

    current: str = ""
    contexts: dict[str, Context] = {}

    def with_context(self, name: str, context: Context) -> Profile:
        """Return the profile with this login, which becomes the current one."""
        return Profile(current=name, contexts={**self.contexts, name: context})


def profile_path(environment: Mapping[str, str]) -> Path:
    """Return where the profile is."""
    if named := environment.get("SKERRY_CONFIG"):
        return Path(named)
    root = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".config"
    return Path(root) / "skerry" / "config.json"


def load_profile(path: Path) -> Profile:
    """Return the profile; an empty one when there is none yet.

    Raises:
        Rejected: it cannot be read (`profile.unreadable`).
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except FileNotFoundError:
        return Profile()
    except (OSError, *UNREADABLE) as error:
        hint = f"mend it, or move it away and log in again: {path}"
        raise Rejected("profile.unreadable", f"{path} cannot be read: {error}", hint=hint) from None


def save_profile(path: Path, profile: Profile) -> None:
    """Write the profile, readable by its owner alone, as a whole or not at all.

    Raises:
        Rejected: it cannot be written (`profile.unwritable`).
    """
    content = msgspec.json.format(msgspec.json.encode(profile), indent=2)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp creates with 0600, so that the token is at no moment readable by others.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise Rejected("profile.unwritable", f"{path} cannot be written: {error}") from error


def choose_context(environment: Mapping[str, str], name: str = "") -> Context:
    """Return the login to use: the environment's, else the one named, else the current one.

    Raises:
        Rejected: there is none, or it is not complete (`profile.no_login`).
    """
    path = profile_path(environment)
    profile = load_profile(path)
    name = name or environment.get("SKERRY_CONTEXT", "")
    hub = environment.get("SKERRY_HUB", "").rstrip("/")
    if hub and not name:
        saved = next((c for c in profile.contexts.values() if c.hub == hub), Context(hub=hub))
        if root := environment.get("SKERRY_ROOT", ""):
            saved = saved if saved.root == root else Context(hub=hub, root=root, token=saved.token)
        if not saved.root:
            hint = f"set SKERRY_ROOT to the digest of its trust root, or {_login_hint}"
            raise Rejected("profile.no_login", f"nothing proves which hub {hub} is", hint=hint)
    elif not profile.contexts:
        raise Rejected("profile.no_login", f"no login in {path}", hint=_login_hint)
    else:
        saved = _named(profile, name)
    if token_file := environment.get("SKERRY_TOKEN_FILE", ""):
        saved = msgspec.structs.replace(saved, token=_read_token(Path(token_file)))
    if not saved.token:
        raise Rejected(
            "profile.no_login", f"no token for {saved.hub}", hint=f"set SKERRY_TOKEN_FILE, or {_login_hint}"
        )
    return saved


def _named(profile: Profile, name: str) -> Context:
    chosen = profile.contexts.get(name or profile.current)
    if chosen is None:
        hint = f"known here: {', '.join(sorted(profile.contexts))}"
        raise Rejected("profile.no_context", f"no context named {name or profile.current!r}", hint=hint)
    return chosen


def _read_token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("profile.no_token", f"SKERRY_TOKEN_FILE cannot be read: {error}") from None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Rejected("profile.no_token", f"{path} does not hold a token and nothing else")
    return token
