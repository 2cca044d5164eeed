"""How anybody comes to trust a hub's metadata: from a pinned root to the target of one release.

Source: the client workflow of the TUF specification (section 5), with python-tuf's set of trusted metadata, which
verifies; here is the order in which it is given what. Nothing here reads or fetches: functions are generators that
ask for a file (`Local`, `Remote`) and hand out what was verified (`Keep`), and whoever runs them answers. So the host,
the command line and the tests go the same way, over any carrier.

Rules: nothing is kept that was not verified before; what was kept counts against anything older; a root counts until
its successor is verified by both; whose timestamp is expired takes nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar, cast
from urllib.parse import quote

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import (
    BadVersionNumberError,
    EqualVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Root, TargetFile, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from skerry.kit.errors import Untrusted

T = TypeVar("T")

MAX_ROOT_ROTATIONS = 256
MAX_DELEGATIONS = 32
ROOT_BYTES = 512 << 10
TIMESTAMP_BYTES = 16 << 10
SNAPSHOT_BYTES = 2 << 20
TARGETS_BYTES = 5 << 20

HUB_FIELD = "x-skerry"
"""Our field: the specification lets others add fields of their own. In a root it holds a `HubField`; in targets
`role` is whose they are, and `revoked`, at the top level, has the publishers that are trusted no more."""

_root_file = re.compile(r"[0-9]+\.root\.json\Z")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Local(msgspec.Struct, frozen=True):
    """Asks for a file that was kept; answered with its bytes, or None where there is none."""

    name: str


class Remote(msgspec.Struct, frozen=True):
    """Asks for a file from upstream; answered with at most `max_bytes`, or None where it has none."""

    name: str
    max_bytes: int


class Keep(msgspec.Struct, frozen=True):
    """Hands out a verified file, to be kept under its name in the place of what was."""

    name: str
    content: bytes


Step = Local | Remote | Keep
Steps = Generator[Step, bytes | None, T]


class HubField(msgspec.Struct, frozen=True):
    """What a root says of its hub: its id, and the ids of the keys that sign desired state, time and blob tokens."""

    hub: str
    desired: tuple[str, ...]


class TargetFound(msgspec.Struct, frozen=True):
    """A target that trusted metadata lists.

    `expires_at` is when the first of the metadata that vouches for it expires; `role` is who signed it.
    """

    path: str
    length: int
    sha256: str
    custom: object
    role: str
    role_version: int
    expires_at: datetime


class Trusted:
    """Metadata that has been verified, from the root downwards. Grows as targets are looked for."""

    def __init__(self, held: TrustedMetadataSet, *, online: bool) -> None:
        self._set = held
        self._online = online

    @property
    def root(self) -> Root:
        """The newest root."""
        return self._set.root

    @property
    def versions(self) -> tuple[int, int, int]:
        """The versions of root, timestamp and snapshot."""
        return self._set.root.version, self._set.timestamp.version, self._set.snapshot.version

    @property
    def expires_at(self) -> datetime:
        """When the first of the top level's metadata expires."""
        parts = (self._set.root, self._set.timestamp, self._set.snapshot, self._set.targets)
        return min(part.expires for part in parts)

    @property
    def targets(self) -> Targets:
        """The top-level targets, with the delegations to publishers."""
        return self._set.targets

    def listed_version(self, role: str) -> int | None:
        """The version of a role that the snapshot lists; None for one that has no metadata yet."""
        meta = self._set.snapshot.meta.get(f"{role}.json")
        return None if meta is None else meta.version

    def role(self, name: str) -> Targets | None:
        """Return a role that was loaded on the way to some target."""
        return cast(Targets | None, self._set.get(name))

    def load_role(self, role: str, delegator: str) -> Steps[Targets]:
        """Bring a role's metadata, kept or fetched, verified as its delegator says."""
        if self._set.contains(role, delegator):
            return _named(cast(Targets, self._set[role]), role)
        name = f"{quote(role, '')}.json"
        if _root_file.match(name):
            # Kept under this name, it would push out a root: whoever delegates to it could take a host back.
            raise Untrusted("metadata.malformed", f"no role may be called {role[:100]}")
        kept = yield Local(name)
        if kept is not None:
            try:
                with _translating():
                    return _named(self._set.update_delegated_targets(kept, role, delegator), role)
            except Untrusted:
                pass  # an older one, or damaged on disk: fetched like one that never was here
        meta = self._set.snapshot.meta.get(f"{role}.json")
        if meta is None:
            raise Untrusted("metadata.incomplete", f"the snapshot does not list the role {role[:100]}")
        content: bytes | None = None
        if self._online:
            remote = f"{meta.version}.{name}" if self._set.root.consistent_snapshot else name
            content = yield Remote(remote, min(meta.length or TARGETS_BYTES, TARGETS_BYTES))
        if content is None:
            raise Untrusted("metadata.missing", f"the metadata of {role[:100]} is not there")
        with _translating():
            loaded = _named(self._set.update_delegated_targets(content, role, delegator), role)
        yield Keep(name, content)
        return loaded


def run_steps(steps: Steps[T], answer: Callable[[Step], bytes | None]) -> T:
    """Run steps to their end, with whoever answers them; what `answer` raises ends them."""
    given: bytes | None = None
    while True:
        try:
            step = steps.send(given)
        except StopIteration as ended:
            return cast(T, ended.value)
        given = answer(step)


def follow_root(pinned: bytes, *, online: bool, now: datetime | None = None) -> Steps[TrustedMetadataSet]:
    """Go from a pinned root to the newest, over any number of versions; an expired one in between counts.

    Raises:
        Untrusted: `pinned` is no root, or a successor is not signed by both (`metadata.*`).
    """
    with _translating():
        held = TrustedMetadataSet(pinned, EnvelopeType.METADATA)
    held.reference_time = now or _LONG_AGO
    for version in range(held.root.version + 1, held.root.version + 1 + MAX_ROOT_ROTATIONS):
        name = f"{version}.root.json"
        kept = yield Local(name)
        if kept is not None:
            try:
                with _translating():
                    held.update_root(kept)
                continue
            except Untrusted:
                pass  # damaged on disk: fetched like one that never was here
        content = (yield Remote(name, ROOT_BYTES)) if online else None
        if content is None:
            break
        with _translating():
            held.update_root(content)
        yield Keep(name, content)
    return held


def refresh(pinned: bytes, *, now: datetime, renewing: bool = False) -> Steps[Trusted]:
    """Bring the top level up to date with upstream, as of `now`.

    For who is `renewing` what was signed, targets and what they delegate to may have expired: they are signed anew
    from there. Root, timestamp and snapshot may not.

    Raises:
        Untrusted: something is not signed as it must be (`metadata.bad_signature`), older than what is kept
            (`metadata.rollback`), expired (`metadata.expired`), of another content than was listed
            (`metadata.mismatch`), absent (`metadata.missing`), or malformed (`metadata.malformed`).
    """
    held = yield from follow_root(pinned, online=True, now=now)
    yield from _refresh_timestamp(held)
    yield from _refresh_snapshot(held)
    if renewing:
        held.reference_time = _LONG_AGO
    trusted = Trusted(held, online=True)
    yield from trusted.load_role(Targets.type, Root.type)
    return trusted


def load_kept(pinned: bytes) -> Steps[Trusted]:
    """Return what was kept, without anything from upstream and whatever its age: what to do then is the caller's.

    Raises:
        Untrusted: not all of it is there, or it is damaged.
    """
    held = yield from follow_root(pinned, online=False)
    for name, update in (("timestamp.json", held.update_timestamp), ("snapshot.json", held.update_snapshot)):
        content = yield Local(name)
        if content is None:
            raise Untrusted("metadata.missing", f"{name} is not there")
        with _translating():
            update(content)
    trusted = Trusted(held, online=False)
    yield from trusted.load_role(Targets.type, Root.type)
    return trusted


def find_target(trusted: Trusted, path: str) -> Steps[TargetFound | None]:
    """Return what the most trusted role that lists a target says of it, None when nobody does.

    Delegations are walked in their order, depth first, as the specification's section 5.6.7 says.

    Raises:
        Untrusted: the metadata of a role on the way is absent or not to be trusted.
    """
    expires_at = trusted.expires_at
    to_visit = [(Targets.type, Root.type, expires_at)]
    visited: set[str] = set()
    while to_visit and len(visited) <= MAX_DELEGATIONS:
        role, delegator, until = to_visit.pop()
        if role in visited:
            continue
        targets = yield from trusted.load_role(role, delegator)
        until = min(until, targets.expires)
        if (target := targets.targets.get(path)) is not None:
            return _found(path, target, role=role, targets=targets, until=until)
        visited.add(role)
        children: list[tuple[str, str, datetime]] = []
        if targets.delegations is not None:
            for child, terminating in targets.delegations.get_roles_for_target(path):
                children.append((child, role, until))
                if terminating:
                    to_visit = []
                    break
        to_visit.extend(reversed(children))
    return None


def hub_field(root: Root) -> HubField:
    """Return what a root says of its hub.

    Raises:
        Untrusted: it says nothing of a hub, or nothing that makes sense (`metadata.no_hub`).
    """
    try:
        return msgspec.convert(root.unrecognized_fields.get(HUB_FIELD), HubField)
    except msgspec.ValidationError as error:
        raise Untrusted("metadata.no_hub", "the root does not say whose it is") from error


def desired_keys(root: Root) -> tuple[Key, ...]:
    """Return the keys that a root lets sign desired state, time and blob tokens.

    Raises:
        Untrusted: it names none (`metadata.no_hub`).
    """
    keys = tuple(root.keys[name] for name in hub_field(root).desired if name in root.keys)
    if not keys:
        raise Untrusted("metadata.no_hub", "the root names no key that signs desired state")
    return keys


def _refresh_timestamp(held: TrustedMetadataSet) -> Steps[None]:
    kept = yield Local("timestamp.json")
    if kept is not None:
        try:
            with _translating():
                held.update_timestamp(kept)
        except Untrusted:
            pass  # expired ones still count against older ones; others are replaced
    content = yield Remote("timestamp.json", TIMESTAMP_BYTES)
    if content is None:
        raise Untrusted("metadata.missing", "timestamp.json is not there")
    try:
        with _translating():
            held.update_timestamp(content)
    except Untrusted as error:
        if isinstance(error.__cause__, EqualVersionNumberError):
            return
        raise
    yield Keep("timestamp.json", content)


def _refresh_snapshot(held: TrustedMetadataSet) -> Steps[None]:
    kept = yield Local("snapshot.json")
    if kept is not None:
        try:
            with _translating():
                held.update_snapshot(kept, trusted=True)
            return
        except Untrusted:
            pass  # not the one that the timestamp names: it still counts against older ones
    meta = held.timestamp.snapshot_meta
    name = f"{meta.version}.snapshot.json" if held.root.consistent_snapshot else "snapshot.json"
    content = yield Remote(name, min(meta.length or SNAPSHOT_BYTES, SNAPSHOT_BYTES))
    if content is None:
        raise Untrusted("metadata.missing", "the snapshot that the timestamp names is not there")
    with _translating():
        held.update_snapshot(content)
    yield Keep("snapshot.json", content)


def _named(targets: Targets, role: str) -> Targets:
    """Refuse one role's metadata in the place of another's that the same keys sign.

    A snapshot lists versions alone, so that a carrier could exchange a publisher's bins, and hide a revocation.
    """
    field = targets.unrecognized_fields.get(HUB_FIELD)
    if isinstance(field, dict) and cast(dict[str, object], field).get("role", role) != role:
        raise Untrusted("metadata.mismatch", f"this is not the metadata of {role[:100]}")
    return targets


def _found(path: str, target: TargetFile, *, role: str, targets: Targets, until: datetime) -> TargetFound:
    return TargetFound(
        path=path,
        length=target.length,
        sha256=target.hashes.get("sha256", ""),
        custom=target.unrecognized_fields.get("custom"),
        role=role,
        role_version=targets.version,
        expires_at=until,
    )


@contextmanager
def _translating() -> Generator[None]:
    """Raise what python-tuf raises as `Untrusted`, with a code for each kind of refusal."""
    try:
        yield
    except RepositoryError as error:
        raise Untrusted(_code_of(error), str(error)[:300]) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Untrusted("metadata.malformed", f"not metadata: {str(error)[:200]}") from error


def _code_of(error: RepositoryError) -> str:
    if isinstance(error, ExpiredMetadataError):
        return "metadata.expired"
    if isinstance(error, BadVersionNumberError):
        return "metadata.rollback"
    if isinstance(error, UnsignedMetadataError):
        return "metadata.bad_signature"
    if isinstance(error, LengthOrHashMismatchError):
        return "metadata.mismatch"
    return "metadata.malformed"
