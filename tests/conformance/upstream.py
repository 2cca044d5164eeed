"""A TUF repository on 127.0.0.1 whose every file a test may alter, and a client of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from skerry.kit.errors import SkerryError
from tests.conformance import tuf_client

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
TOP = ("root", "timestamp", "snapshot", "targets")
Respond = Callable[[BaseHTTPRequestHandler], None]


class Upstream:
    """`signed` is what will be published next, `files` what is served, `asked` what was asked for.

    `respond` has what answers in the place of a file, by its name.
    """

    def __init__(self, *, consistent: bool = True) -> None:
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in TOP}
        self.signed: dict[str, Signed] = {
            "root": Root(expires=LATER, consistent_snapshot=consistent),
            "timestamp": Timestamp(expires=LATER),
            "snapshot": Snapshot(expires=LATER),
            "targets": Targets(expires=LATER),
        }
        for role, signers in self.signers.items():
            self.root.add_key(signers[0].public_key, role)
        self.hashes = False
        self.files: dict[str, bytes] = {}
        self.targets_served: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.respond: dict[str, Respond] = {}
        self._published: set[str] = set()
        self.publish("targets", "snapshot", "timestamp", "root")

    @property
    def root(self) -> Root:
        found = self.signed["root"]
        assert isinstance(found, Root)
        return found

    @property
    def timestamp(self) -> Timestamp:
        found = self.signed["timestamp"]
        assert isinstance(found, Timestamp)
        return found

    @property
    def snapshot(self) -> Snapshot:
        found = self.signed["snapshot"]
        assert isinstance(found, Snapshot)
        return found

    def targets(self, role: str = "targets") -> Targets:
        found = self.signed[role]
        assert isinstance(found, Targets)
        return found

    def publish(self, *roles: str, bump: bool = True) -> None:
        """Sign roles and serve them, each one version on; those above name them."""
        for role in roles:
            signed = self.signed[role]
            if bump and role in self._published:
                signed.version += 1
            self._published.add(role)
            self.serve(role, self.sign(role))

    def publish_all(self) -> None:
        """Publish every role with those that name it; the root stays."""
        delegated = [role for role in self.signed if role not in TOP]
        self.publish(*delegated, "targets", "snapshot", "timestamp")

    def sign(self, role: str) -> bytes:
        metadata: Metadata[Any] = Metadata(cast(Any, self.signed[role]))
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def serve(self, role: str, content: bytes) -> None:
        """Serve this as a role's newest file."""
        version, name = self.signed[role].version, quote(role, "")
        self.files[f"{version}.{name}.json"] = content
        if role != "root":
            self.files[f"{name}.json"] = content
        meta = MetaFile(version)
        if self.hashes:
            meta = MetaFile(version, len(content), {"sha256": hashlib.sha256(content).hexdigest()})
        if role == "snapshot":
            self.timestamp.snapshot_meta = meta
        elif role not in ("root", "timestamp"):
            self.snapshot.meta[f"{role}.json"] = meta

    def rotate(self, role: str, keys: int = 1) -> None:
        """Give a role of the top level new keys; the root is to be published."""
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.signers[role] = [CryptoSigner.generate_ed25519() for _ in range(keys)]
        for signer in self.signers[role]:
            self.root.add_key(signer.public_key, role)

    def rewind(self, role: str, version: int = 1) -> None:
        """Let a role's next publication have an older version."""
        self.signed[role].version = version - 1

    def delegate(
        self, delegator: str, role: str, *paths: str, terminating: bool = False, expires: datetime = LATER
    ) -> Targets:
        """Delegate paths (all by default) to a role, which is made if it is not there."""
        targets = self.targets(delegator)
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        assert targets.delegations.roles is not None
        targets.delegations.roles[role] = DelegatedRole(
            role, [], 1, terminating=terminating, paths=list(paths or ("*",))
        )
        self.signers.setdefault(role, [CryptoSigner.generate_ed25519()])
        self.signed.setdefault(role, Targets(expires=expires))
        targets.add_key(self.signers[role][0].public_key, role)
        return self.targets(role)

    def delegate_to_bins(self, delegator: str, prefix: str, bits: int) -> SuccinctRoles:
        """Delegate everything to bins by hash."""
        signer = CryptoSigner.generate_ed25519()
        bins = SuccinctRoles([signer.public_key.keyid], 1, bits, prefix)
        keys: dict[str, Key] = {signer.public_key.keyid: signer.public_key}
        self.targets(delegator).delegations = Delegations(keys, succinct_roles=bins)
        for name in bins.get_roles():
            self.signers[name] = [signer]
            self.signed[name] = Targets(expires=LATER)
        return bins

    def add_target(self, role: str, path: str, content: bytes) -> None:
        """List a target in a role, and serve it by its name and with its hash before that."""
        self.targets(role).targets[path] = TargetFile.from_data(path, content, ["sha256"])
        place, slash, name = path.rpartition("/")
        self.targets_served[path] = content
        self.targets_served[f"{place}{slash}{hashlib.sha256(content).hexdigest()}.{name}"] = content


class Client:
    """Runs the command against an upstream: returns the code of its refusal, empty when it succeeded."""

    def __init__(self, folder: Path, upstream: Upstream, url: str) -> None:
        self.upstream = upstream
        self.folder = folder / "metadata"
        self.target_dir = folder / "targets"
        self.url = url
        self.folder.mkdir()

    def init(self, root: bytes | None = None) -> None:
        """Begin with a root, that of version 1 by default."""
        file = self.folder.parent / "trusted_root.json"
        file.write_bytes(root if root is not None else self.upstream.files["1.root.json"])
        assert self.run("--metadata-dir", str(self.folder), "init", str(file)) == ""

    def refresh(self, *more: str, days: float = 0) -> str:
        return self.run(*self.refresh_arguments(*more), days=days)

    def refresh_arguments(self, *more: str) -> list[str]:
        where = ["--metadata-dir", str(self.folder), "--metadata-url", self.url + "/metadata/"]
        return [*where, *more, "refresh"]

    def download(self, path: str, *, days: float = 0) -> str:
        return self.run(*self.download_arguments(path), days=days)

    def download_arguments(self, path: str) -> list[str]:
        where = ["--metadata-dir", str(self.folder), "--metadata-url", self.url + "/metadata"]
        into = ["--target-dir", str(self.target_dir), "--target-base-url", self.url + "/targets"]
        return [*where, *into, "--target-name", path, "download"]

    def run(self, *arguments: str, days: float = 0) -> str:
        self.upstream.asked.clear()
        try:
            tuf_client.run(arguments, NOW + timedelta(days=days))
        except SkerryError as refused:
            return refused.code
        return ""

    def version(self, role: str) -> int | None:
        """Return which version of a role is trusted."""
        file = self.folder / f"{quote(role, '')}.json"
        return json.loads(file.read_bytes())["signed"]["version"] if file.exists() else None

    @property
    def versions(self) -> list[int | None]:
        """Return the trusted versions of root, timestamp, snapshot and targets."""
        return [self.version(role) for role in TOP]

    @property
    def asked(self) -> list[str]:
        return [name for name in self.upstream.asked if name.endswith(".json")]

    def downloaded(self) -> list[bytes]:
        files = self.target_dir.iterdir() if self.target_dir.exists() else ()
        return sorted(file.read_bytes() for file in files)


@contextmanager
def serving(upstream: Upstream) -> Generator[str]:
    """Serve a repository; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, name = self.path.split("/", 2)
            upstream.asked.append(name)
            respond = upstream.respond.get(name)
            with suppress(ConnectionError):
                if respond is not None:
                    respond(self)
                    return
                files = upstream.files if kind == "metadata" else upstream.targets_served
                content = files.get(name)
                answer(self, b"" if content is None else content, 404 if content is None else 200)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200) -> None:
    """Answer with a content and its length."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
