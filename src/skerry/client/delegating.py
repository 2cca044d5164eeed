"""Says whose keys sign for which publisher: signs the top-level targets with offline keys.

Rules: a publisher's role is signed by its new keys in the same request that puts them into force, so that at no
moment a release is vouched for by nobody; a name that was revoked is not given out again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Metadata, Targets

from skerry.client.signing import RoleSigner, sign_metadata, sign_roles
from skerry.client.trusting import Believed
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.ids import is_name
from skerry.spec.publishing import Revocation, SignedRole
from skerry.trust.publishers import Holders, Shelf, sign_anew
from skerry.trust.repository import (
    check_threshold,
    publisher_role,
    publishers_of,
    revoked_publishers,
    with_publisher,
    without_publisher,
)

Roles = tuple[SignedRole, ...]


class Signers(msgspec.Struct, frozen=True):
    """Who signs: the top-level targets, and the publisher's own role, if anybody here can."""

    targets: Sequence[RoleSigner]
    publisher: Sequence[RoleSigner] = ()


def check_new_publisher(believed: Believed, name: str) -> None:
    """Refuse a name that a new publisher cannot have.

    Raises:
        Rejected: it is no name (`publisher.name`).
        Conflict: it is taken (`publisher.exists`), or was (`publisher.was_revoked`).
    """
    if not is_name(name):
        hint = "lower-case letters, digits and hyphens"
        raise Rejected("publisher.name", f"not a name: {name[:80]!r}", hint=hint)
    if name in publishers_of(believed.targets):
        hint = f"other keys for it: skerry publisher rotate {name}"
        raise Conflict("publisher.exists", f"there is a publisher {name} already", hint=hint)
    listed = believed.trusted.listed_version(publisher_role(name)) is not None
    if listed or name in revoked_publishers(believed.targets):
        hint = "choose another name: with this one, everything it ever signed would be vouched for again"
        raise Conflict("publisher.was_revoked", f"publisher {name} was revoked", hint=hint)


def sign_new_publisher(believed: Believed, name: str, holders: Holders, signers: Signers) -> Roles:
    """Return the targets with a new publisher and, if somebody here signs for it, its first empty role.

    Raises:
        Rejected, Conflict: see `check_new_publisher` and `skerry.client.signing`.
    """
    check_new_publisher(believed, name)
    roles = _sign_targets(believed, _with(believed, name, holders), signers.targets)
    if signers.publisher:
        roles += _sign_own(Shelf(name, lambda _: None), believed, holders, signers.publisher)
    return roles


def sign_rotation(believed: Believed, name: str, holders: Holders, signers: Signers) -> Roles:
    """Return the targets with other keys of a publisher, and everything of the publisher signed by these.

    Raises:
        Missing: there is no such publisher.
        Rejected: see `skerry.client.signing`.
    """
    believed.delegation(name)
    roles = _sign_targets(believed, _with(believed, name, holders), signers.targets)
    return roles + _sign_own(believed.shelf(name), believed, holders, signers.publisher)


def sign_publisher_revocation(
    believed: Believed, name: str, revocation: Revocation, signers: Sequence[RoleSigner]
) -> Roles:
    """Return the targets in which a publisher is trusted no more.

    Raises:
        Missing: there is no such publisher.
        Rejected: see `skerry.client.signing`.
    """
    believed.delegation(name)
    made = without_publisher(_targets(believed), name, revocation, believed.now())
    return _sign_targets(believed, made, signers)


def holders_of(keys: Sequence[SSlibKey], threshold: int, whose: str) -> Holders:
    """Return keys, each once, and how many of them have to sign.

    Raises:
        Rejected: the threshold does not fit (`root.threshold`).
    """
    distinct: list[Key] = list({key.keyid: key for key in keys}.values())
    check_threshold(whose, len(distinct), threshold)
    return Holders(distinct, threshold=threshold)


def _with(believed: Believed, name: str, holders: Holders) -> Metadata[Targets]:
    return with_publisher(
        _targets(believed), name, holders.keys, threshold=holders.threshold, now=believed.now()
    )


def _sign_targets(believed: Believed, made: Metadata[Targets], signers: Sequence[RoleSigner]) -> Roles:
    held = believed.targets_holders()
    content = sign_metadata(made, signers, held.keys, threshold=held.threshold, what="the targets role")
    return (SignedRole(role=Targets.type, content=content),)


def _sign_own(shelf: Shelf, believed: Believed, holders: Holders, signers: Sequence[RoleSigner]) -> Roles:
    unsigned = sign_anew(shelf, holders=holders, now=believed.now())
    return sign_roles(unsigned, signers, holders.keys, threshold=holders.threshold)


def _targets(believed: Believed) -> bytes:
    content = believed.load(Targets.type)
    assert content is not None
    return content
