"""A hub's repository in memory, with publishers who sign, and hosts that follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Key
from tuf.api.metadata import Delegations, Metadata, SuccinctRoles, Targets

from skerry.spec.publishing import Revocation, TargetCustom
from skerry.trust.acceptance import Accepted, OwnKeys, accept
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import (
    HUB_FIELD,
    Keep,
    Local,
    Remote,
    Step,
    TargetFound,
    Trusted,
    find_target,
    load_kept,
    refresh,
    run_steps,
)
from skerry.trust.publishers import (
    Holders,
    Shelf,
    Unsigned,
    add_release,
    revoke_release,
    sign_anew,
    target_of,
)
from skerry.trust.repository import (
    RootKeys,
    bin_prefix,
    first_targets,
    make_root,
    make_snapshot,
    make_timestamp,
    publisher_role,
    sign,
    target_path,
    with_publisher,
    without_publisher,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
REVOKED = Revocation(why="a flaw", at=NOW)
KEYS = [SigningKey(Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32)) for seed in range(1, 13)]
"""The same in every process: what is found once can be shown again."""


def verifiers(keys: Sequence[SigningKey]) -> list[Key]:
    return [key.verifier for key in keys]


def document(publisher: str, release: str) -> bytes:
    return f"the release {release} of {publisher}".encode()


def target_for(publisher: str, release: str, content: bytes | None = None) -> Any:
    """Return what is signed of a release."""
    application, _, version = release.partition("@")
    body = document(publisher, release) if content is None else content
    custom = TargetCustom(application=application, version=version)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    return target_of(body, digest, custom, target_path(publisher, release))


class World:
    """`roles` has the newest bytes by role, `files` what hosts may ask for; `given` who signs for a publisher."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.root_keys, self.targets_keys, self.online, self.desired = KEYS[:2], KEYS[2:4], KEYS[4], KEYS[5]
        self.own = OwnKeys("hub-1", self.online.key_id, self.desired.key_id)
        self.roles: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.files: dict[str, bytes] = {}
        self.holders: dict[str, list[SigningKey]] = {}
        self._snapshot = 0
        self._store("root", 1, sign(self.next_root(1), self.signers(self.root_keys)))
        self._store("targets", 1, sign(first_targets(now), self.signers(self.targets_keys)))
        self.first_root = self.roles["root"]
        self.publish()

    def next_root(self, version: int, **changes: Any) -> Metadata[Any]:
        """Return a root that is not signed yet."""
        keys: dict[str, Any] = {
            "root": verifiers(self.root_keys),
            "targets": verifiers(self.targets_keys),
            "online": self.online.verifier,
            "desired": [self.desired.verifier],
        }
        return make_root("hub-1", RootKeys(**(keys | changes)), version=version, now=self.now)

    def signers(self, keys: Sequence[SigningKey]) -> list[Any]:
        return [key.signer for key in keys]

    def shelf(self, publisher: str) -> Shelf:
        return Shelf(publisher, self.roles.get)

    def holder(self, publisher: str) -> Holders:
        return Holders(verifiers(self.holders[publisher]), len(self.holders[publisher]))

    def offer(self, given: Mapping[str, bytes]) -> Accepted:
        """Offer metadata to the hub; what it takes is published."""
        accepted = accept(self.roles.get, given, self.own, self.now)
        for role, (version, content) in accepted.roles.items():
            self._store(role, version, content)
        self.publish()
        return accepted

    def sign_targets(self, metadata: Metadata[Any]) -> dict[str, bytes]:
        return {"targets": sign(metadata, self.signers(self.targets_keys))}

    def sign_roles(self, publisher: str, unsigned: Unsigned) -> dict[str, bytes]:
        signers = self.signers(self.holders[publisher])
        return {role: sign(metadata, signers) for role, metadata in unsigned.items()}

    def add_publisher(self, publisher: str, keys: Sequence[SigningKey] = ()) -> None:
        """Let keys sign for a publisher; the first time, or in the place of those before."""
        self.holders[publisher] = list(keys) or [KEYS[6]]
        holders = self.holder(publisher)
        targets = with_publisher(
            self.roles["targets"], publisher, holders.keys, threshold=holders.threshold, now=self.now
        )
        given = self.sign_targets(targets)
        if publisher_role(publisher) in self.roles:
            again = sign_anew(self.shelf(publisher), holders=holders, now=self.now)
            given |= self.sign_roles(publisher, again)
        self.offer(given)

    def drop_publisher(self, publisher: str) -> None:
        self.offer(self.sign_targets(without_publisher(self.roles["targets"], publisher, REVOKED, self.now)))

    def signed_release(self, publisher: str, release: str, content: bytes | None = None) -> dict[str, bytes]:
        target = target_for(publisher, release, content)
        holders = self.holder(publisher)
        return self.sign_roles(
            publisher, add_release(self.shelf(publisher), release, target, holders=holders, now=self.now)
        )

    def push(self, publisher: str, release: str) -> set[str]:
        """Publish a release; return which roles were signed."""
        given = self.signed_release(publisher, release)
        self.offer(given)
        return set(given)

    def revoke(self, publisher: str, release: str) -> None:
        holders = self.holder(publisher)
        unsigned = revoke_release(self.shelf(publisher), release, REVOKED, holders=holders, now=self.now)
        self.offer(self.sign_roles(publisher, unsigned))

    def fill(self, publisher: str, releases: Sequence[str], *, bits: int = 0) -> None:
        """Store releases as they are after many publications, without making each."""
        found = {target_path(publisher, name): target_for(publisher, name) for name in releases}
        expires = self.now + timedelta(days=365)
        top = Targets(expires=expires, targets={} if bits else found)
        parts = {publisher_role(publisher): top}
        if bits:
            holders = self.holder(publisher)
            ids = [key.keyid for key in holders.keys]
            bins = SuccinctRoles(ids, holders.threshold, bits, bin_prefix(publisher))
            top.delegations = _succinct(holders, bins)
            parts |= {name: Targets(expires=expires) for name in bins.get_roles()}
            for path, target in found.items():
                parts[bins.get_role_for_target(path)].targets[path] = target
        for role, part in parts.items():
            part.unrecognized_fields[HUB_FIELD] = {"role": role}
        unsigned: Unsigned = {role: Metadata(part) for role, part in parts.items()}
        for role, content in self.sign_roles(publisher, unsigned).items():
            self._store(role, 1, content)
        self.publish()

    def publish(self) -> None:
        """Sign a snapshot of everything, and a timestamp."""
        self._snapshot += 1
        number, by = self._snapshot, [self.online.signer]
        versions = {role: version for role, version in self.versions.items() if role != "root"}
        self.files[f"{number}.snapshot.json"] = sign(
            make_snapshot(versions, version=number, now=self.now), by
        )
        self.files["timestamp.json"] = sign(make_timestamp(number, version=number, now=self.now), by)

    def _store(self, role: str, version: int, content: bytes) -> None:
        self.roles[role], self.versions[role] = content, version
        self.files[f"{version}.{role}.json"] = content


def _succinct(holders: Holders, bins: SuccinctRoles) -> Delegations:
    return Delegations({key.keyid: key for key in holders.keys}, succinct_roles=bins)


class FollowingHost:
    """Follows a world: `kept` is what it has on disk, `asked` what it fetched, `served` what it got instead."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pinned = world.first_root
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.served: dict[str, bytes | None] = {}

    def answer(self, step: Step) -> bytes | None:
        match step:
            case Local(name):
                return self.kept.get(name)
            case Remote(name, max_bytes):
                self.asked.append(name)
                content = self.served.get(name, self.world.files.get(name))
                assert content is None or len(content) <= max_bytes, f"{name}: {len(content)} bytes"
                return content
            case Keep(name, content):
                self.kept[name] = content
                return None

    def refresh(self, now: datetime | None = None) -> Trusted:
        self.asked.clear()
        return run_steps(refresh(self.pinned, now=now or self.world.now), self.answer)

    def load(self) -> Trusted:
        self.asked.clear()
        return run_steps(load_kept(self.pinned), self.answer)

    def find(self, publisher: str, release: str, trusted: Trusted | None = None) -> TargetFound | None:
        path = target_path(publisher, release)
        return run_steps(find_target(trusted or self.refresh(), path), self.answer)
