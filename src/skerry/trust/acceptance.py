"""Whether a hub takes new metadata into its repository, and what follows for releases.

A hub believes no client: everything is verified as a host will verify it, so that no host is ever offered what it
would refuse. Rules: a root names the hub's own keys, or the hub could sign nothing any more; versions rise; a
publisher's delegation covers its own paths and nothing else; a release that is vouched for never changes or vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, SuccinctRoles, TargetFile, Targets

from skerry.kit.errors import Rejected, Untrusted
from skerry.kit.ids import is_name, split_release_name
from skerry.trust.metadata import hub_field
from skerry.trust.publishers import MAX_BITS, Shelf, bin_names, bins_of, custom_of
from skerry.trust.repository import (
    bin_prefix,
    keys_of,
    publisher_of,
    publisher_role,
    publishers_of,
    read_as,
    require_newer,
)

LEAST_VALID = timedelta(days=1)
MOST_VALID = timedelta(days=3660)
MAX_STEP = 1000
"""How far a version may jump: what is at the last number there is could never be signed anew."""

Load = Callable[[str], bytes | None]
"""Returns the newest bytes of a role, None where there is none."""


class OwnKeys(msgspec.Struct, frozen=True):
    """The ids of the keys that this hub signs with."""

    hub: str
    online: str
    desired: str


class Accepted(msgspec.Struct, frozen=True):
    """What may be stored: by role, version and bytes. `publishers` are those of whom something changed."""

    roles: Mapping[str, tuple[int, bytes]]
    publishers: frozenset[str]


def accept(load: Load, given: Mapping[str, bytes], own: OwnKeys, now: datetime) -> Accepted:
    """Return what of new metadata may be stored; all of it or nothing.

    Raises:
        Rejected: it is not what a hub can work with (`metadata.*`).
        Conflict: it does not follow on what is held (`metadata.not_next`).
        Untrusted: not signed by who must sign it (`metadata.bad_signature`), or malformed.
    """
    strange = [role for role in given if role not in ("root", "targets") and not publisher_of(role)]
    if strange:
        raise Rejected("metadata.not_yours", f"{strange[0]} is not a role that anybody sends to a hub")
    roles: dict[str, tuple[int, bytes]] = {}
    root = _root(load)
    if "root" in given:
        root = check_root(root, given["root"], own, now)
        roles["root"] = (root.version, given["root"])
    targets = _targets(load)
    changed: set[str] = {publisher for role in given if (publisher := publisher_of(role))}
    if "targets" in given:
        new = _check_targets(root, targets, given["targets"], now)
        changed |= _redelegated(targets, new)
        roles["targets"] = (new.version, given["targets"])
        targets = new
    elif "root" in given:
        content = load("targets")
        assert content is not None
        _verify(root, "targets", read_as(content, Targets))
    for publisher in sorted(changed):
        own_roles = {role: content for role, content in given.items() if publisher_of(role) == publisher}
        roles |= _check_publisher(targets, Shelf(publisher, load), own_roles, now)
    return Accepted(roles, frozenset(changed))


def check_root(held: Root, content: bytes, own: OwnKeys, now: datetime) -> Root:
    """Return the next root, which both the held one and itself have signed.

    Raises:
        Rejected, Conflict, Untrusted: see `accept`.
    """
    metadata = read_as(content, Root)
    root: Root = metadata.signed
    require_newer("root", held=held.version, given=root.version)
    if root.version != held.version + 1:
        raise Rejected("metadata.gap", f"root {root.version} does not follow on root {held.version}")
    _verify(held, "root", metadata)
    _verify(root, "root", metadata)
    _check_expiry("root", root.expires, now)
    try:
        keys = keys_of(root)
    except (msgspec.ValidationError, KeyError, IndexError) as error:
        raise Rejected("metadata.bad_root", "the root does not name the keys that a hub needs") from error
    desired = {key.keyid for key in keys.desired}
    if hub_field(root).hub != own.hub or own.desired not in desired or keys.online.keyid != own.online:
        hint = "make it from the newest root, with skerry root rotate"
        raise Rejected("metadata.foreign_root", "the root does not name this hub and its keys", hint=hint)
    online = [(root.roles[role].keyids, root.roles[role].threshold) for role in ("snapshot", "timestamp")]
    if not root.consistent_snapshot or online != [([own.online], 1)] * 2:
        raise Rejected("metadata.bad_root", "snapshot and timestamp are to be signed by this hub's key alone")
    return root


def _check_targets(root: Root, held: Targets, content: bytes, now: datetime) -> Targets:
    metadata = read_as(content, Targets)
    targets: Targets = metadata.signed
    _check_number("targets", held=held.version, given=targets.version)
    _verify(root, "targets", metadata)
    _check_expiry("targets", targets.expires, now)
    if targets.targets or (targets.delegations and targets.delegations.succinct_roles):
        raise Rejected(
            "metadata.bad_targets", "the top level delegates to publishers and lists nothing itself"
        )
    for name, role in (targets.delegations.roles or {}).items() if targets.delegations else ():
        publisher = publisher_of(name)
        if name != publisher_role(publisher) or not is_name(publisher):
            raise Rejected("metadata.bad_targets", f"{name} is not the role of a publisher")
        if role.paths != [f"releases/{publisher}/*"] or not role.terminating:
            raise Rejected(
                "metadata.bad_targets", f"{name} must have releases/{publisher}/* and nothing else"
            )
    return targets


def _check_publisher(
    targets: Targets, shelf: Shelf, given: Mapping[str, bytes], now: datetime
) -> dict[str, tuple[int, bytes]]:
    """Check a publisher's role and bins, those given in the place of those held."""
    if shelf.publisher not in publishers_of(targets):
        if given:
            hint = "skerry publisher list shows whom this hub knows"
            raise Rejected("publisher.missing", f"there is no publisher {shelf.publisher}", hint=hint)
        return {}  # revoked
    after = Shelf(shelf.publisher, lambda role: given.get(role) or shelf.load(role))
    content = after.load(shelf.role)
    if content is None:
        if given:
            raise Rejected("metadata.incomplete", f"the role {shelf.role} itself is missing")
        return {}  # new, and has published nothing yet
    top = read_as(content, Targets)
    _verify(targets, shelf.role, top)
    _check_bins(shelf, top.signed)
    needed = {shelf.role, *bin_names(top.signed)}
    if strange := set(given) - needed:
        raise Rejected("metadata.not_yours", f"{min(strange)} is not a role of publisher {shelf.publisher}")
    # A new role may have spread its releases anew, or have other keys: then every bin counts.
    to_verify = needed - {shelf.role} if shelf.role in given else set(given)
    for name in sorted(to_verify):
        held = after.load(name)
        if held is None:
            raise Rejected("metadata.incomplete", f"the bin {name} is missing")
        _verify(top.signed, name, read_as(held, Targets))
    _check_places(after, needed if shelf.role in given else given, bins_of(top.signed))
    # Versions first: of whoever was overtaken, the other's releases seem to have vanished.
    accepted = {name: (_check_version(shelf, name, part, now), part) for name, part in given.items()}
    _check_releases(shelf, after, given)
    return accepted


def _check_bins(shelf: Shelf, top: Targets) -> None:
    bins = bins_of(top)
    if top.delegations is not None and bins is None:
        raise Rejected("metadata.bad_role", f"{shelf.role} may delegate to its bins and to nobody else")
    if bins is not None and (bins.name_prefix != bin_prefix(shelf.publisher) or bins.bit_length > MAX_BITS):
        raise Rejected("metadata.bad_role", f"the bins of {shelf.role} are not as they must be")


def _check_version(shelf: Shelf, role: str, content: bytes, now: datetime) -> int:
    signed = read_as(content, Targets).signed
    before = shelf.read(role)
    _check_number(role, held=before.version if before else 0, given=signed.version)
    _check_expiry(role, signed.expires, now)
    return int(signed.version)


def _check_places(after: Shelf, roles: Iterable[str], bins: SuccinctRoles | None) -> None:
    """Refuse a release that is listed where no host looks for it, or where it would hide another."""
    for role in roles:
        held = after.read(role)
        for path in held.targets if held else ():
            if role != (bins.get_role_for_target(path) if bins else after.role):
                raise Rejected("metadata.misplaced", f"{path[:200]} does not belong into {role}")


def _check_releases(shelf: Shelf, after: Shelf, given: Mapping[str, bytes]) -> None:
    """Refuse what changes or drops a release that was vouched for, and what is no release."""
    spread = shelf.role in given and bin_names(shelf.read(shelf.role)) != bin_names(after.read(shelf.role))
    before, new = (_all(shelf, given, spread=spread), _all(after, given, spread=spread))
    for path, target in before.items():
        now = new.get(path)
        if now is None:
            raise Rejected("metadata.dropped", f"{path} has vanished", hint="revoke it instead")
        if (now.length, now.hashes) != (target.length, target.hashes):
            raise Rejected("metadata.changed", f"{path} has changed", hint="versions are immutable")
        if custom_of(target).revoked and not custom_of(now).revoked:
            raise Rejected("metadata.unrevoked", f"{path} was revoked", hint="publish a new version")
    for path, target in new.items():
        if path not in before or target.unrecognized_fields != before[path].unrecognized_fields:
            _check_target(shelf.publisher, path, target)


def _all(shelf: Shelf, given: Mapping[str, bytes], *, spread: bool) -> dict[str, TargetFile]:
    """Return the targets of the roles that change; of all, when they are spread over other bins."""
    if spread:
        return shelf.targets()
    found: dict[str, TargetFile] = {}
    for role in given:
        held = shelf.read(role)
        found.update(held.targets if held else {})
    return found


def _check_target(publisher: str, path: str, target: TargetFile) -> None:
    head = f"releases/{publisher}/"
    release = split_release_name(path.removeprefix(head).removesuffix(".json"))
    if not path.startswith(head) or not path.endswith(".json") or release is None:
        raise Rejected("metadata.bad_path", f"{path[:200]} is not the path of a release of {publisher}")
    custom = custom_of(target)
    if (custom.application, custom.version) != release or list(target.hashes) != ["sha256"]:
        raise Rejected("metadata.bad_target", f"what is signed of {path} does not fit its name")


def _redelegated(before: Targets, after: Targets) -> set[str]:
    """Return the publishers whose keys changed, or who came or went."""
    old, new = publishers_of(before), publishers_of(after)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _check_number(role: str, *, held: int, given: int) -> None:
    require_newer(role, held=held, given=given)
    if given > held + MAX_STEP:
        hint = "sign what follows on the newest"
        raise Rejected("metadata.gap", f"{role} would jump too far from version {held}", hint=hint)


def _check_expiry(role: str, expires: datetime, now: datetime) -> None:
    if not now + LEAST_VALID < expires < now + MOST_VALID:
        message = f"{role} expires at {expires:%Y-%m-%d}"
        raise Rejected(
            "metadata.bad_expiry", message, hint="between a day and ten years from now; is a clock wrong?"
        )


def _verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        message = f"{role} is not signed by as many of its keys as it must be"
        raise Untrusted("metadata.bad_signature", message) from error


def _root(load: Load) -> Root:
    content = load("root")
    assert content is not None
    root: Root = read_as(content, Root).signed
    return root


def _targets(load: Load) -> Targets:
    content = load("targets")
    assert content is not None
    targets: Targets = read_as(content, Targets).signed
    return targets
