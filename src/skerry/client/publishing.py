"""Signs in a publisher's name and hands it to the hub: releases, revocations, and the same with a later expiry.

Rules: what is built upon was verified the moment before; when somebody else was faster, it is fetched, verified and
signed anew, a few times; what the hub has taken is kept here, so that it cannot be lost with the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from skerry.client.client import Client
from skerry.client.signing import KeyFileSigner, RoleSigner, foreign_key, same_key, sign_roles
from skerry.client.sources import PreparedRelease
from skerry.client.trusting import Believed, HubRepository
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Rejected
from skerry.spec.api import ReleaseView
from skerry.spec.publishing import MetadataRequest, PublishRequest, Revocation, SignedRole, TargetCustom
from skerry.trust.publishers import Holders, add_release, custom_of, revoke_release, sign_anew, target_of
from skerry.trust.repository import target_path

T = TypeVar("T")

ATTEMPTS = 5
_MOVED = ("metadata.not_next", "metadata.moved")

Roles = tuple[SignedRole, ...]


class Author(msgspec.Struct, frozen=True):
    """A publisher, and who signs for it on this machine."""

    publisher: str
    signers: Sequence[RoleSigner]


class Publishing:
    """One hub, and one publisher of it."""

    def __init__(self, client: Client, repository: HubRepository, author: Author) -> None:
        self._client = client
        self._repository = repository
        self.author = author

    def check(self) -> Holders:
        """Return whose signatures count for the publisher, having seen that the signers here suffice.

        Raises:
            Missing: there is no such publisher (`publisher.missing`).
            Rejected: a signer's key does not count (`signing.foreign_key`), or they are too few (`signing.too_few`).
        """
        holders = self._repository.refresh().holders(self.author.publisher)
        check_signers(self.author.signers, holders, f"publisher {self.author.publisher}")
        return holders

    def publish_release(self, prepared: PreparedRelease) -> tuple[ReleaseView, bool]:
        """Sign a release whose blobs the hub holds, and publish it; tell whether it is new there.

        For one that is signed already, other evidence takes the place of what it has.

        Raises:
            Conflict: another release has its name (`release.other`), or it was revoked (`release.revoked`).
            Rejected, Untrusted, Unavailable: see `skerry.client.signing` and `skerry.client.trusting`.
        """
        name, digest = prepared.release.name, digest_of(prepared.content)
        path = target_path(self.author.publisher, name)

        def make(believed: Believed) -> Roles:
            holders, shelf = believed.holders(self.author.publisher), believed.shelf(self.author.publisher)
            held, custom = shelf.find(name), _custom_of(prepared)
            if held is not None and not custom.evidence:
                # Pushing again without naming the evidence is no statement that there is none.
                custom = msgspec.structs.replace(custom, evidence=custom_of(held).evidence)
            target = target_of(prepared.content, digest, custom, path)
            unsigned = add_release(shelf, name, target, holders=holders, now=self._repository.now())
            return sign_roles(unsigned, self.author.signers, holders.keys, threshold=holders.threshold)

        def send(roles: Roles) -> tuple[ReleaseView, bool]:
            request = PublishRequest(
                publisher=self.author.publisher, document=prepared.content, metadata=roles
            )
            return self._client.post_release(request)

        return settle(self._repository, make, send)

    def revoke_release(self, name: str, revocation: Revocation) -> Roles:
        """Revoke the release `application@version`, for good; return what was signed.

        Raises:
            Missing: the publisher has not signed it (`release.unsigned`).
        """

        def make(believed: Believed) -> Roles:
            holders = believed.holders(self.author.publisher)
            unsigned = revoke_release(
                believed.shelf(self.author.publisher),
                name,
                revocation,
                holders=holders,
                now=self._repository.now(),
            )
            return sign_roles(unsigned, self.author.signers, holders.keys, threshold=holders.threshold)

        return publish_metadata(self._client, self._repository, make)

    def renew(self) -> Roles:
        """Sign everything of the publisher anew, with a later expiry; return it."""

        def make(believed: Believed) -> Roles:
            holders = believed.holders(self.author.publisher)
            shelf = believed.shelf(self.author.publisher)
            unsigned = sign_anew(shelf, holders=holders, now=self._repository.now())
            return sign_roles(unsigned, self.author.signers, holders.keys, threshold=holders.threshold)

        return publish_metadata(self._client, self._repository, make)


def _custom_of(prepared: PreparedRelease) -> TargetCustom:
    """Return what is signed of a release besides its bytes."""
    application, models = prepared.release.application, prepared.release.models
    files = {str(file.digest): file.size_bytes for file in prepared.release.files()}
    return TargetCustom(
        application=application.metadata.name,
        version=application.spec.version,
        models={model.metadata.name: model.spec.version for model in models},
        size_bytes=sum(files.values()),
        evidence=prepared.evidence,
    )


def publish_metadata(client: Client, repository: HubRepository, make: Callable[[Believed], Roles]) -> Roles:
    """Sign and publish metadata; return what was published."""

    def send(roles: Roles) -> Roles:
        client.post_metadata(MetadataRequest(metadata=roles))
        return roles

    return settle(repository, make, send)


def settle(repository: HubRepository, make: Callable[[Believed], Roles], send: Callable[[Roles], T]) -> T:
    """Sign what `make` returns for the present state and send it; again, when somebody else was faster.

    Raises:
        Conflict: somebody else was faster each time.
    """
    for attempt in range(1, ATTEMPTS + 1):
        roles = make(repository.refresh())
        try:
            answer = send(roles)
        except Conflict as error:
            if error.code not in _MOVED or attempt == ATTEMPTS:
                raise
            continue
        for role in roles:
            repository.files.keep_signed(role.role, role.content)
        return answer
    raise AssertionError("unreachable")


def check_signers(signers: Sequence[RoleSigner], holders: Holders, whose: str) -> None:
    """Refuse signers of whom it is clear that they will not do, before anything is sent or asked of them.

    Raises:
        Rejected: `signing.foreign_key`, `signing.too_few`.
    """
    for signer in signers:
        if isinstance(signer, KeyFileSigner) and not any(
            same_key(signer.public, key) for key in holders.keys
        ):
            raise foreign_key(signer.name, signer.public.keyid)
    if len(signers) < holders.threshold:
        others = ", ".join(sorted(key.keyid[:12] for key in holders.keys))
        message = f"{whose} signs with {holders.threshold} keys; {len(signers)} given"
        hint = f"name more with --signer (a key elsewhere can be asked with command:PROGRAM); these count: {others}"
        raise Rejected("signing.too_few", message, hint=hint)
