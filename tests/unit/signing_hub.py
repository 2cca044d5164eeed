"""The hub's own repository behind a hub double, its offline keys at hand, and whoever signs on a machine of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.system_clock import SystemClock
from skerry.client.client import Client
from skerry.client.delegating import Signers, holders_of, sign_new_publisher
from skerry.client.hub_files import HubFiles
from skerry.client.key_files import make_key_pair
from skerry.client.publishing import Author, Publishing, publish_metadata
from skerry.client.signing import open_signers
from skerry.client.trusting import HubRepository
from skerry.hub.evidence import stated_evidence
from skerry.hub.keeping import OFFLINE, HubKeys
from skerry.hub.repository import Repository
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.hub_store import Audit, ReleaseRecord
from skerry.spec.carrier import TrustRoot
from skerry.spec.publishing import PublishRequest
from skerry.trust.keys import SigningKey
from skerry.trust.repository import RootKeys, make_root, sign

CLOCK = SystemClock()


class SigningHub:
    """A repository as a hub has it. `offline` are the PEM files of the root and targets keys."""

    def __init__(self, folder: Path, hub: str, ca_pem: str) -> None:
        self.offline = folder / OFFLINE
        self.offline.mkdir(parents=True)
        now, (key, online, root_key, targets_key) = (
            CLOCK.now(),
            [SigningKey.generate() for _ in range(4)],
        )
        (self.offline / "root.pem").write_bytes(root_key.to_pem())
        (self.offline / "targets.pem").write_bytes(targets_key.to_pem())
        keys = RootKeys(
            root=[root_key.verifier],
            targets=[targets_key.verifier],
            online=online.verifier,
            desired=[key.verifier],
        )
        root = sign(make_root(hub, keys, version=1, now=now), [root_key.signer])
        trust_root = TrustRoot(hub=hub, ca_pem=ca_pem, root=json.loads(root))
        self.trust_root = msgspec.json.encode(trust_root)
        (folder / "trust-root.json").write_bytes(self.trust_root)
        self.pinned = trust_root.root_bytes
        self.keys = HubKeys(folder, key, online, trust_root)
        self.served: dict[str, bytes | None] = {}
        """What is given out in the place of a metadata file."""
        self.overtaken: list[Callable[[], object]] = []
        """What happens just before the next publications, one each."""
        self.mute = False
        """Whether what is taken is answered as if the line had been cut."""
        self.begin()

    def begin(self) -> None:
        """Begin with nothing published, as after the loss of the database."""
        self.store = SqlHubStore.open(None)
        self.repository = Repository(self.store, self.keys, CLOCK)

    def file(self, name: str) -> bytes | None:
        """Return a metadata file."""
        return self.served[name] if name in self.served else self.repository.file(name)

    def publish(self, given: dict[str, bytes], release: ReleaseRecord | None = None) -> bool:
        """Take metadata; tell whether its release is new."""
        if self.overtaken:
            self.overtaken.pop(0)()
        audit = Audit(at=CLOCK.now(), who="test", action="publish", subject="test")
        new = self.repository.publish(given, audit, release=release).new
        if self.mute:
            raise Unavailable("hub.cut", "the line was cut")
        return new

    def release(self, request: PublishRequest) -> ReleaseRecord:
        """Return what the hub stores of a release."""
        document = json.loads(request.document)["application"]
        name, version = document["metadata"]["name"], document["spec"]["version"]
        return ReleaseRecord(
            name=f"{name}@{version}",
            application=name,
            version=version,
            digest=digest_of(request.document),
            document=request.document,
            size_bytes=1,
            created_at=CLOCK.now(),
            created_by="test",
            publisher=request.publisher,
            evidence=stated_evidence(
                self.repository.load,
                {role.role: role.content for role in request.metadata},
                request.publisher,
                f"{name}@{version}",
            ),
        )


def machine(client: Client, hub: SigningHub, folder: Path) -> HubRepository:
    """Return what a machine believes of the hub, kept below `folder`."""
    files = HubFiles(folder / "config.json", hub.keys.trust_root.hub)
    return HubRepository(files, hub.pinned, client.metadata, CLOCK.now)


def no_secret(what: str) -> str:
    """Be asked for no passphrase."""
    raise AssertionError(what)


def publishing_as(
    client: Client, repository: HubRepository, publisher: str, signers: Sequence[str]
) -> Publishing:
    """Return one who signs for a publisher."""
    return Publishing(client, repository, Author(publisher, open_signers(signers, no_secret)))


def registered(client: Client, hub: SigningHub, folder: Path, name: str = "acme") -> Publishing:
    """Return a publisher that the hub knows from now on, with a key and a machine of its own."""

    folder.mkdir(parents=True, exist_ok=True)
    key = folder / f"{name}.pem"
    public = make_key_pair(key)
    repository = machine(client, hub, folder)
    signers = Signers(
        open_signers([str(hub.offline / "targets.pem")], no_secret), open_signers([str(key)], no_secret)
    )
    holders = holders_of([public], 1, name)
    publish_metadata(client, repository, lambda seen: sign_new_publisher(seen, name, holders, signers))
    return publishing_as(client, repository, name, [str(key)])


def in_years(years: int) -> Callable[[], datetime]:
    """Return a clock that is ahead."""
    return lambda: CLOCK.now().replace(year=CLOCK.now().year + years, day=1)
