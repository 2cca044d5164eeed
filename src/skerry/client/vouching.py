"""Follows who vouches for a release, from the pinned root to the bytes of its document, and says so step by step.

The steps are those of a host; `Untrusted` ends them. What the hub says of a release is used to look at the right
place first, and believed in nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from skerry.client.client import Client
from skerry.client.trusting import Believed, HubRepository
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Rejected, SkerryError, Untrusted
from skerry.kit.ids import split_release_name
from skerry.spec.evidence import Evidence
from skerry.spec.publishing import Revocation
from skerry.trust.metadata import TargetFound, find_target
from skerry.trust.publishers import read_custom
from skerry.trust.repository import (
    publisher_role,
    publishers_of,
    read_as,
    revoked_publishers,
    signed_by,
    target_path,
)

MAX_DOCUMENT_BYTES = 4 << 20


class RoleStep(msgspec.Struct, frozen=True, kw_only=True):
    """A role on the way: its version, how long it holds, and whose signatures were verified."""

    role: str
    version: int
    expires_at: datetime
    signed_by: tuple[str, ...] = ()
    threshold: int = 1


class Vouching(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a release is vouched for, and the way there. `problem` says why it is not."""

    release: str
    vouched: bool
    problem: str = ""
    code: str = ""
    publisher: str = ""
    digest: str = ""
    size_bytes: int = 0
    expires_at: datetime | None = None
    steps: tuple[RoleStep, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    revoked: Revocation | None = None


def verify_release(client: Client, repository: HubRepository, name: str, publisher: str = "") -> Vouching:
    """Return who vouches for the release `application@version`.

    Raises:
        Rejected: that is no name of a release.
        Unavailable: the hub did not answer.
    """
    if split_release_name(name) is None:
        raise Rejected("release.name", f"not a release: {name[:200]!r}", hint="write APPLICATION@VERSION")
    steps: list[RoleStep] = []
    found = Vouching(release=name, vouched=False)
    try:
        believed = repository.refresh(renewing=False)
        steps += _top_steps(believed)
        found = _vouching(repository, believed, name, _candidates(client, believed, name, publisher))
        steps += _publisher_steps(believed, found)
        _check_document(client, found)
        _check_revoked(found)
    except (Untrusted, Missing) as error:
        return msgspec.structs.replace(
            found, vouched=False, problem=error.message, code=error.code, steps=tuple(steps)
        )
    return msgspec.structs.replace(found, vouched=True, steps=tuple(steps))


def _candidates(client: Client, believed: Believed, name: str, publisher: str) -> list[str]:
    """Return the publishers to ask, the likely one first."""
    if publisher:
        if revoked := revoked_publishers(believed.targets).get(publisher):
            raise Untrusted("publisher.revoked", f"publisher {publisher} was revoked: {revoked.why}")
        believed.delegation(publisher)
        return [publisher]
    try:
        likely = client.release(name).publisher
    except SkerryError:
        likely = ""
    if revoked := revoked_publishers(believed.targets).get(likely):
        raise Untrusted("publisher.revoked", f"publisher {likely} was revoked: {revoked.why}")
    return sorted(publishers_of(believed.targets), key=lambda known: (known != likely, known))


def _vouching(
    repository: HubRepository, believed: Believed, name: str, candidates: Sequence[str]
) -> Vouching:
    for publisher in candidates:
        if believed.trusted.listed_version(publisher_role(publisher)) is None:
            continue
        target = repository.run(find_target(believed.trusted, target_path(publisher, name)))
        if target is not None:
            return _vouching_of(name, publisher, target)
    whom = ", ".join(candidates) or "there are none"
    raise Untrusted("release.unsigned", f"no publisher vouches for {name} ({whom})")


def _vouching_of(name: str, publisher: str, target: TargetFound) -> Vouching:
    custom = read_custom(target.custom, target.path)
    return Vouching(
        release=name,
        vouched=False,
        publisher=publisher,
        digest=f"sha256:{target.sha256}",
        size_bytes=target.length,
        expires_at=target.expires_at,
        evidence=custom.evidence,
        revoked=custom.revoked,
    )


def _check_document(client: Client, found: Vouching) -> None:
    """Refuse a document that the hub gives for the release, and is not the one that was signed."""
    shown = client.release(found.release).document
    if shown is not None and digest_of(encode_canonical(shown)) == found.digest:
        return
    # Not written as skerry writes them: then the bytes themselves count.
    content = bytearray()
    for chunk in client.download(found.digest):
        content += chunk
        if len(content) > min(found.size_bytes, MAX_DOCUMENT_BYTES):
            break
    if len(content) != found.size_bytes or digest_of(bytes(content)) != found.digest:
        raise Untrusted("release.mismatch", "the hub gives another document than the one that was signed")


def _check_revoked(found: Vouching) -> None:
    if found.revoked:
        raise Untrusted("release.revoked", f"it was revoked: {found.revoked.why}")


def _top_steps(believed: Believed) -> Iterator[RoleStep]:
    root = believed.root
    yield _step(Root.type, root, believed.root_bytes, _keys_of(root, Root.type))
    content = believed.load(Targets.type)
    assert content is not None
    yield _step(Targets.type, believed.targets, content, _keys_of(root, Targets.type))


def _publisher_steps(believed: Believed, found: Vouching) -> Iterator[RoleStep]:
    shelf = believed.shelf(found.publisher)
    holders = believed.holders(found.publisher)
    listing = shelf.role_for(target_path(found.publisher, found.release))
    for role in dict.fromkeys((shelf.role, listing)):
        content = believed.load(role)
        assert content is not None
        signed: Targets = read_as(content, Targets).signed
        # Bins are signed by the keys of the role itself, which delegates to them.
        yield _step(role, signed, content, (holders.keys, holders.threshold))


def _keys_of(root: Root, role: str) -> tuple[Sequence[Key], int]:
    held = root.roles[role]
    return [root.keys[name] for name in held.keyids if name in root.keys], held.threshold


def _step(role: str, signed: Root | Targets, content: bytes, keys: tuple[Sequence[Key], int]) -> RoleStep:
    return RoleStep(
        role=role,
        version=signed.version,
        expires_at=signed.expires,
        signed_by=tuple(sorted(signed_by(read_as(content, type(signed)), keys[0]))),
        threshold=keys[1],
    )
