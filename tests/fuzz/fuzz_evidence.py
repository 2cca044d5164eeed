"""Evidence as publishers send it: refused with its place, or summed up as every other reader sums it up.

Each input is taken as a file of every kind, and as the payload of an attestation.
"""

from __future__ import annotations

import base64

import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected
from skerry.spec.evidence import EVIDENCE_KINDS, Evidence
from skerry.trust.attestations import PAYLOAD_TYPE, is_signed_by, read_attestation_key
from skerry.trust.evidence import Subject, detect_kind, summarise, verify_summary
from skerry.trust.keys import SigningKey
from tests.fuzz.target import Broken, Target
from tests.unit.evidence_files import SAMPLES, as_bytes, attestation, statement

_RELEASE = "sha256:" + "1" * 64
_SUBJECT = Subject(_RELEASE, frozenset(["sha256:" + "2" * 64]), frozenset([("eye", "1")]))
_KEY = read_attestation_key(SigningKey.generate().public)


def run(data: bytes) -> None:
    """Take an input as every kind of evidence."""
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"sig": "AAAA"}],
    }
    detected = detect_kind(data)
    if detected is not None and detected not in EVIDENCE_KINDS:
        raise Broken(f"detected as {detected}")
    for content in (data, as_bytes(envelope)):
        for kind in EVIDENCE_KINDS:
            try:
                found = summarise(kind, content, _SUBJECT)
            except Rejected as refused:
                if refused.code not in ("evidence.size", "evidence.unfit"):
                    raise Broken(f"refused as {refused.code}") from refused
                continue
            if msgspec.json.decode(encode_canonical(found), type=Evidence) != found:
                raise Broken("a summary changes when it is written, or is none that a reader takes")
            verify_summary(found, content, _SUBJECT)
        if is_signed_by(content, _KEY):
            raise Broken("nobody signed this")


def seeds() -> list[bytes]:
    """Return a file of each format, and a statement."""
    signed = attestation(_RELEASE, SigningKey.generate())
    return [*(content for _, content in SAMPLES.values()), signed, as_bytes(statement(_RELEASE))]


_WORDS = (
    "bomFormat CycloneDX specVersion components vulnerabilities ratings severity score spdxVersion packages @graph"
    " @context matches descriptor SchemaVersion Results model metrics payload payloadType signatures _type"
    " subject predicateType"
)
_TOKENS = [f'"{word}"'.encode() for word in _WORDS.split()]
TARGET = Target(run, seeds, tokens=(*_TOKENS, b"null", b"[]", b"{}", b"1e5"), max_bytes=4096)
