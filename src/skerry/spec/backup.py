"""What a backup of a hub says of itself, and what a restored hub remembers of where it comes from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part

MAX_SIZE = 1 << 62
Instant = Annotated[datetime, Meta(tz=True)]

Level = Literal["ok", "warn", "fail"]


class PassphraseLock(Part, frozen=True, kw_only=True, tag_field="lock", tag="passphrase"):
    """The key comes from a passphrase by scrypt with N = 2^log_n. `salt` is base64 of 16 random bytes.

    The bounds keep memory (128 * N * r) below 256 MiB: they are checked before any of it is spent.
    """

    salt: Annotated[str, Meta(min_length=24, max_length=24)]
    log_n: Annotated[int, Meta(ge=10, le=18)]
    r: Annotated[int, Meta(ge=1, le=8)]
    p: Annotated[int, Meta(ge=1, le=4)]


class RecipientLock(Part, frozen=True, kw_only=True, tag_field="lock", tag="recipient"):
    """The key is sealed to an X25519 public key by HPKE. `key_id` names that key, `sealed` is base64."""

    key_id: Annotated[str, Meta(min_length=64, max_length=64)]
    sealed: Annotated[str, Meta(min_length=108, max_length=108)]


BackupLock = PassphraseLock | RecipientLock


class BackupManifest(Part, frozen=True, kw_only=True):
    """What is in a backup. `sites` maps names to generations; `whole` says that all blobs are in it."""

    made_at: Instant
    hub: str
    version: str
    sites: dict[str, int]
    hosts: int
    releases: tuple[str, ...]
    blobs: int
    size_bytes: int
    whole: bool


class BackupEntry(Part, frozen=True, kw_only=True):
    """A file of the data directory; its bytes follow."""

    path: Annotated[str, Meta(min_length=1, max_length=200)]
    size_bytes: Annotated[int, Meta(ge=0, le=MAX_SIZE)]


class BackupNote(Part, frozen=True, kw_only=True):
    """What the data directory remembers of its newest backup."""

    made_at: Instant
    size_bytes: int
    whole: bool


class RestoreMark(Part, frozen=True, kw_only=True):
    """When and from what a hub was restored. What it issues from then on has generations above `base`."""

    restored_at: Instant
    made_at: Instant
    base: Annotated[int, Meta(ge=0, le=MAX_SIZE)]


class BackupView(Part, frozen=True, kw_only=True):
    """A backup that was made. `damaged` blobs are not what their names say, and will not be restored."""

    file: str
    size_bytes: int
    manifest: BackupManifest
    damaged: tuple[str, ...] = ()


class RestoreView(Part, frozen=True, kw_only=True):
    """What is in a backup, and what restoring it did; in a dry run, nothing was done."""

    manifest: BackupManifest
    dry_run: bool
    data: str = ""
    join_tokens_revoked: int = 0
    tokens_revoked: int = 0
    tokens_kept: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class Finding(Part, frozen=True, kw_only=True):
    """One thing that was looked at: how it is, and what to do about it."""

    level: Level
    check: str
    message: str
    hint: str = ""


class DoctorView(Part, frozen=True, kw_only=True):
    """All findings about a hub's data directory; `level` is that of the worst."""

    data: str
    level: Level
    findings: tuple[Finding, ...]
