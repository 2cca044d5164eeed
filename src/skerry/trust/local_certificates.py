"""X.509 of what a host issues to itself: certificates of applications, of its ingress and its broker. Imported late.

Each has a key of its own on P-256, which is never written but beside it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skerry.kit.errors import Rejected
from skerry.trust.authorities import (
    Issuing,
    certificates_of,
    inspect_authority,
    load_key,
    new_key,
    serial_text,
)
from skerry.trust.pki import BACKDATE, LEAF_LIFE, check_names


class LeafNames(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says: its subject, the names it is for, and whether for clients, servers or both."""

    subject: str
    dns: Sequence[str] = ()
    addresses: Sequence[str] = ()
    uris: Sequence[str] = ()
    client: bool = True
    server: bool = True


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """An issued certificate: its private key, and the certificate with all between it and a root, PEM."""

    key: bytes
    chain: str
    serial: str
    not_after: datetime

    def __repr__(self) -> str:
        return f"Leaf({self.serial})"


def issue_leaf(issuer: Issuing, names: LeafNames, *, domain: str, now: datetime) -> Leaf:
    """Return a certificate with these names; it never holds longer than the intermediate it is issued with.

    Raises:
        Rejected: the intermediate must not be used for such names (`pki.out_of_bounds`), there are none
            (`pki.no_names`), or it has run out (`pki.run_out`).
        Untrusted: see `inspect_authority`.
    """
    own = inspect_authority(issuer.chain.decode())
    problems = check_names(
        own.bounds, dns=names.dns, addresses=names.addresses, uris=names.uris, domain=domain
    )
    if problems:
        raise Rejected("pki.out_of_bounds", f"this host may not issue that: {'; '.join(problems[:10])}")
    if not (names.dns or names.addresses or names.uris):
        raise Rejected("pki.no_names", f"certificate {names.subject} has no names")
    end = min(now + LEAF_LIFE, own.not_after)
    if end <= now:
        raise Rejected(
            "pki.run_out", f"the intermediate of this host ran out at {own.not_after:%Y-%m-%d %H:%M}Z"
        )
    pem = new_key()
    key, above = load_key(pem), load_key(issuer.key)
    usages = [
        *([ExtendedKeyUsageOID.SERVER_AUTH] if names.server else []),
        *([ExtendedKeyUsageOID.CLIENT_AUTH] if names.client else []),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.subject[:64])]))
        .issuer_name(certificates_of(issuer.chain)[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_LEAF_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )
    cert = builder.sign(above, hashes.SHA256())
    return Leaf(
        key=pem,
        chain=cert.public_bytes(Encoding.PEM).decode() + issuer.chain.decode(),
        serial=serial_text(cert.serial_number),
        not_after=cert.not_valid_after_utc,
    )


def _general_names(names: LeafNames) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in names.dns),
        *(x509.IPAddress(ipaddress.ip_address(text)) for text in names.addresses),
        *(x509.UniformResourceIdentifier(uri) for uri in names.uris),
    ]


_LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
