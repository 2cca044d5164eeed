"""A relay that takes bundles: a real hub makes them, a real relay takes them, and its way up can be cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from skerry.hub.bundling import plan_bundle
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing
from skerry.ports.hub_store import AssignmentRecord, ReleaseRecord, RolloutRecord
from skerry.relay.importing import import_at_relay
from skerry.relay.standing import write_status
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component
from skerry.spec.bundle import BUNDLE_TYPE, BundleManifest, BundleRequest, RelayImportView
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.testing.signing import Publisher
from skerry.trust.bundle import claimed_manifest, encode_start
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import Remote, Step, TargetFound, find_target, refresh, run_steps
from skerry.trust.repository import target_path
from tests.unit.relay_world import Segment, World

APP = "reader"


class Plant(World):
    """A hub with a publisher, whose sites harbour and airport come by relays."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hub = self.harbour.hub
        self.clock = self.harbour.clock
        self.publisher = Publisher().register(self.hub.repository, self.clock.now())
        self.blobs: dict[str, bytes] = {}

    async def assign(self, version: str, content: bytes, *sites: str) -> ReleaseRecord:
        """Publish a release of one file, and have sites run it."""
        spec = FileSpec(path="run", digest=digest_of(content), size_bytes=len(content))
        main = Component(name="main", bundle=Bundle(files=(spec,)), command=("./run",))
        application = ApplicationSpec(version=version, components=(main,))
        wanted = Release(application=Application(metadata=Metadata(APP), spec=application))
        document = encode_canonical(wanted)
        for one in (content, document):
            self.blobs[digest_of(one)] = one
            await self.hub.blobs.put(digest_of(one), one)
        now, store, audit = self.clock.now(), self.harbour.store, self.harbour.audit()
        signed = self.publisher.vouch(self.hub.repository.load, wanted, now)
        record = ReleaseRecord(
            name=wanted.name,
            application=APP,
            version=version,
            digest=digest_of(document),
            document=document,
            size_bytes=len(content),
            created_at=now,
            created_by="ann",
            publisher=self.publisher.name,
        )
        given = {role.role: role.content for role in signed.metadata}
        self.hub.repository.publish(given, audit, release=record)
        rollout = Rollout(
            metadata=Metadata(f"to-{version}"), spec=RolloutSpec(release=wanted.name, sites="*")
        )
        kept = RolloutRecord(
            name=f"to-{version}",
            document=encode_canonical(rollout),
            release=wanted.name,
            application=APP,
            created_at=now,
            created_by="ann",
        )
        store.apply_documents(sites={}, rollouts=[kept], audits=())
        found = [
            AssignmentRecord(site=site, application=APP, release=wanted.name, rollout=kept.name)
            for site in sites
        ]
        store.advance_rollout(kept, assign=found)
        for site in sites:
            await self.hub.issuer.issue(site)
        return record

    async def bundle(self, *sites: str, **asked: Any) -> bytes:
        """Return a bundle, as the command line writes it."""
        records = [record for site in sites if (record := self.harbour.store.site(site)) is not None]
        answer = await plan_bundle(self.hub, BundleRequest(sites=sites, **asked), records)
        (envelope,) = answer.files
        head = msgspec.json.encode(envelope)
        manifest = manifest_of(encode_start(head) + head)
        rest = [self.blobs[one.digest] for one in manifest.entries[len(answer.small) :]]
        return encode_start(head) + head + b"".join((*answer.small, *rest))

    def forge(
        self,
        content: bytes,
        change: Callable[[BundleManifest], BundleManifest],
        *,
        key: SigningKey | None = None,
    ) -> bytes:
        """Return a bundle with another manifest, signed by the hub's key or another."""
        manifest = change(manifest_of(content))
        head = msgspec.json.encode(sign_document(manifest, BUNDLE_TYPE, key or self.hub.keys.key))
        return encode_start(head) + head + content[start_of(content) :]

    def say(self, relay: Segment) -> None:
        """Write what the relay would have written of itself; its idea of the time is the test's."""
        offset_s = (self.clock.now() - datetime.now(UTC)).total_seconds()
        status = msgspec.structs.replace(relay.process.standing.status(), clock_offset_s=offset_s)
        write_status(relay.data, status)

    async def carry(self, relay: Segment, content: bytes, *, dry_run: bool = False) -> RelayImportView:
        """Import a bundle, as the command line does."""
        self.say(relay)
        file = self.folder / "stick.bundle"
        file.write_bytes(content)
        return await asyncio.to_thread(
            import_at_relay, relay.data, file, dry_run=dry_run, timeout_s=30.0, tell=lambda _, __: None
        )

    async def take(self, relay: Segment, content: bytes) -> dict[str, Any]:
        """Import a bundle, and have the relay take it; return what it answers."""
        await self.carry(relay, content)
        return await self.look(relay)

    async def look(self, relay: Segment) -> dict[str, Any]:
        """Have the relay look once; return what it answers to the bundle that was there."""
        await relay.process.carried.step()
        answers = [json.loads(one.read_bytes()) for one in (relay.data / "carried").glob("*.answer")]
        return answers[0] if answers else {}

    async def read(self, relay: Segment, digest: str) -> bytes:
        """Return a blob that the relay serves."""
        return b"".join([chunk async for chunk in relay.process.cache.read(digest)])

    async def vouched(self, relay: Segment, record: ReleaseRecord) -> TargetFound | None:
        """Look for a release as a host does, from its first root on, with what the relay serves."""
        loop = asyncio.get_running_loop()

        def answer(step: Step) -> bytes | None:
            if not isinstance(step, Remote):
                return None
            asking = asyncio.run_coroutine_threadsafe(relay.backend.metadata(step.name), loop)
            try:
                return asking.result(30)
            except Missing:
                return None

        def find() -> TargetFound | None:
            pinned = relay.process.identity.trust.pinned
            trusted = run_steps(refresh(pinned, now=self.clock.now()), answer)
            return run_steps(find_target(trusted, target_path(record.publisher, record.name)), answer)

        return await asyncio.to_thread(find)


def start_of(content: bytes) -> int:
    """Return where a bundle's entries begin."""
    return 20 + int.from_bytes(content[16:20], "big")


def manifest_of(content: bytes) -> BundleManifest:
    """Return what a bundle says of itself."""
    return claimed_manifest(msgspec.json.decode(content[20 : start_of(content)]))


def standing(relay: Segment) -> tuple[dict[str, int], dict[str, bytes], frozenset[str]]:
    """Return all that a bundle could change at a relay."""
    kept = [relay.data / "files", relay.data / "metadata"]
    files = {str(file): file.read_bytes() for folder in kept for file in folder.rglob("*") if file.is_file()}
    waiting = {str(file): b"" for file in (relay.data / "carried").glob("*.bundle")}
    blobs = frozenset(file.name for file in (relay.data / "blobs").rglob("*") if file.is_file())
    return dict(relay.process.holdings.desired), {**files, **waiting}, blobs
