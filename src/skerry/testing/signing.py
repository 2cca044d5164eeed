"""Publishers and a repository of signed metadata for tests: the real formats, signed with keys made on the spot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from tuf.api.metadata import Metadata

from skerry.hub.repository import Repository
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import Audit
from skerry.spec.carrier import TrustRoot
from skerry.spec.evidence import Evidence
from skerry.spec.publishing import PublishRequest, Revocation, Running, SignedRole, TargetCustom
from skerry.spec.release import Release
from skerry.trust.keys import SigningKey
from skerry.trust.publishers import Holders, Shelf, add_release, revoke_release, target_of
from skerry.trust.repository import (
    RootKeys,
    first_targets,
    make_root,
    make_snapshot,
    make_timestamp,
    sign,
    target_path,
    with_publisher,
    without_publisher,
)

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
_file_re = re.compile(r"^(?:(\d+)\.)?(.+)\.json$")


class Publisher:
    """A publisher with one key."""

    def __init__(self, name: str = "acme", key: SigningKey | None = None) -> None:
        self.name = name
        self.key = key or SigningKey.generate()

    @property
    def holders(self) -> Holders:
        """Whose signatures count."""
        return Holders([self.key.verifier])

    def vouch(
        self,
        load: Callable[[str], bytes | None],
        release: Release,
        now: datetime,
        *,
        evidence: tuple[Evidence, ...] = (),
    ) -> PublishRequest:
        """Return what is sent to a hub whose newest metadata `load` returns by role."""
        document = encode_canonical(release)
        changed = self.add(Shelf(self.name, load), release, document, now, evidence=evidence)
        signed = tuple(
            SignedRole(role=role, content=sign(metadata, [self.key.signer]))
            for role, metadata in changed.items()
        )
        return PublishRequest(publisher=self.name, document=document, metadata=signed)

    def add(
        self,
        shelf: Shelf,
        release: Release,
        document: bytes,
        now: datetime,
        *,
        evidence: tuple[Evidence, ...] = (),
    ) -> dict[str, Metadata[Any]]:
        """Return what is to be signed to vouch for a release."""
        custom = TargetCustom(
            application=release.application.metadata.name,
            version=release.application.spec.version,
            size_bytes=sum(file.size_bytes for file in release.files()),
            evidence=evidence,
        )
        path = target_path(self.name, release.name)
        target = target_of(document, digest_of(document), custom, path)
        return add_release(shelf, release.name, target, holders=self.holders, now=now)

    def register(self, repository: Repository, now: datetime) -> Publisher:
        """Have a hub know this publisher, with the offline key of its first start."""
        content = repository.load("targets")
        assert content is not None
        targets = with_publisher(content, self.name, [self.key.verifier], threshold=1, now=now)
        signer = repository.keys.targets_key().signer
        audit = Audit(at=now, who="test", action="metadata.publish", subject=f"metadata:{self.name}")
        repository.publish({"targets": sign(targets, [signer])}, audit)
        return self


class SignedRepository:
    """A whole repository in memory, of a hub that is none. Serves its files by name, as a carrier does."""

    def __init__(self, desired: SigningKey, *, now: datetime = LONG_AGO, hub: str = "h") -> None:
        self.now = now
        self.desired = desired
        self.root_key, self.targets_key, self.online = (SigningKey.generate() for _ in range(3))
        self.files: dict[str, bytes] = {}
        self.newest: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.publisher = Publisher()
        self._hub = hub
        self.first_root = self.rotate(version=1)
        self.put({"targets": first_targets(now)}, self.targets_key)
        self.add_publisher(self.publisher)

    def rotate(self, *, version: int, also: tuple[SigningKey, ...] = ()) -> bytes:
        """Make a root with the keys as they are now, signed by the root key and by `also`."""
        keys = RootKeys(
            root=[self.root_key.verifier],
            targets=[self.targets_key.verifier],
            online=self.online.verifier,
            desired=[self.desired.verifier],
        )
        root = make_root(self._hub, keys, version=version, now=self.now)
        content = sign(root, [key.signer for key in (self.root_key, *also)])
        self.files[f"{version}.root.json"] = content
        return content

    def trust_root(self, ca_pem: str = "") -> TrustRoot:
        """Return the trust root with the first root."""
        return TrustRoot(hub=self._hub, ca_pem=ca_pem, root=msgspec.json.decode(self.first_root))

    def file(self, name: str) -> bytes | None:
        """Return a file as upstream would."""
        return self.files.get(name)

    def load(self, role: str) -> bytes | None:
        """Return a role's newest metadata."""
        return self.newest.get(role)

    def add_publisher(self, publisher: Publisher) -> None:
        """Delegate to a publisher."""
        keys = [publisher.key.verifier]
        targets = with_publisher(self.newest["targets"], publisher.name, keys, threshold=1, now=self.now)
        self.put({"targets": targets}, self.targets_key)

    def remove_publisher(self, publisher: Publisher, *, why: str, running: Running = "keep") -> None:
        """Revoke a publisher."""
        revocation = Revocation(why=why, at=self.now, running=running)
        targets = without_publisher(self.newest["targets"], publisher.name, revocation, self.now)
        self.put({"targets": targets}, self.targets_key)

    def vouch(self, release: Release, publisher: Publisher | None = None) -> int:
        """Have a publisher vouch for a release; return the snapshot's version."""
        by = publisher or self.publisher
        changed = by.add(Shelf(by.name, self.load), release, encode_canonical(release), self.now)
        return self.put(changed, by.key)

    def revoke(self, release: str, *, why: str, running: Running = "keep") -> int:
        """Have the publisher revoke a release; return the snapshot's version."""
        by = self.publisher
        revocation = Revocation(why=why, at=self.now, running=running)
        shelf = Shelf(by.name, self.load)
        return self.put(revoke_release(shelf, release, revocation, holders=by.holders, now=self.now), by.key)

    def put(self, changed: Mapping[str, Metadata[Any]], key: SigningKey) -> int:
        """Sign roles and list them in a new snapshot; return its version."""
        for role, metadata in changed.items():
            content = sign(metadata, [key.signer])
            version = int(metadata.signed.version)
            self.newest[role], self.versions[role] = content, version
            self.files[f"{version}.{role}.json"] = content
        number = self.versions.get("snapshot", 0) + 1
        listed = {role: version for role, version in self.versions.items() if role != "snapshot"}
        snapshot = make_snapshot(listed, version=number, now=self.now)
        self.files[f"{number}.snapshot.json"] = sign(snapshot, [self.online.signer])
        self.versions["snapshot"] = number
        stamp = make_timestamp(number, version=number, now=self.now)
        self.files["timestamp.json"] = sign(stamp, [self.online.signer])
        return number
