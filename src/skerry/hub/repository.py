"""The hub's TUF repository: holds what publishers and offline keys have signed, and signs snapshot and timestamp.

The hub can offer what was signed, and nothing else: it has no key that vouches for a release. Rules: a publication is
stored whole, with the snapshot and timestamp that list it, or not at all; versions never fall, also not after a
restore; what is signed online is signed anew long before it expires.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
import structlog
from tuf.api.metadata import Role, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from skerry.hub.keeping import HubKeys
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Rejected
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore, Publication, ReleaseRecord
from skerry.spec.publishing import MetadataView, PublisherView, Revocation, RoleView
from skerry.trust.acceptance import Accepted, OwnKeys, accept
from skerry.trust.publishers import Shelf, bin_names, custom_of
from skerry.trust.repository import (
    ONLINE_VALID,
    RENEW_ONLINE_BEFORE,
    first_targets,
    make_snapshot,
    make_timestamp,
    publisher_of,
    publisher_role,
    publishers_of,
    read_as,
    revoked_publishers,
    sign,
    snapshot_versions,
    target_path,
)

_log = structlog.get_logger()
_file_re = re.compile(r"^(?:([1-9][0-9]{0,11})\.)?([a-z0-9][a-z0-9-]{0,127})\.json$")

MAX_PARSED = 64
SPARE_VALID = timedelta(days=1)
"""What is signed for a carrier is good for so much longer, so that the next bundle of that day needs no other."""


class Published(msgspec.Struct, frozen=True):
    """What a publication did: whether its release is new, and of which releases something else is signed now."""

    new: bool
    affected: frozenset[str]


class Repository:
    """The repository of one hub. Blocking; usable from any thread."""

    def __init__(self, store: HubStore, keys: HubKeys, clock: Clock) -> None:
        self._store = store
        self.keys = keys
        self._clock = clock
        self._own = OwnKeys(keys.trust_root.hub, keys.online.key_id, keys.key.key_id)
        self._lock = threading.Lock()
        self._trust_roots: dict[str, bytes] = {}
        self._parsed: dict[str, Targets | None] = {}
        self._begin()
        self._note_trust_root()

    @property
    def root_digest(self) -> str:
        """The digest that new join tokens and `skerry login` pin."""
        return digest_of(self._trust_root_bytes)

    def trust_root(self, digest: str = "") -> bytes:
        """Return the trust root with a digest; the newest where there never was one with that."""
        if digest and digest not in self._trust_roots:
            versions = range(1, self._store.metadata_versions()["root"] + 1)
            found = (self._store.metadata("root", version) for version in versions)
            made = [self._encode_trust_root(content) for content in found if content is not None]
            self._trust_roots.update({digest_of(content): content for content in made})
        return self._trust_roots.get(digest, self._trust_root_bytes)

    def file(self, name: str) -> bytes | None:
        """Return a file by its name, `timestamp.json` or `3.publisher-acme.json`; without a version, the newest.

        Raises:
            Rejected: that is no name of a file (`metadata.bad_name`).
        """
        match = _file_re.match(name)
        if match is None:
            raise Rejected("metadata.bad_name", f"{name[:100]!r} is not the name of a metadata file")
        return self._store.metadata(match[2], int(match[1]) if match[1] else None)

    def load(self, role: str) -> bytes | None:
        """Return the newest metadata of a role."""
        return self._store.metadata(role)

    def shelf(self, publisher: str) -> Shelf:
        """Return what a publisher has signed."""
        return Shelf(publisher, self.load)

    def publish(
        self, given: Mapping[str, bytes], audit: Audit, *, release: ReleaseRecord | None = None
    ) -> Published:
        """Take new metadata, with a release or without.

        Raises:
            Rejected, Conflict, Untrusted: see `skerry.trust.acceptance.accept`; nothing is stored then.
            Conflict: other content has the release's name (`release.immutable`).
        """
        with self._lock:
            published = self._publish(given, audit, release)
            self._parsed.clear()
        if "root" in given:
            self._note_trust_root()
        return published

    def renew(self, valid: timedelta = RENEW_ONLINE_BEFORE) -> None:
        """Sign snapshot and timestamp anew when they are not good for as long; run now and then.

        What is carried by hand may need longer than others: then everybody gets what is good for so long.
        """
        with self._lock:
            content = self.load("timestamp")
            now = self._clock.now()
            if content is None or _expiry(content, Timestamp) - now > valid:
                return
            self._store.publish(self._publication({}, now, max(ONLINE_VALID, valid + SPARE_VALID)))
        _log.info("metadata.renewed")

    def revoked(self, release: ReleaseRecord) -> Revocation | None:
        """Return why a release is trusted no more, None while it is, and where nobody ever signed it."""
        if not release.publisher:
            return None
        targets = self._parse("targets")
        if targets is None or release.publisher not in publishers_of(targets):
            gone = revoked_publishers(targets).get(release.publisher) if targets else None
            return gone or Revocation(why=f"publisher {release.publisher} is gone", at=release.created_at)
        target = Shelf(release.publisher, self.load, self._parse).find(release.name)
        if target is None:
            return Revocation(why="its publisher does not vouch for it", at=release.created_at)
        return custom_of(target).revoked

    def why_revoked(self, release: ReleaseRecord) -> str:
        """Return why a release is trusted no more, in words; empty while it is."""
        revoked = self.revoked(release)
        return f"{release.name} was revoked: {revoked.why}" if revoked else ""

    def view(self) -> MetadataView:
        """Return the newest version of every role but bins."""
        root: Root = read_as(self._needed("root"), Root).signed
        kinds: dict[str, type[Signed]] = {
            "root": Root,
            "targets": Targets,
            "snapshot": Snapshot,
            "timestamp": Timestamp,
        }
        views = [
            _role_view(role, read_as(self._needed(role), kind).signed, root.roles[role])
            for role, kind in kinds.items()
        ]
        targets = read_as(self._needed("targets"), Targets).signed
        for name, delegation in publishers_of(targets).items():
            if (held := self._parse(publisher_role(name))) is not None:
                views.append(_role_view(publisher_role(name), held, delegation))
        return MetadataView(roles=tuple(views))

    def publishers(self) -> list[PublisherView]:
        """Return the publishers by name, those that were revoked among them."""
        targets = read_as(self._needed("targets"), Targets).signed
        counts = Counter(record.publisher for record in self._store.releases())
        views: list[PublisherView] = []
        for name, delegation in publishers_of(targets).items():
            held = self._parse(publisher_role(name))
            views.append(
                PublisherView(
                    name=name,
                    keys=tuple(delegation.keyids),
                    threshold=delegation.threshold,
                    releases=counts[name],
                    version=held.version if held else 0,
                    expires_at=held.expires if held else None,
                )
            )
        for name, revoked in revoked_publishers(targets).items():
            views.append(PublisherView(name=name, releases=counts[name], revoked=revoked))
        return sorted(views, key=lambda view: view.name)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, given: Mapping[str, bytes], audit: Audit, release: ReleaseRecord | None) -> Published:
        now = self._clock.now()
        accepted = accept(self.load, given, self._own, now)
        self._check_bins_exist(accepted)
        if release is not None:
            self._check_release(release, accepted)
        publication = self._publication(accepted.roles, now)
        affected = self._affected(accepted)
        snapshot = publication.roles["snapshot"][0]
        if release is not None:
            release = msgspec.structs.replace(release, vouched_at=snapshot)
        publication = msgspec.structs.replace(
            publication, release=release, vouched=dict.fromkeys(affected, snapshot)
        )
        if not given:
            # The same release once more: nothing to sign.
            publication = msgspec.structs.replace(publication, roles={})
        return Published(self._store.publish(publication, audit), affected)

    def _check_release(self, release: ReleaseRecord, accepted: Accepted) -> None:
        """Refuse a release that its publisher's metadata does not list, as it is."""
        changed = {role: content for role, (_, content) in accepted.roles.items()}
        shelf = Shelf(release.publisher, lambda role: changed.get(role) or self.load(role))
        target = shelf.find(release.name)
        if target is None or f"sha256:{target.hashes['sha256']}" != release.digest:
            message = f"publisher {release.publisher} has not signed this {release.name}"
            raise Rejected("release.unsigned", message, hint="skerry release push signs it")
        if target.length != len(release.document):
            raise Rejected("release.unsigned", f"another length of {release.name} is signed")
        if custom_of(target).evidence != release.evidence:
            raise Conflict("metadata.moved", "other evidence was signed in between", hint="try again")
        if revoked := custom_of(target).revoked:
            raise Conflict("release.revoked", f"{release.name} was revoked: {revoked.why}")

    def _check_bins_exist(self, accepted: Accepted) -> None:
        """Refuse a publisher's role whose bins would not all be there."""
        for publisher in accepted.publishers:
            shelf = Shelf(publisher, lambda role: accepted.roles.get(role, (0, None))[1] or self.load(role))
            for name in bin_names(shelf.read(shelf.role)) if shelf.role in accepted.roles else ():
                if shelf.load(name) is None:
                    raise Rejected("metadata.incomplete", f"the bin {name} is missing")

    def _affected(self, accepted: Accepted) -> frozenset[str]:
        """Return the releases here of which something else is signed from now on."""
        changed: dict[str, set[str] | None] = {
            publisher: None if "targets" in accepted.roles else self._changed_paths(publisher, accepted)
            for publisher in accepted.publishers
        }
        affected: set[str] = set()
        for record in self._store.releases() if changed else ():
            if record.publisher in changed:
                paths = changed[record.publisher]
                if paths is None or target_path(record.publisher, record.name) in paths:
                    affected.add(record.name)
        return frozenset(affected)

    def _changed_paths(self, publisher: str, accepted: Accepted) -> set[str]:
        """Return the targets of which a publisher signs something else than before."""
        roles = {r: content for r, (_, content) in accepted.roles.items() if publisher_of(r) == publisher}
        before, after = dict[str, TargetFile](), dict[str, TargetFile]()
        for role, content in roles.items():
            held = self._parse(role)
            before.update(held.targets if held else {})
            after.update(read_as(content, Targets).signed.targets)
        return {path for path, target in before.items() if after.get(path) != target}

    def _publication(
        self, roles: Mapping[str, tuple[int, bytes]], now: datetime, valid: timedelta = ONLINE_VALID
    ) -> Publication:
        """Return a publication of roles with the next snapshot and timestamp."""
        versions, after, timestamp = dict[str, int](), 0, 0
        if (held := self.load("snapshot")) is not None:
            snapshot = read_as(held, Snapshot).signed
            versions, after = snapshot_versions(snapshot), snapshot.version
            timestamp = read_as(self._needed("timestamp"), Timestamp).signed.version
        versions |= {role: version for role, (version, _) in roles.items() if role != "root"}
        restored = self._store.restored()
        base = restored.base if restored else 0
        next_snapshot, next_timestamp = max(after, base) + 1, max(timestamp, base) + 1
        signer = self.keys.online.signer
        made = make_snapshot(versions, version=next_snapshot, now=now, valid=valid)
        stamp = make_timestamp(next_snapshot, version=next_timestamp, now=now, valid=valid)
        online = {
            "snapshot": (next_snapshot, sign(made, [signer])),
            "timestamp": (next_timestamp, sign(stamp, [signer])),
        }
        return Publication(roles={**roles, **online}, after=after)

    # ── the beginning ────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        """Make the repository at the first start; after a restore, go on above whatever hosts may have seen."""
        now = self._clock.now()
        if self.load("root") is None:
            root = self.keys.trust_root.root_bytes
            targets = sign(first_targets(now), [self.keys.targets_key().signer])
            version = read_as(root, Root).signed.version
            roles = {"root": (version, root), "targets": (1, targets)}
            self._store.publish(self._publication(roles, now))
            return
        restored = self._store.restored()
        if restored is not None and self._store.metadata_versions()["timestamp"] <= restored.base:
            self._store.publish(self._publication({}, now))

    def _parse(self, role: str) -> Targets | None:
        """Return a role's newest metadata, parsed once."""
        if role not in self._parsed:
            content = self.load(role)
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[role] = read_as(content, Targets).signed if content is not None else None
        return self._parsed.get(role)

    def _needed(self, role: str) -> bytes:
        content = self.load(role)
        if content is None:
            hint = "restore the hub from a backup"
            raise Rejected("hub.metadata_lost", f"the {role} metadata is not in the database", hint=hint)
        return content

    def _note_trust_root(self) -> None:
        self._trust_root_bytes = self._encode_trust_root(self._needed("root"))
        self._trust_roots[digest_of(self._trust_root_bytes)] = self._trust_root_bytes
        self.keys.save_trust_root(self._trust_root_bytes)

    def _encode_trust_root(self, root: bytes) -> bytes:
        made = msgspec.structs.replace(self.keys.trust_root, root=msgspec.json.decode(root, type=dict))
        return msgspec.json.encode(made)


def _role_view(role: str, signed: Signed, held: Role) -> RoleView:
    return RoleView(
        role=role,
        version=signed.version,
        expires_at=signed.expires,
        keys=tuple(held.keyids),
        threshold=held.threshold,
    )


def _expiry(content: bytes, kind: type[Timestamp]) -> datetime:
    expires: datetime = read_as(content, kind).signed.expires
    return expires
