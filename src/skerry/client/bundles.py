"""Puts bundles together from what the hub plans and its blobs, and hands carried reports over.

Rules: the hub's plan is checked like a stranger's bundle, so that no file is written that a host would refuse for its
form; what is there under a name is never overwritten; several files are made one after the other, each whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from skerry.carrier.bundle_file import Tell, open_bundle, read_reports, write_bundle
from skerry.client.client import Client
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Denied, Missing, SkerryError, Untrusted
from skerry.spec.bundle import BundleAnswer, BundleManifest, CarriedAnswer
from skerry.spec.carrier import JsonEnvelope
from skerry.trust.bundle import SMALL, check_manifest, claimed_manifest
from skerry.trust.metadata import Remote, Step, desired_keys, follow_root, run_steps
from skerry.trust.report import claimed_key


class Inspected(msgspec.Struct, frozen=True):
    """What a bundle says of itself; its bytes are as its manifest lists them.

    `signed_by` are the ids of the keys that the root in it, of version `root`, lets sign. Whether that root is the
    hub's only who has pinned one can tell: a host does.
    """

    manifest: BundleManifest
    size_bytes: int
    root: int
    signed_by: tuple[str, ...]


class HandedOver(msgspec.Struct, frozen=True):
    """What came of carried reports, by host, and the keys of hosts of which something was refused, and why."""

    hosts: tuple[CarriedAnswer, ...]
    refused: dict[str, SkerryError]

    @property
    def taken(self) -> int:
        """How many reports were new."""
        return sum(host.taken for host in self.hosts)


def manifests_of(answer: BundleAnswer) -> list[BundleManifest]:
    """Return the manifests of a hub's plan.

    Raises:
        Untrusted: one is not as any is made (`bundle.malformed`).
    """
    found = [claimed_manifest(envelope) for envelope in answer.files]
    for manifest in found:
        check_manifest(manifest)
        small = [entry for entry in manifest.entries if entry.kind in SMALL]
        if [entry.digest for entry in small] != [digest_of(content) for content in answer.small]:
            raise Untrusted("bundle.malformed", "the hub sent other metadata than its manifest lists")
    return found


def names_for(target: Path, parts: int) -> list[Path]:
    """Return the names of a bundle's files: the one that was given, or that with numbers."""
    if parts == 1:
        return [target]
    return [target.with_name(f"{target.name}.{number}") for number in range(1, parts + 1)]


def write_bundles(
    client: Client, answer: BundleAnswer, target: Path, tell: Callable[[Path], Tell]
) -> list[tuple[Path, int]]:
    """Write the files of a bundle and return each with its length in bytes.

    Raises:
        Conflict: a name is taken (`bundle.exists`); nothing is written then.
        SkerryError: as `write_bundle`, and what the hub refuses.
    """
    manifests = manifests_of(answer)
    names = names_for(target, len(manifests))
    for name in names:
        if name.exists() or name.is_symlink():
            raise Conflict("bundle.exists", f"there is a file {name} already", hint="choose another name")
    return [
        (name, write_bundle(name, envelope, manifest, answer.small, client.download, tell=tell(name)))
        for name, envelope, manifest in zip(names, answer.files, manifests, strict=True)
    ]


def envelope_of(path: Path) -> JsonEnvelope:
    """Return the signed manifest of a bundle, unverified.

    Raises:
        SkerryError: as `skerry.carrier.bundle_file.open_bundle`.
    """
    with open_bundle(path) as bundle:
        return bundle.head.envelope


def inspect_bundle(path: Path, tell: Tell) -> Inspected:
    """Read a whole bundle and return what is in it.

    Raises:
        Untrusted: it is cut off, altered or malformed (`bundle.*`), or no key of the root in it signed it
            (`envelope.*`).
        Missing, Rejected, Unavailable: as `skerry.carrier.bundle_file.open_bundle`.
    """
    with open_bundle(path) as bundle:
        bundle.check(tell)
        files = bundle.small().metadata
        roots = sorted((int(name.partition(".")[0]), name) for name in files if name.endswith(".root.json"))
        if not roots:
            raise Untrusted("bundle.malformed", "the bundle is not as any is made: it has no root")
        first = files[roots[0][1]]

        def answer(step: Step) -> bytes | None:
            return files.get(step.name) if isinstance(step, Remote) else None

        root = run_steps(follow_root(first, online=True), answer).root
        keys = desired_keys(root)
        manifest = bundle.head.verify(keys)
        return Inspected(manifest, bundle.head.end, root.version, tuple(key.keyid for key in keys))


def hand_over(client: Client, path: Path, tell: Callable[[int], None]) -> HandedOver:
    """Hand the reports of a file to the hub, host by host; one host that is refused is no matter to others.

    Raises:
        SkerryError: what the file or the hub refuses for all; what was handed over before is taken.
    """
    hosts: dict[str, CarriedAnswer] = {}
    refused: dict[str, SkerryError] = {}
    for part in read_reports(path):
        key = claimed_key(part.reports[0])
        if key in refused:
            continue
        try:
            answer = client.import_reports(part)
        except (Untrusted, Denied, Conflict, Missing) as error:
            refused[key] = error
            continue
        before = hosts.get(key)
        hosts[key] = msgspec.structs.replace(answer, taken=answer.taken + (before.taken if before else 0))
        tell(len(part.reports))
    return HandedOver(tuple(hosts.values()), refused)
