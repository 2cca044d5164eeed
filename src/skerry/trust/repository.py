"""Makes the metadata of a hub's TUF repository: its root, the top-level targets, snapshot and timestamp.

Everything is made unsigned, from values; who holds a key signs. Metadata is written compactly. Versions only rise.
Source: the TUF specification, section 4.

The snapshot lists versions and no hashes: what it lists is signed by keys that it does not hold, and its size is what
a host fetches at each change. What it has listed once it lists for ever, as the specification demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from skerry.kit.editions import plain_release
from skerry.kit.errors import Conflict, Missing, Rejected, Untrusted
from skerry.spec.publishing import Revocation
from skerry.trust.metadata import HUB_FIELD, HubField

ROOT_VALID = timedelta(days=5 * 365)
TARGETS_VALID = timedelta(days=2 * 365)
ONLINE_VALID = timedelta(days=60)
RENEW_ONLINE_BEFORE = timedelta(days=30)
"""Snapshot and timestamp are signed anew when less than this is left: what is carried by hand has half of it."""

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
ROLE_PREFIX = "publisher-"
BIN_PREFIX = "bin-"
_compact = JSONSerializer(compact=True)


class RootKeys(msgspec.Struct, frozen=True):
    """Whose keys a root names: `desired` and `online` are the hub's, the others are kept offline."""

    root: Sequence[Key]
    targets: Sequence[Key]
    online: Key
    desired: Sequence[Key]
    root_threshold: int = 1
    targets_threshold: int = 1


def publisher_role(publisher: str) -> str:
    """Return the name of a publisher's role."""
    return ROLE_PREFIX + publisher


def bin_prefix(publisher: str) -> str:
    """Return how the names of a publisher's bins begin; a hyphen and hexadecimal digits follow."""
    return BIN_PREFIX + publisher


def publisher_of(role: str) -> str:
    """Return whose role or bin this is; empty for one of the top level."""
    if role.startswith(ROLE_PREFIX):
        return role.removeprefix(ROLE_PREFIX)
    if role.startswith(BIN_PREFIX):
        return role.removeprefix(BIN_PREFIX).rpartition("-")[0]
    return ""


def target_path(publisher: str, release: str) -> str:
    """Return the target path of a release `application@version`; its editions have no other."""
    return f"releases/{publisher}/{plain_release(release)}.json"


def make_root(hub: str, keys: RootKeys, *, version: int, now: datetime) -> Metadata[Root]:
    """Return a root, not signed yet.

    Raises:
        Rejected: a threshold is below 1 or above the number of keys (`root.threshold`).
    """
    for name, held, threshold in (
        ("root", keys.root, keys.root_threshold),
        ("targets", keys.targets, keys.targets_threshold),
    ):
        check_threshold(f"the {name} role", len({key.keyid for key in held}), threshold)
    every = (*keys.root, *keys.targets, keys.online, *keys.desired)
    return Metadata(
        Root(
            version=version,
            expires=now + ROOT_VALID,
            keys={key.keyid: key for key in every},
            roles={
                "root": Role([key.keyid for key in keys.root], keys.root_threshold),
                "targets": Role([key.keyid for key in keys.targets], keys.targets_threshold),
                "snapshot": Role([keys.online.keyid], 1),
                "timestamp": Role([keys.online.keyid], 1),
            },
            consistent_snapshot=True,
            unrecognized_fields={
                HUB_FIELD: {"hub": hub, "desired": [key.keyid for key in keys.desired]},
            },
        )
    )


def keys_of(root: Root) -> RootKeys:
    """Return whose keys a root names."""
    field = msgspec.convert(root.unrecognized_fields.get(HUB_FIELD), HubField)
    return RootKeys(
        root=[root.keys[name] for name in root.roles["root"].keyids],
        targets=[root.keys[name] for name in root.roles["targets"].keyids],
        online=root.keys[root.roles["timestamp"].keyids[0]],
        desired=[root.keys[name] for name in field.desired],
        root_threshold=root.roles["root"].threshold,
        targets_threshold=root.roles["targets"].threshold,
    )


def check_threshold(what: str, keys: int, threshold: int) -> None:
    """Refuse a threshold that no or too few signatures would reach.

    Raises:
        Rejected: `root.threshold`.
    """
    if not 1 <= threshold <= keys:
        message = f"{what} has {keys} keys; a threshold of {threshold} does not fit"
        raise Rejected("root.threshold", message, hint="name more keys, or a lower threshold")


def first_targets(now: datetime) -> Metadata[Targets]:
    """Return the top-level targets of a repository without publishers, not signed yet."""
    targets = Targets(version=1, expires=now + TARGETS_VALID, targets={}, delegations=Delegations({}, {}))
    _set_revoked(targets, {})
    return Metadata(targets)


def with_publisher(
    content: bytes, publisher: str, keys: Sequence[Key], *, threshold: int, now: datetime
) -> Metadata[Targets]:
    """Return the next top-level targets, in which these keys and no others sign a publisher's releases.

    Raises:
        Rejected: the threshold does not fit (`root.threshold`).
        Untrusted: `content` is no targets metadata.
    """
    check_threshold(f"publisher {publisher}", len({key.keyid for key in keys}), threshold)
    targets = next_of(content, Targets, now + TARGETS_VALID)
    _drop(targets, publisher)
    role = publisher_role(publisher)
    delegations = _delegations(targets)
    roles = dict(delegations.roles or {})
    roles[role] = DelegatedRole(
        role,
        [key.keyid for key in keys],
        threshold,
        terminating=True,
        paths=[f"releases/{publisher}/*"],
    )
    targets.delegations = Delegations(delegations.keys | {key.keyid: key for key in keys}, roles)
    revoked = revoked_publishers(targets)
    revoked.pop(publisher, None)
    _set_revoked(targets, revoked)
    return Metadata(targets)


def without_publisher(
    content: bytes, publisher: str, revocation: Revocation, now: datetime
) -> Metadata[Targets]:
    """Return the next top-level targets, in which a publisher's releases are trusted no more.

    Raises:
        Missing: there is no such publisher (`publisher.missing`).
        Untrusted: `content` is no targets metadata.
    """
    targets = next_of(content, Targets, now + TARGETS_VALID)
    if publisher_role(publisher) not in (_delegations(targets).roles or {}):
        hint = "skerry publisher list shows them"
        raise Missing("publisher.missing", f"there is no publisher {publisher}", hint=hint)
    _drop(targets, publisher)
    _set_revoked(targets, revoked_publishers(targets) | {publisher: revocation})
    return Metadata(targets)


def revoked_publishers(targets: Targets) -> dict[str, Revocation]:
    """Return which publishers were revoked, and why."""
    try:
        field = msgspec.convert(targets.unrecognized_fields.get(HUB_FIELD, {}), _TargetsField)
    except msgspec.ValidationError:
        return {}
    return dict(field.revoked)


def publishers_of(targets: Targets) -> dict[str, DelegatedRole]:
    """Return the delegation to each publisher, by the publisher's name."""
    roles = _delegations(targets).roles or {}
    return {
        name.removeprefix(ROLE_PREFIX): role for name, role in roles.items() if name.startswith(ROLE_PREFIX)
    }


def make_snapshot(
    versions: Mapping[str, int], *, version: int, now: datetime, valid: timedelta = ONLINE_VALID
) -> Metadata[Snapshot]:
    """Return a snapshot of these versions of roles, not signed yet."""
    meta = {f"{role}.json": MetaFile(number) for role, number in sorted(versions.items())}
    return Metadata(Snapshot(version=version, expires=now + valid, meta=meta))


def make_timestamp(
    snapshot: int, *, version: int, now: datetime, valid: timedelta = ONLINE_VALID
) -> Metadata[Timestamp]:
    """Return a timestamp that names a snapshot's version, not signed yet."""
    return Metadata(Timestamp(version=version, expires=now + valid, snapshot_meta=MetaFile(snapshot)))


def snapshot_versions(snapshot: Snapshot) -> dict[str, int]:
    """Return the version of each role that a snapshot lists."""
    return {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}


def sign(metadata: Metadata[Any], signers: Iterable[Signer]) -> bytes:
    """Return the bytes of metadata with these signatures, in addition to those it has."""
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(_compact)


def to_bytes(metadata: Metadata[Any]) -> bytes:
    """Return the bytes of metadata with the signatures it has."""
    return metadata.to_bytes(_compact)


def read_as(content: bytes, kind: type[Signed]) -> Metadata[Any]:
    """Return metadata of a type, whoever signed it.

    Raises:
        Untrusted: it is none (`metadata.malformed`).
    """
    try:
        metadata: Metadata[Any] = Metadata[Any].from_bytes(content)
    except (RepositoryError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted("metadata.malformed", f"not metadata: {str(error)[:200]}") from error
    if not isinstance(metadata.signed, kind):
        raise Untrusted("metadata.malformed", f"this is {metadata.signed.type} metadata, not {kind.type}")
    return metadata


def signed_by(metadata: Metadata[Any], keys: Iterable[Key]) -> set[str]:
    """Return the ids of those of `keys` that signed."""
    content = metadata.signed_bytes
    found: set[str] = set()
    for key in keys:
        signature = metadata.signatures.get(key.keyid)
        if signature is None:
            continue
        try:
            key.verify_signature(signature, content)
        except (UnverifiedSignatureError, VerificationError):
            continue
        found.add(key.keyid)
    return found


def next_of(content: bytes, kind: type[Any], expires: datetime) -> Any:
    """Return the signed part of metadata, to be changed: one version on, with a new expiry."""
    signed = read_as(content, kind).signed
    signed.version += 1
    signed.expires = expires.replace(microsecond=0)
    return signed


def require_newer(role: str, *, held: int, given: int) -> None:
    """Refuse metadata that does not follow on what is held.

    Raises:
        Conflict: `metadata.not_next`.
    """
    if given <= held:
        hint = "somebody else has published in between: fetch the newest, and sign again"
        raise Conflict(
            "metadata.not_next", f"{role} is at version {held}, this is {given}", hint=hint, held=held
        )


class _TargetsField(msgspec.Struct, frozen=True):
    role: str = Targets.type
    revoked: Mapping[str, Revocation] = {}


def _delegations(targets: Targets) -> Delegations:
    return targets.delegations or Delegations({}, {})


def _drop(targets: Targets, publisher: str) -> None:
    """Take a publisher's delegation away, and keys that nobody else needs."""
    delegations = _delegations(targets)
    roles = {
        name: role for name, role in (delegations.roles or {}).items() if name != publisher_role(publisher)
    }
    used = {keyid for role in roles.values() for keyid in role.keyids}
    targets.delegations = Delegations({k: v for k, v in delegations.keys.items() if k in used}, roles)


def _set_revoked(targets: Targets, revoked: Mapping[str, Revocation]) -> None:
    field = _TargetsField(revoked=revoked)
    targets.unrecognized_fields[HUB_FIELD] = msgspec.to_builtins(field, str_keys=True)
