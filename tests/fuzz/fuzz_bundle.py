"""Bundles and carried reports: refused by their code, or read, whatever a stick holds.

Each input is taken as a whole file, as a manifest that is rightly signed, and as a file of reports.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.carrier.bundle_file import REPORTS_MAGIC, read_reports
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import SkerryError, Untrusted
from skerry.spec.bundle import (
    BUNDLE_TYPE,
    BundleEntry,
    BundleHost,
    BundleManifest,
    BundleSite,
    CarriedReports,
    EntryKind,
)
from skerry.trust.bundle import MAGIC, START_BYTES, encode_start, entries_for, read_head, read_small
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from tests.fuzz.target import Broken, Target

_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes((3,)) * 32))
_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_CONTENTS: tuple[tuple[EntryKind, str, bytes], ...] = (
    ("metadata", "1.root.json", b"{}"),
    ("metadata", "timestamp.json", b"{}{}"),
    ("desired", "mine", b'{"payload":"","signatures":[]}'),
    ("blob", "reader@1", b"abc"),
    ("blob", "reader@1 run", b""),
)
_DATA = b"".join(content for _, _, content in _CONTENTS)


def _manifest() -> BundleManifest:
    entries: list[BundleEntry] = []
    offset = 0
    for kind, name, content in _CONTENTS:
        entries.append(
            BundleEntry(
                kind=kind, name=name, digest=digest_of(content), size_bytes=len(content), offset=offset
            )
        )
        offset += len(content)
    host = BundleHost(acknowledged=7, entries=(3, 4), releases=("reader@1",))
    return BundleManifest(
        id="0" * 32,
        hub="h",
        made_at=_NOW,
        expires_at=_NOW + timedelta(days=60),
        sites={"mine": BundleSite(generation=3, hosts={"edge": host})},
        entries=tuple(entries),
    )


def run(data: bytes) -> None:
    """Take an input as a file, as a manifest before the right bytes, and as reports."""
    _read(data)
    try:
        manifest = msgspec.json.decode(data, type=BundleManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        manifest = None
    if manifest is not None:
        _read(_file(manifest))
    _read_reports(data)
    _read_reports(REPORTS_MAGIC + len(data).to_bytes(4, "big") + data)


def _file(manifest: BundleManifest) -> bytes:
    head = msgspec.json.encode(sign_document(manifest, BUNDLE_TYPE, _KEY))
    return encode_start(head) + head + _DATA


def _read(file: bytes) -> None:
    read: list[tuple[int, int]] = []

    def read_at(offset: int, size: int) -> bytes:
        if offset < 0 or size < 0:
            raise Broken("read before the beginning")
        read.append((offset, size))
        return file[offset : offset + size]

    try:
        head = read_head(read_at, len(file))
        small = read_small(head, read_at)
        manifest = head.verify([_KEY.verifier])
    except SkerryError as refused:
        if not refused.code.startswith(("bundle.", "envelope.", "document.")):
            raise Broken(f"refused as {refused.code}") from refused
        return
    if head.end != len(file):
        raise Broken("not all of it is listed, or more than all")
    places = sorted((head.at(entry), entry.size_bytes) for entry in manifest.entries)
    if any(at + size > after for (at, size), (after, _) in pairwise(places) if size):
        raise Broken("entries overlap")
    if places and (places[0][0] < START_BYTES or sum(places[-1]) > len(file)):
        raise Broken("an entry lies outside")
    if any("/" in name or name.startswith(".") for name in small.metadata):
        raise Broken("a name that leads somewhere")
    for name, site in manifest.sites.items():
        for host in site.hosts:
            if any(entry.kind not in ("blob", "delta") for entry in entries_for(manifest, name, host)):
                raise Broken("a host would take metadata for a blob")


def _read_reports(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            size = sum(len(part.reports) for part in read_reports(Path(file.name)))
        except SkerryError as refused:
            if not refused.code.startswith("reports."):
                raise Broken(f"refused as {refused.code}") from refused
            return
    if size > len(content):
        raise Broken("more came out than was in it")


def _reshape(data: bytes, random: Random) -> bytes:
    """Change a manifest by its fields, so that it is still one."""
    try:
        manifest = msgspec.json.decode(data, type=BundleManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    entries = list(manifest.entries)
    if not entries:
        return data
    at = random.randrange(len(entries))
    match random.randrange(5):
        case 0:
            del entries[at]
        case 1:
            entries.insert(at, random.choice(entries))
        case 2:
            entries[at] = msgspec.structs.replace(entries[at], offset=random.randrange(64))
        case 3:
            entries[at] = msgspec.structs.replace(entries[at], size_bytes=random.randrange(1 << 34))
        case _:
            name = random.choice(["1.../x.json", "mine", "../../etc", "2.root.json", "a" * 400])
            entries[at] = msgspec.structs.replace(entries[at], name=name)
    return encode_canonical(msgspec.structs.replace(manifest, entries=tuple(entries)))


def seeds() -> list[bytes]:
    """Return a bundle, manifests by themselves, and reports."""
    manifest = _manifest()
    delta = msgspec.structs.replace(
        manifest.entries[3],
        kind="delta",
        base=(digest_of(b"base"),),
        target=digest_of(b"target"),
        target_bytes=6,
    )
    with_delta = msgspec.structs.replace(
        manifest, entries=(*manifest.entries[:3], delta, manifest.entries[4])
    )
    reports = msgspec.json.encode(CarriedReports(reports=({"payload": "", "signatures": []},)))
    return [
        _file(manifest),
        encode_canonical(manifest),
        encode_canonical(with_delta),
        REPORTS_MAGIC + len(reports).to_bytes(4, "big") + reports,
        reports,
        MAGIC + b"\xff\xff\xff\xff",
        b"",
    ]


def _check_seeds() -> None:
    """Hold the seeds against the reader once: a seed that is refused reaches nothing."""
    file = _file(_manifest())
    head = read_head(lambda offset, size: file[offset : offset + size], len(file))
    try:
        head.verify([_KEY.verifier])
    except Untrusted as error:
        raise Broken("the seed is not taken") from error


_check_seeds()

TARGET = Target(
    run,
    seeds,
    reshape=_reshape,
    tokens=(
        MAGIC,
        REPORTS_MAGIC,
        b'"entries"',
        b'"sites"',
        b'"hosts"',
        b'"offset"',
        b'"size_bytes"',
        b'"kind"',
        b'"metadata"',
        b'"desired"',
        b'"delta"',
        b'"target"',
    ),
    max_bytes=8192,
)
