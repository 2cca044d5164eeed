"""A publisher's own metadata: which releases it vouches for, in one role or spread over bins.

`Shelf` is a publisher's role and its bins as they are held; changing it returns what has to be signed. Up to
`MAX_IN_ROLE` releases are in the role itself. Beyond that the role delegates to bins by the hash of the path
(succinct delegations, TAP 15), so that one new release costs a host one bin and not all of them.

Rules: a release that was vouched for never changes and never vanishes; it can be revoked, for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import Delegations, Metadata, SuccinctRoles, TargetFile, Targets

from skerry.kit.digests import hex_of
from skerry.kit.errors import Conflict, Missing, Untrusted
from skerry.spec.publishing import Revocation, TargetCustom
from skerry.trust.metadata import HUB_FIELD
from skerry.trust.repository import TARGETS_VALID, bin_prefix, next_of, publisher_role, read_as, target_path

MAX_IN_ROLE = 1000
BIN_TARGETS = 128
"""How many releases a bin holds on average when bins are made; at twice as many there are more bins."""
MAX_BITS = 12

Unsigned = dict[str, Metadata[Any]]


class Holders(msgspec.Struct, frozen=True):
    """Whose signatures count for a publisher: `threshold` of these keys."""

    keys: Sequence[Key]
    threshold: int = 1


class Shelf(msgspec.Struct, frozen=True):
    """A publisher's metadata as it is held: `load` returns a role's newest bytes, None where there is none.

    `parsed` may return what `load` does, read before; what it returns is not to be changed.
    """

    publisher: str
    load: Callable[[str], bytes | None]
    parsed: Callable[[str], Targets | None] | None = None

    @property
    def role(self) -> str:
        """The publisher's role."""
        return publisher_role(self.publisher)

    def read(self, role: str) -> Targets | None:
        """Return a role's metadata, None where there is none.

        Raises:
            Untrusted: it is damaged.
        """
        if self.parsed is not None:
            return self.parsed(role)
        content = self.load(role)
        return None if content is None else read_as(content, Targets).signed

    def role_for(self, path: str) -> str:
        """Return which role lists, or would list, a target."""
        bins = bins_of(self.read(self.role))
        return bins.get_role_for_target(path) if bins else self.role

    def find(self, release: str) -> TargetFile | None:
        """Return what is signed of a release."""
        path = target_path(self.publisher, release)
        held = self.read(self.role_for(path))
        return held.targets.get(path) if held else None

    def targets(self) -> dict[str, TargetFile]:
        """Return everything that is listed, by path. Reads all bins."""
        role = self.read(self.role)
        found = dict(role.targets) if role else {}
        for name in bin_names(role):
            held = self.read(name)
            found.update(held.targets if held else {})
        return found


def bins_of(role: Targets | None) -> SuccinctRoles | None:
    """Return how a publisher's role spreads its releases over bins, None where it does not."""
    return role.delegations.succinct_roles if role is not None and role.delegations else None


def bin_names(role: Targets | None) -> list[str]:
    """Return the names of a role's bins.

    Raises:
        Untrusted: there would be more than there may be (`metadata.too_many_bins`).
    """
    bins = bins_of(role)
    if bins is not None and bins.bit_length > MAX_BITS:
        raise Untrusted("metadata.too_many_bins", f"{bins.name_prefix[:100]} has 2^{bins.bit_length} bins")
    return list(bins.get_roles()) if bins else []


def target_of(document: bytes, digest: str, custom: TargetCustom, path: str) -> TargetFile:
    """Return the target of a release document."""
    fields = {"custom": msgspec.to_builtins(custom)}
    return TargetFile(len(document), {"sha256": hex_of(digest)}, path, unrecognized_fields=fields)


def custom_of(target: TargetFile) -> TargetCustom:
    """Return the custom metadata of a release's target.

    Raises:
        Untrusted: it is not as it must be (`metadata.bad_custom`).
    """
    return read_custom(target.unrecognized_fields.get("custom"), target.path)


def read_custom(custom: object, path: str) -> TargetCustom:
    """Return custom metadata.

    Raises:
        Untrusted: it is not as it must be (`metadata.bad_custom`).
    """
    try:
        return msgspec.convert(custom, TargetCustom)
    except msgspec.ValidationError as error:
        raise Untrusted("metadata.bad_custom", f"{path[:200]}: custom: {str(error)[:200]}") from error


def add_release(
    shelf: Shelf, release: str, target: TargetFile, *, holders: Holders, now: datetime
) -> Unsigned:
    """Return what has to be signed so that a publisher vouches for a release; nothing, if it does already.

    `holders` sign the bins, too, where there are any.

    Raises:
        Conflict: another document has that name (`release.other`), or it was revoked (`release.revoked`).
    """
    held = shelf.find(release)
    if held is not None:
        if custom_of(held).revoked:
            hint = "give what you publish next a new version"
            raise Conflict("release.revoked", f"{release} was revoked", hint=hint)
        if (held.length, held.hashes) != (target.length, target.hashes):
            hint = "versions are immutable: give it a new version"
            raise Conflict("release.other", f"another release {release} is signed already", hint=hint)
        if custom_of(held).evidence == custom_of(target).evidence:
            return {}
    return _set(shelf, {target.path: target}, holders=holders, now=now)


def revoke_release(
    shelf: Shelf, release: str, revocation: Revocation, *, holders: Holders, now: datetime
) -> Unsigned:
    """Return what has to be signed so that nobody takes a release any more.

    Raises:
        Missing: the publisher never vouched for it (`release.unsigned`).
    """
    held = shelf.find(release)
    if held is None:
        message = f"publisher {shelf.publisher} has not signed {release}"
        raise Missing("release.unsigned", message, hint="skerry release verify says who did")
    custom = msgspec.structs.replace(custom_of(held), revoked=revocation)
    fields = {"custom": msgspec.to_builtins(custom)}
    revoked = TargetFile(held.length, held.hashes, held.path, unrecognized_fields=fields)
    return _set(shelf, {held.path: revoked}, holders=holders, now=now)


def sign_anew(shelf: Shelf, *, holders: Holders, now: datetime) -> Unsigned:
    """Return everything of a publisher, one version on: with a later expiry, for other keys."""
    role = shelf.read(shelf.role)
    if role is None:
        return {shelf.role: Metadata(_next(shelf, shelf.role, now))}
    changed: Unsigned = {}
    for name in (shelf.role, *bin_names(role)):
        if shelf.load(name) is not None:
            changed[name] = Metadata(_next(shelf, name, now))
    top: Targets = changed[shelf.role].signed
    if (bins := bins_of(top)) is not None:
        top.delegations = _delegation(holders, bins.bit_length, shelf.publisher)
    return changed


def bits_for(targets: int) -> int:
    """Return how many bits of the hash tell bins apart for so many releases."""
    return min(MAX_BITS, max(1, math.ceil(math.log2(max(targets, 1) / BIN_TARGETS))))


def _set(shelf: Shelf, changes: Mapping[str, TargetFile], *, holders: Holders, now: datetime) -> Unsigned:
    role = shelf.read(shelf.role)
    changed: dict[str, Targets] = {}
    for path, target in changes.items():
        name = shelf.role_for(path)
        if name not in changed:
            changed[name] = _next(shelf, name, now)
        changed[name].targets[path] = target
    spread = bins_of(role) is not None
    limit = 2 * BIN_TARGETS if spread else MAX_IN_ROLE
    if any(len(part.targets) > limit for part in changed.values()) and _can_grow(role):
        every = shelf.targets()
        for part in changed.values():
            every.update(part.targets)
        return _spread(shelf, every.values(), holders=holders, now=now)
    return {name: Metadata(part) for name, part in changed.items()}


def _spread(shelf: Shelf, targets: Iterable[TargetFile], *, holders: Holders, now: datetime) -> Unsigned:
    """Put all releases into a larger number of bins."""
    found = list(targets)
    top = _next(shelf, shelf.role, now)
    top.targets = {}
    bins = bins_of(top)
    more = min(MAX_BITS, bins.bit_length + 1) if bins else 1
    top.delegations = _delegation(holders, max(more, bits_for(len(found))), shelf.publisher)
    grown = top.delegations.succinct_roles
    assert grown is not None
    parts: dict[str, Targets] = {}
    for name in grown.get_roles():
        parts[name] = _next(shelf, name, now)
        parts[name].targets = {}
    for target in found:
        parts[grown.get_role_for_target(target.path)].targets[target.path] = target
    return {shelf.role: Metadata(top), **{name: Metadata(part) for name, part in parts.items()}}


def _can_grow(role: Targets | None) -> bool:
    bins = bins_of(role)
    return bins is None or bins.bit_length < MAX_BITS


def _delegation(holders: Holders, bits: int, publisher: str) -> Delegations:
    ids = [key.keyid for key in holders.keys]
    succinct = SuccinctRoles(ids, holders.threshold, bits, bin_prefix(publisher))
    return Delegations({key.keyid: key for key in holders.keys}, succinct_roles=succinct)


def _next(shelf: Shelf, role: str, now: datetime) -> Targets:
    content = shelf.load(role)
    following = Targets(version=1, expires=now + TARGETS_VALID, targets={})
    if content is not None:
        following = next_of(content, Targets, now + TARGETS_VALID)
    following.unrecognized_fields[HUB_FIELD] = {"role": role}
    return following
