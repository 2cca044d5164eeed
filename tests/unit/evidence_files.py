"""Small files of evidence of every format, made by hand."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope

from skerry.spec.evidence import EvidenceKind
from skerry.trust.attestations import PAYLOAD_TYPE, STATEMENTS
from skerry.trust.keys import SigningKey

SLSA = "https://slsa.dev/provenance/v1"
COMPONENT = {"type": "library", "name": "libjpeg", "version": "9e"}


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def cyclonedx(*components: dict[str, Any], version: str = "1.6", **more: Any) -> bytes:
    return as_bytes(
        {"bomFormat": "CycloneDX", "specVersion": version, "components": list(components), **more}
    )


def spdx(packages: int = 2, version: str = "SPDX-2.3") -> bytes:
    return as_bytes({"spdxVersion": version, "packages": [{"name": f"p{n}"} for n in range(packages)]})


def spdx3(packages: int = 2) -> bytes:
    elements = [{"type": "CreationInfo"}, *({"type": "software_Package"} for _ in range(packages))]
    return as_bytes({"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": elements})


def vex(*findings: dict[str, Any]) -> bytes:
    return as_bytes({"bomFormat": "CycloneDX", "specVersion": "1.5", "vulnerabilities": list(findings)})


def finding(severity: str, state: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"id": "CVE-2026-1", "ratings": [{"severity": severity}]}
    return found | ({"analysis": {"state": state}} if state else {})


def grype(*severities: str, ignored: int = 0) -> bytes:
    matches = [{"vulnerability": {"id": "CVE-2026-1", "severity": name}} for name in severities]
    report: dict[str, Any] = {"matches": matches, "descriptor": {"name": "grype", "version": "0.90.0"}}
    passed_over: list[dict[str, str]] = [{}] * ignored
    return as_bytes({**report, "ignoredMatches": passed_over} if ignored else report)


def trivy(*severities: str) -> bytes:
    found = [{"VulnerabilityID": "CVE-2026-1", "Severity": name} for name in severities]
    results = [{"Target": "debian"}, {"Target": "python", "Vulnerabilities": found or None}]
    return as_bytes({"SchemaVersion": 2, "ArtifactName": "reader", "Results": results})


def evaluation(model: str = "eye", **metrics: float) -> bytes:
    return as_bytes({"model": model, "dataset": "meters-2026", "metrics": metrics or {"accuracy": 0.93}})


CARD = b"# Meter reader\n\nReads the digits of a meter.\n\n## Limits\n\nNot at night.\n"


def statement(digest: str, predicate_type: str = SLSA, **more: Any) -> dict[str, Any]:
    subject = [{"name": "it", "digest": {"sha256": digest.removeprefix("sha256:")}}]
    return {
        "_type": STATEMENTS[0],
        "subject": subject,
        "predicateType": predicate_type,
        "predicate": {"builder": {"id": "ci"}},
        **more,
    }


def envelope(payload: object, key: SigningKey) -> dict[str, Any]:
    made = Envelope(as_bytes(payload), PAYLOAD_TYPE, {})
    made.sign(key.signer)
    return cast("dict[str, Any]", made.to_dict())


def attestation(digest: str, key: SigningKey, predicate_type: str = SLSA) -> bytes:
    return as_bytes(envelope(statement(digest, predicate_type), key))


def ecdsa_attestation(digest: str) -> tuple[bytes, str]:
    """Return an attestation without a key id, as some tools write it, and the public key in PEM."""
    key: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
    payload = as_bytes(statement(digest))
    signed = Envelope(payload, PAYLOAD_TYPE, {}).pae()
    signature = base64.b64encode(key.sign(signed, ECDSA(hashes.SHA256()))).decode()
    content = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": "", "sig": signature}],
    }
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return as_bytes(content), pem


SAMPLES: dict[str, tuple[EvidenceKind, bytes]] = {
    "cyclonedx-1.6": ("sbom", cyclonedx(COMPONENT)),
    "spdx-2.3": ("sbom", spdx()),
    "spdx-3.0": ("sbom", spdx3()),
    "cyclonedx-1.5": ("vulnerabilities", vex(finding("high"))),
    "grype": ("vulnerabilities", grype("Critical")),
    "trivy": ("vulnerabilities", trivy("LOW")),
    "metrics": ("evaluation", evaluation()),
    "markdown": ("model-card", CARD),
}
"""One file by each format's name."""
