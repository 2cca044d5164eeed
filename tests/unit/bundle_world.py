"""Bundles made by hand, as a hub makes them or as an attacker would, and hosts that take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.carried import Carried, CarriedParts
from skerry.agent.identity import Identity, Place, load_identity, save_place
from skerry.agent.importing import import_bundle
from skerry.agent.keys import KeyFiles
from skerry.agent.loops.sync import Syncer
from skerry.kit.digests import digest_of
from skerry.ports.agent_store import AgentStore
from skerry.spec.bundle import BUNDLE_TYPE, BundleEntry, BundleHost, BundleManifest, BundleSite, ImportView
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import Assignment, ReleaseRef
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.bundle import encode_start
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import Remote, Step, find_target, refresh, run_steps
from skerry.trust.repository import target_path
from tests.unit.agent_world import APP, Upstream
from tests.unit.upstream import HUB, NOW, ScriptedLink, desired

ID = "0" * 32


def metadata_of(hub: Upstream, releases: Mapping[str, ReleaseRef]) -> dict[str, bytes]:
    """Return the files by which a host judges releases."""
    files = {"1.root.json": hub.signed.first_root}

    def answer(step: Step) -> bytes | None:
        content = hub.signed.file(step.name) if isinstance(step, Remote) else None
        if content is not None:
            files[step.name] = content
        return content

    trusted = run_steps(refresh(hub.signed.first_root, now=hub.signed.now), answer)
    for name, ref in releases.items():
        run_steps(find_target(trusted, target_path(ref.publisher, name)), answer)
    return files


class Stick:
    """What is carried: a bundle for host edge of site harbour, to be changed before it is written."""

    def __init__(self, hub: Upstream, generation: int, ref: ReleaseRef, version: str = "1") -> None:
        name = f"{APP}@{version}"
        self.key: SigningKey = HUB
        self.desired = desired(
            generation,
            at=hub.signed.now,
            hosts={"edge": (Assignment(application=APP, release=name),)},
            releases={name: ref},
        )
        self.metadata = metadata_of(hub, {name: ref})
        self.blobs: dict[str, bytes] = {}
        self.extra: tuple[tuple[BundleEntry, bytes], ...] = ()
        self.manifest = BundleManifest(
            id=ID,
            hub="h",
            made_at=hub.signed.now,
            expires_at=hub.signed.now + timedelta(days=60),
            sites={"harbour": BundleSite(generation=generation, hosts={})},
            entries=(),
        )
        self.acknowledged = 0
        self.tamper: Callable[[BundleManifest], BundleManifest] = lambda manifest: manifest

    def add(self, *contents: bytes) -> Stick:
        """Put blobs into it."""
        self.blobs |= {digest_of(content): content for content in contents}
        return self

    def build(self) -> bytes:
        """Return its bytes."""
        pieces = [("metadata", name, content) for name, content in self.metadata.items()]
        pieces += [("desired", name, msgspec.json.encode(self.desired)) for name in self.manifest.sites]
        pieces += [("blob", f"blob {digest}", content) for digest, content in self.blobs.items()]
        entries: list[BundleEntry] = []
        contents: list[bytes] = []
        offset = 0
        for kind, name, content in pieces:
            entry = BundleEntry(
                kind=kind,  # type: ignore[arg-type]
                name=name,
                digest=digest_of(content),
                size_bytes=len(content),
                offset=offset,
            )
            entries.append(entry)
            contents.append(content)
            offset += len(content)
        for entry, content in self.extra:
            entries.append(msgspec.structs.replace(entry, offset=offset))
            contents.append(content)
            offset += len(content)
        places = tuple(n for n, entry in enumerate(entries) if entry.kind in ("blob", "delta"))
        host = BundleHost(acknowledged=self.acknowledged, entries=places, releases=())
        sites = {
            name: msgspec.structs.replace(site, hosts={"edge": host})
            for name, site in self.manifest.sites.items()
        }
        manifest = msgspec.structs.replace(self.manifest, sites=sites, entries=tuple(entries))
        return self.bytes_of(self.tamper(manifest), b"".join(contents))

    def bytes_of(self, manifest: BundleManifest, content: bytes) -> bytes:
        """Return the bytes of any manifest, rightly signed, with any content."""
        head = msgspec.json.encode(sign_document(manifest, BUNDLE_TYPE, self.key))
        return encode_start(head) + head + content


class Host:
    """A host of site harbour with a data directory; `generation` is what its agent last said."""

    def __init__(self, data: Path, hub: Upstream, *, now: datetime = NOW, generation: int = 0) -> None:
        self.data = data
        self.now = now
        root = hub.signed.trust_root()
        raw = msgspec.json.encode(root)
        data.mkdir(parents=True, exist_ok=True)
        save_place(
            data, Place(host="edge", site="harbour", upstream="https://hub:8443", root=digest_of(raw)), raw
        )
        KeyFiles(data).make()
        self.blobs = DirectoryBlobs(data / "blobs")
        self.say(generation)

    def say(self, generation: int) -> None:
        """Write what the agent would have written of itself; its idea of the time is the test's."""
        offset = (self.now - datetime.now(UTC)).total_seconds()
        status = {"time": {"offset_s": offset}, "observed": {"generation": generation}}
        place = {"host": "edge", "site": "harbour"}
        (self.data / "status.json").write_text(json.dumps({**place, **status}))

    def take(self, bundle: bytes, *, dry_run: bool = False) -> ImportView:
        """Import a bundle."""
        file = self.data.parent / "stick.bundle"
        file.write_bytes(bundle)
        return import_bundle(self.data, file, dry_run=dry_run, timeout_s=1.0, tell=lambda _, __: None)

    def files(self) -> dict[str, bytes]:
        """Return all files of the data directory, but what says how the agent stands."""
        found = {str(file.relative_to(self.data)): file for file in self.data.rglob("*") if file.is_file()}
        return {name: file.read_bytes() for name, file in found.items() if name != "status.json"}


class Taking:
    """A host whose agent runs, as far as it takes what is carried."""

    def __init__(self, host: Host, store: AgentStore | None = None) -> None:
        self.host = host
        self.clock = SimulatedClock(host.now)
        self.identity: Identity = load_identity(host.data)
        self.store = store or MemoryAgentStore()
        self.syncer = Syncer(self.identity, self.store, ScriptedLink(_nobody), self.clock)
        self.told: list[str] = []
        parts = CarriedParts(
            identity=self.identity,
            clock=self.clock,
            now=self.syncer.now,
            desired=lambda: self.syncer.desired,
            take=self.syncer.take_carried,
            reports=self.syncer.reports_to_carry,
            note=lambda kind, message: self.told.append(f"{kind}: {message}"),
        )
        self.carried = Carried(host.data, parts)

    async def step(self) -> dict[str, Any]:
        """Look once; return what is answered to the bundle that was there."""
        await self.carried.step()
        answers = sorted((self.host.data / "carried").glob("*.answer"))
        found: dict[str, Any] = json.loads(answers[0].read_bytes()) if answers else {}
        return found

    @property
    def generation(self) -> int:
        """The generation that the host acts on."""
        return self.syncer.desired.generation if self.syncer.desired else 0


def _nobody(*_: object) -> Any:
    raise AssertionError("nothing is asked of an upstream")


def envelope_of(generation: int, **changes: Any) -> JsonEnvelope:
    """Return a signed DesiredState."""
    return desired(generation, **changes)
