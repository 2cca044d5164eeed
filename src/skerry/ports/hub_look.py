"""What was found when a hub's data directory was looked over, as values: the hub judges them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from skerry.spec.backup import BackupNote, RestoreMark


class DatabaseLook(msgspec.Struct, frozen=True, kw_only=True):
    """What a database holds. `documents` are the digests of releases, `files` those they name, with their sizes.

    `metadata` says of each signed role until when it holds; of bins, the first of a publisher's.
    """

    sites: dict[str, int]
    held: tuple[str, ...]
    hosts: int
    last_seen_at: datetime | None
    releases: tuple[str, ...]
    documents: dict[str, int]
    files: dict[str, int]
    metadata: dict[str, datetime] = {}


class FileLook(msgspec.Struct, frozen=True, kw_only=True):
    """A file that should be there; `mode` None: it is not. `is_link`: the name leads elsewhere."""

    path: str
    secret: bool
    mode: int | None = None
    is_link: bool = False
    readable: bool = True


class CertificateLook(msgspec.Struct, frozen=True, kw_only=True):
    """When a certificate holds; `problem` says why that cannot be told."""

    name: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    problem: str = ""


class HubLook(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a data directory. `problem` of a database is empty when it is sound.

    `offline_keys` are the files of keys that do not belong on a hub.
    """

    data: str
    now: datetime
    is_hub: bool
    served: bool = False
    directory_mode: int = 0o700
    files: tuple[FileLook, ...] = ()
    certificates: tuple[CertificateLook, ...] = ()
    newest_file_at: datetime | None = None
    disk_bytes: int = 0
    free_bytes: int = 0
    backup: BackupNote | None = None
    restored: RestoreMark | None = None
    database: DatabaseLook | None = None
    database_problem: str = ""
    missing_blobs: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    offline_keys: tuple[str, ...] = ()
