"""What is checked and changed in a restored data directory before it gets its name: pure of adapters."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Root

from skerry.hub.keeping import HubKeys, open_keys
from skerry.kit.errors import Untrusted
from skerry.ports.hub_store import Audit, HubStore, Revoked
from skerry.spec.backup import BackupManifest, RestoreMark
from skerry.trust.metadata import desired_keys
from skerry.trust.repository import read_as


def check_keys(folder: Path, manifest: BackupManifest, now: datetime) -> HubKeys:
    """Return the keys of a restored directory.

    Raises:
        Untrusted: they do not belong together, or to the hub that the manifest names (`backup.keys_mixed`).
    """
    keys = open_keys(folder, now)
    try:
        named = {key.keyid for key in desired_keys(read_as(keys.trust_root.root_bytes, Root).signed)}
    except Untrusted as error:
        raise Untrusted("backup.keys_mixed", "the root in this backup is damaged") from error
    if keys.key.key_id not in named or keys.trust_root.hub != manifest.hub:
        raise Untrusted("backup.keys_mixed", "the keys in this backup are not those of its hub")
    if (folder / "tls" / "ca.pem").read_bytes().decode() != keys.trust_root.ca_pem:
        raise Untrusted(
            "backup.keys_mixed", "the certificate authority in this backup is not that of its hub"
        )
    return keys


def mark_of(manifest: BackupManifest, now: datetime) -> RestoreMark:
    """Return the mark of a restore at this moment: its time in seconds is above all numbers of hosts' generations."""
    return RestoreMark(restored_at=now, made_at=manifest.made_at, base=max(0, int(now.timestamp())))


def begin_restored(store: HubStore, mark: RestoreMark, *, revoke_tokens: bool) -> Revoked:
    """Revoke what may have been revoked since the backup, and guard all sites."""
    made = mark.made_at.isoformat(timespec="seconds")
    audit = Audit(
        at=mark.restored_at,
        who="console",
        action="hub.restore",
        subject="hub",
        outcome=f"from a backup of {made}",
    )
    return store.begin_restored(mark, audit, revoke_tokens=revoke_tokens)
