"""Root ceremonies, with files alone: the next root, the next targets, signatures to them, and whether they suffice.

A file under way is metadata with the signatures it has so far. Beside it is `FILE.root`, the root whose keys count for
it: for a root the one before, for targets the one that goes with them. A root is signed by enough keys of the one
before and by enough of its own. Nothing here speaks to a hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Key, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Rejected, SkerryError, Untrusted
from skerry.spec.publishing import HubKeysFile
from skerry.trust.metadata import ROOT_BYTES, TARGETS_BYTES, hub_field
from skerry.trust.repository import (
    TARGETS_VALID,
    RootKeys,
    keys_of,
    make_root,
    next_of,
    read_as,
    signed_by,
    to_bytes,
)

LEAST_ID = 8
"""How much of a key's id tells it apart on a command line, at least."""


class RootChange(msgspec.Struct, frozen=True):
    """What is to be different in the next root. Ids may be cut to `LEAST_ID` digits; None leaves a threshold."""

    add: Sequence[SSlibKey] = ()
    remove: Sequence[str] = ()
    add_targets: Sequence[SSlibKey] = ()
    remove_targets: Sequence[str] = ()
    threshold: int | None = None
    targets_threshold: int | None = None
    hub: HubKeysFile | None = None


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures a file needs: `threshold` of `keys`, and which of them it has."""

    whose: str
    threshold: int
    keys: tuple[str, ...]
    signed: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many signatures are still missing."""
        return max(0, self.threshold - len(self.signed))


def next_root(before: Root, change: RootChange, now: datetime) -> Metadata[Root]:
    """Return the root that follows, not signed yet.

    Raises:
        Rejected: a key is not there or is there already (`root.key`), or a threshold does not fit (`root.threshold`).
        Untrusted: `before` is the root of no hub (`metadata.no_hub`).
    """
    hub, held = hub_field(before).hub, keys_of(before)
    online, desired = (held.online, held.desired) if change.hub is None else _hub_keys(change.hub)
    keys = RootKeys(
        root=_changed("root", held.root, change.add, change.remove),
        targets=_changed("targets", held.targets, change.add_targets, change.remove_targets),
        online=online,
        desired=desired,
        root_threshold=held.root_threshold if change.threshold is None else change.threshold,
        targets_threshold=(
            held.targets_threshold if change.targets_threshold is None else change.targets_threshold
        ),
    )
    return make_root(hub, keys, version=before.version + 1, now=now)


def next_targets(content: bytes, now: datetime) -> Metadata[Targets]:
    """Return the same targets one version on, with a later expiry, not signed yet.

    Raises:
        Untrusted: `content` is no targets metadata.
    """
    return Metadata(next_of(content, Targets, now + TARGETS_VALID))


def targets_keys_differ(before: Root, after: Root) -> bool:
    """Tell whether targets that were signed for one root may not hold with the other."""
    one, other = before.roles[Targets.type], after.roles[Targets.type]
    return set(one.keyids) != set(other.keyids) or one.threshold < other.threshold


def hub_keys_differ(before: Root, after: Root) -> bool:
    """Tell whether the hub itself has other keys in one root than in the other."""
    one, other = keys_of(before), keys_of(after)
    return one.online.keyid != other.online.keyid or {key.keyid for key in one.desired} != {
        key.keyid for key in other.desired
    }


def read_file(path: Path) -> Metadata[Any]:
    """Return the root or targets metadata of a file.

    Raises:
        Rejected: it cannot be read, or is neither (`root.unreadable`).
    """
    content = read_bytes(path)
    for kind in (Root, Targets):
        try:
            return read_as(content, kind)
        except Untrusted:
            continue
    raise Rejected("root.unreadable", f"{path} is neither a root nor targets metadata")


def read_root(path: Path) -> tuple[Root, bytes]:
    """Return a root, whoever signed it; of a trust root the one in it.

    Raises:
        Rejected: it is none (`root.unreadable`).
    """
    content = read_bytes(path)
    try:
        whole = msgspec.json.decode(content, type=dict[str, Any])
        if whole.get("type") == "trust-root":
            content = msgspec.json.encode(whole.get("root"))
        return read_as(content, Root).signed, content
    except (SkerryError, *UNREADABLE) as error:
        raise Rejected("root.unreadable", f"{path} is not a root") from error


def read_hub_keys(path: Path) -> HubKeysFile:
    """Return the public keys of a hub: from its `hub-keys.json`, its trust root, or a root.

    Raises:
        Rejected: they are not there (`root.unreadable`).
    """
    try:
        root, _ = read_root(path)
        keys = keys_of(root)
        every = {key.keyid: key.to_dict() for key in (keys.online, *keys.desired)}
        desired = tuple(key.keyid for key in keys.desired)
        return HubKeysFile(online=keys.online.keyid, desired=desired, keys=every)
    except (SkerryError, msgspec.ValidationError, KeyError):
        pass
    try:
        return msgspec.json.decode(read_bytes(path), type=HubKeysFile)
    except UNREADABLE as error:
        raise Rejected("root.unreadable", f"{path} does not hold a hub's public keys") from error


def read_bytes(path: Path) -> bytes:
    """Return a file's content, of at most what metadata may have.

    Raises:
        Rejected: `root.unreadable`.
    """
    limit = max(ROOT_BYTES, TARGETS_BYTES)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Rejected("root.unreadable", f"{path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise Rejected("root.unreadable", f"{path} is too large to be metadata")
    return content


def beside(path: Path) -> Path:
    """Return where the root is whose keys count for a file."""
    return path.with_name(path.name + ".root")


def write_work(path: Path, made: Metadata[Any], root: bytes) -> None:
    """Write a file to be signed, and beside it the root whose keys count.

    Raises:
        Conflict: one of them is there already (`root.exists`): signatures might be lost.
    """
    for file in (path, beside(path)):
        if file.exists():
            raise Conflict("root.exists", f"{file} is there already", hint="choose another name")
    write_file(beside(path), root, mode=0o644)
    write_file(path, to_bytes(made), mode=0o644)


def needed(made: Metadata[Any], root: Root | None) -> tuple[Needed, ...]:
    """Return whose signatures a file needs; `root` is the one whose keys count, besides a root's own.

    Raises:
        Rejected: it is not the root that goes with the file (`root.other`).
    """
    found: list[Needed] = []
    if root is not None:
        if isinstance(made.signed, Root) and root.version + 1 != made.signed.version:
            message = (
                f"root {made.signed.version} follows on {made.signed.version - 1}, not on {root.version}"
            )
            raise Rejected("root.other", message, hint="name the one before with --root")
        whose = f"root {root.version}" if isinstance(made.signed, Root) else f"targets of root {root.version}"
        found.append(_needed(whose, made, root, made.signed.type))
    if isinstance(made.signed, Root):
        found.append(_needed(f"root {made.signed.version}", made, made.signed, Root.type))
    return tuple(found)


def counting_keys(made: Metadata[Any], root: Root | None) -> list[Key]:
    """Return the keys whose signatures count for a file."""
    every: dict[str, Key] = {}
    for delegator in (root, made.signed if isinstance(made.signed, Root) else None):
        if delegator is not None:
            for name in delegator.roles[made.signed.type].keyids:
                every[name] = delegator.keys[name]
    return list(every.values())


def require_signed(role: str, delegator: Root, made: Metadata[Any]) -> None:
    """Refuse a file that too few of a root's keys signed.

    Raises:
        Untrusted: `metadata.bad_signature`.
    """
    try:
        delegator.verify_delegate(role, made.signed_bytes, made.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        held = delegator.roles[role]
        count = len(signed_by(made, [delegator.keys[name] for name in held.keyids]))
        message = (
            f"{role} {made.signed.version} needs {held.threshold} signatures for root {delegator.version}"
        )
        hint = "skerry root sign adds one"
        raise Untrusted("metadata.bad_signature", f"{message}, and has {count}", hint=hint) from error


def _needed(whose: str, made: Metadata[Any], delegator: Root, role: str) -> Needed:
    held = delegator.roles[role]
    keys = [delegator.keys[name] for name in held.keyids if name in delegator.keys]
    return Needed(
        whose=whose,
        threshold=held.threshold,
        keys=tuple(key.keyid for key in keys),
        signed=tuple(sorted(signed_by(made, keys))),
    )


def _changed(what: str, held: Sequence[Key], add: Sequence[SSlibKey], remove: Sequence[str]) -> list[Key]:
    gone = {_find(what, held, name) for name in remove}
    kept = [key for key in held if key.keyid not in gone]
    there = {key.keyval.get("public") for key in kept}
    for key in add:
        if key.keyval["public"] in there:
            raise Rejected("root.key", f"the {what} role has the key {key.keyid[:12]} already")
        there.add(key.keyval["public"])
        kept.append(key)
    return kept


def _find(what: str, held: Sequence[Key], name: str) -> str:
    found = [key.keyid for key in held if key.keyid.startswith(name)]
    if len(name) < LEAST_ID or len(found) != 1:
        known = ", ".join(key.keyid[:16] for key in held)
        hint = f"name {LEAST_ID} digits of one of: {known}"
        raise Rejected("root.key", f"the {what} role has no one key {name[:80]!r}", hint=hint)
    return found[0]


def _hub_keys(file: HubKeysFile) -> tuple[Key, list[Key]]:
    try:
        keys = {name: Key.from_dict(name, dict(held)) for name, held in file.keys.items()}
        return keys[file.online], [keys[name] for name in file.desired]
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("root.unreadable", "the hub's keys cannot be read") from error
