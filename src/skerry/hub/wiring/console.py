"""What is done with a hub's data directory at its console: keys, secrets, backups, and a look at all of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from skerry import __version__
from skerry.adapters.key_file import KeyFile
from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.system_clock import SystemClock
from skerry.hub.rekeying import install_root, make_next_keys
from skerry.hub.restoring import begin_restored, check_keys, mark_of
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.locking import hold
from skerry.ports.hub_store import Audit
from skerry.spec.backup import BackupLock, BackupView, DoctorView, RestoreView
from skerry.spec.publishing import HubKeysFile
from skerry.trust.backup import Lock, Opening


def new_hub_keys(data: Path) -> HubKeysFile:
    """Make the next online keys of a hub, and return their public halves; again gives the same.

    Raises:
        Rejected: no hub was ever served from this directory (`hub.absent`).
    """
    if not (data / "trust-root.json").exists():
        raise Rejected("hub.absent", f"no hub has been served from {data}", hint="run skerry hub serve first")
    return make_next_keys(data)


def install_hub_root(data: Path, root: bytes) -> int:
    """Take a root that names the next online keys, and those keys, into use; return the root's version.

    Raises:
        Conflict: the hub serves (`hub.running`); Missing, Rejected, Untrusted: see `hub.rekeying.install_root`.
    """
    running = Conflict(
        "hub.running", f"a hub serves {data}", hint="stop it first: it has the old keys in memory"
    )
    with (
        hold(data / "hub.lock", conflict=running),
        contextlib.closing(SqlHubStore.open(data / "hub.db")) as store,
    ):
        return install_root(data, store, SystemClock(), root)


def rekey_secrets(data: Path) -> tuple[int, str]:
    """Wrap all stored secrets under a new key; return how many versions that were, and the id of the key.

    Raises:
        Rejected: no hub was ever served from this directory (`hub.absent`).
        Conflict: the hub serves (`hub.running`), or a backup of it is being made (`backup.running`).
        Unavailable: see `skerry.hub.secret_rekeying.rekey`.
    """
    from skerry.adapters.hub_backup import LOCK
    from skerry.hub.secret_rekeying import rekey

    if not (data / "trust-root.json").exists():
        raise Rejected("hub.absent", f"no hub has been served from {data}")
    busy = Conflict("hub.running", f"a hub serves {data}", hint="stop it first: it has the old key in memory")
    backup = Conflict("backup.running", f"a backup of {data} is being made")
    with (
        hold(data / "hub.lock", conflict=busy),
        # A backup has the database of one moment and the keys of a later one.
        hold(data / LOCK, conflict=backup),
        contextlib.closing(SqlHubStore.open(data / "hub.db")) as store,
    ):
        keys = KeyFile.find(data, os.environ)
        audit = Audit(at=SystemClock().now(), who="console", action="secrets.rekey", subject="hub")
        return rekey(store, keys, audit), keys.newest()


def back_up(
    data: Path, target: Path, opening: Lock, *, blobs: bool, force: bool, tell: Callable[[int, int], None]
) -> BackupView:
    """Write a backup of a hub's data directory, also while it is served.

    Raises:
        Rejected, Conflict, Unavailable: see `skerry.adapters.hub_backup.back_up`.
    """
    from skerry.adapters.hub_backup import BackupJob
    from skerry.adapters.hub_backup import back_up as run

    lock, key = _lock(opening)
    now = SystemClock().now()
    job = BackupJob(
        data=data,
        target=target,
        lock=lock,
        key=key,
        now=now,
        version=__version__,
        blobs=blobs,
        force=force,
    )
    return run(job, tell)


def restore(
    file: Path,
    data: Path,
    opening: Opening,
    *,
    dry_run: bool,
    revoke_tokens: bool,
    tell: Callable[[int, int], None],
) -> RestoreView:
    """Restore a backup into a directory that is empty or not there; in a dry run, verify it and write nothing.

    Raises:
        Rejected: it is no backup, or of a newer version.
        Denied, Untrusted: it does not open, or was altered; nothing is there then that was not before.
        Conflict: the directory is in use.
    """
    from skerry.adapters import hub_restore
    from skerry.adapters.backup_archive import open_archive

    if not dry_run:
        hub_restore.refuse_used(data)
    with open_archive(file, opening) as reader:
        manifest = reader.manifest
        if dry_run:
            damaged = hub_restore.verify(reader, tell)
            return RestoreView(manifest=manifest, dry_run=True, damaged=tuple(damaged))
        mark = mark_of(manifest, SystemClock().now())
        with hub_restore.staged(data, mark) as staging:
            damaged = hub_restore.unpack(reader, staging, tell)
            check_keys(staging, manifest, mark.restored_at)
            with contextlib.closing(SqlHubStore.open(staging / "hub.db")) as store:
                revoked = begin_restored(store, mark, revoke_tokens=revoke_tokens)
    return RestoreView(
        manifest=manifest,
        dry_run=False,
        data=str(data),
        join_tokens_revoked=revoked.join_tokens,
        tokens_revoked=revoked.tokens,
        tokens_kept=revoked.kept,
        damaged=tuple(damaged),
    )


def examine(data: Path) -> DoctorView:
    """Look a hub's data directory over, whether it is served or not; nothing in it is changed."""
    from skerry.adapters.hub_look import look_over
    from skerry.hub.doctor import judge

    return judge(look_over(data, SystemClock().now()))


def _lock(opening: Lock) -> tuple[BackupLock, bytes]:
    """Return a fresh lock for a passphrase or a recipient, and the key it leads to."""
    from skerry.trust.backup import (
        KEY_BYTES,
        SALT_BYTES,
        check_passphrase,
        passphrase_key,
        passphrase_lock,
        recipient_lock,
    )

    if opening.recipient:
        key = secrets.token_bytes(KEY_BYTES)
        return recipient_lock(opening.recipient, key), key
    lock = passphrase_lock(secrets.token_bytes(SALT_BYTES))
    return lock, passphrase_key(lock, check_passphrase(opening.passphrase))
