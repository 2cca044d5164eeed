"""A hub's data directory with something in it; as a program, one that is backed up or restored to be killed.

Usage: hub_to_back_up.py backup|restore DATA FILE
"""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from skerry.adapters.hub_backup import BackupJob, back_up
from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.keeping import open_keys, open_server_certificate
from skerry.hub.repository import Repository
from skerry.hub.wiring import console
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of, hex_of
from skerry.ports.hub_store import Audit, HostRecord, JoinTokenRecord, ReleaseRecord, TokenRecord
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component
from skerry.spec.backup import BackupView
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.site import Site, SiteSpec
from skerry.testing.clock import SimulatedClock
from skerry.trust import backup as form
from skerry.trust.backup import Opening

SECRET = "correct horse battery"
LOCK = form.passphrase_lock(bytes(16), log_n=10)
KEY = form.passphrase_key(LOCK, SECRET)
NOW = datetime.now(UTC)


def put_blob(data: Path, content: bytes) -> str:
    """Put a blob where the hub keeps it."""
    digest = digest_of(content)
    name = hex_of(digest)
    path = data / "blobs" / "sha256" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def make_hub(data: Path, *, blobs: int = 3, blob_bytes: int = 1000) -> None:
    """Make a data directory with a site, a host, a release, and tokens of all kinds."""
    keys = open_keys(data, NOW)
    open_server_certificate(data, ["localhost"], NOW)
    store = SqlHubStore.open(data / "hub.db")
    Repository(store, keys, SimulatedClock(NOW))
    shutil.rmtree(keys.offline)  # as one does with a hub that is relied on
    audit = Audit(at=NOW, who="ann", action="test", subject="something")
    site = Site(metadata=Metadata(name="zurich"), spec=SiteSpec())
    store.apply_documents(sites={"zurich": encode_canonical(site)}, rollouts=(), audits=())
    for name, once in (("ann", False), ("once", True)):
        store.add_token(
            TokenRecord(id=name, name=name, hash=f"hash-{name}", role="admin", created_at=NOW, once=once),
            audit,
        )
    join = JoinTokenRecord(
        hash="join", site="zurich", created_at=NOW, expires_at=NOW + timedelta(days=1), uses_left=2
    )
    store.add_join_token(join, audit)
    host = HostRecord(name="press", site="zurich", sign_key="s", seal_key="x", enrolled_at=NOW)
    store.enroll_host("join", host, audit)
    for generation in (1, 2, 3):
        store.issue_desired("zurich", generation, b"{}", NOW + timedelta(days=60))
    contents = [b"%04d" % number * (blob_bytes // 4) for number in range(blobs)]
    files = tuple(
        FileSpec(path=f"f{number}", digest=put_blob(data, content), size_bytes=len(content))
        for number, content in enumerate(contents)
    )
    component = Component(name="main", command=("run",), bundle=Bundle(files=files))
    application = Application(
        metadata=Metadata(name="meter"), spec=ApplicationSpec(version="1", components=(component,))
    )
    document = encode_canonical(Release(application=application))
    record = ReleaseRecord(
        name="meter@1",
        application="meter",
        version="1",
        digest=put_blob(data, document),
        document=document,
        size_bytes=blobs * blob_bytes,
        created_at=NOW,
        created_by="ann",
    )
    store.add_release(record, audit)
    store.close()


def job(data: Path, target: Path, *, blobs: bool = True, force: bool = False) -> BackupJob:
    """Return a backup to be made, with a lock that costs little."""
    return BackupJob(
        data=data, target=target, lock=LOCK, key=KEY, now=NOW, version="1", blobs=blobs, force=force
    )


def make_backup(data: Path, target: Path) -> BackupView:
    """Back a directory up."""
    return back_up(job(data, target), lambda _done, _total: None)


def restore(file: Path, data: Path) -> None:
    """Restore a backup."""
    console.restore(
        file,
        data,
        Opening(passphrase=SECRET),
        dry_run=False,
        revoke_tokens=False,
        tell=lambda _done, _total: None,
    )


def main(what: str, data: Path, file: Path) -> None:
    """Say that it begins, do it, say that it is done."""
    os.write(1, b"begin\n")
    if what == "backup":
        back_up(job(data, file, force=True), lambda _done, _total: None)
    else:
        restore(file, data)
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
