"""X.509 of those who issue certificates: roots, the hub, hosts, and the lists by which they revoke. Imported late.

Profile (RFC 5280): ECDSA on P-256 with SHA-256, because every TLS client knows it. A host's intermediate has path
length 0 and critical name constraints: DNS names and IP networks. URIs are not constrained: a constraint reaches a
URI's host alone, which is the same for all sites (SPIFFE's trust domain), and some verifiers refuse such a chain.

A list of revoked certificates (CRL) lasts as long as its issuer. How fresh it is says the signed document it came
with; one that ran out while a site is away would have everybody there refuse everybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from skerry.kit.errors import Untrusted
from skerry.spec.ingress import SHORT_DOMAIN
from skerry.trust.pki import BACKDATE, LOCAL_NAME, Bounds, life_of

ROOT_LIFE = timedelta(days=20 * 365)
ISSUER_LIFE = timedelta(days=10 * 365)
_HASH = hashes.SHA256()
_crl_re = re.compile("-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class Issuing(msgspec.Struct, frozen=True):
    """Who issues: a private key, and its certificate with those between it and a root; a root's is its own. PEM."""

    key: bytes
    chain: bytes

    def __repr__(self) -> str:
        return "Issuing(...)"


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate of an issuer says; `key` is the hash of its public key."""

    serial: str
    key: str
    subject: str
    not_before: datetime
    not_after: datetime
    bounds: Bounds


def new_key() -> bytes:
    """Return a new private key, PKCS#8 PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_hash(key_pem: bytes) -> str:
    """Return the hash of the public half of a private key; raises as `load_key`."""
    return _hash_of(load_key(key_pem).public_key())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return a private key on P-256.

    Raises:
        Untrusted: it is none (`pki.key_unreadable`).
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Untrusted("pki.key_unreadable", "that is no ECDSA private key on P-256")
    return key


def make_root(common_name: str, now: datetime) -> Issuing:
    """Make a root: a key, and a certificate that it signs itself."""
    pem = new_key()
    key = load_key(pem)
    subject = _named(common_name)
    builder = _authority_builder(subject, key.public_key(), now, now + ROOT_LIFE, path_length=2)
    cert = builder.issuer_name(subject).sign(key, _HASH)
    return Issuing(pem, cert.public_bytes(Encoding.PEM))


def make_request(key_pem: bytes, common_name: str) -> str:
    """Return a signing request (PKCS#10, PEM) of a key; raises as `load_key`."""
    key = load_key(key_pem)
    request = x509.CertificateSigningRequestBuilder().subject_name(_named(common_name)).sign(key, _HASH)
    return request.public_bytes(Encoding.PEM).decode()


def requested_key(request: str) -> str:
    """Return the hash of the key that a signing request is of, and proves to have; or that a certificate is of.

    Raises:
        Untrusted: it is none, not signed by its own key, or of a key that is not on P-256 (`pki.request_refused`).
    """
    return _hash_of(_key_of(request))


def issue_issuer(root: Issuing, request: str, domain: str, now: datetime) -> str:
    """Return the certificate of a hub that asks a root for one: it may issue to hosts of a domain, and no further.

    Raises:
        Untrusted: see `requested_key`.
    """
    key = _key_of(request)
    csr = x509.load_pem_x509_csr(request.encode())
    end = min(now + ISSUER_LIFE, certificates_of(root.chain)[0].not_valid_after_utc)
    builder = _authority_builder(csr.subject, key, now, end, path_length=1)
    permitted = [x509.DNSName(name) for name in (domain, SHORT_DOMAIN, LOCAL_NAME)]
    constraints = x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)
    return _signed(builder.add_extension(constraints, critical=True), root)


def issue_authority(
    issuer: Issuing, key: str, common_name: str, bounds: Bounds, *, now: datetime, tolerance: timedelta
) -> str:
    """Return a host's intermediate, PEM, with all between it and a root.

    `key` is a signing request of the host's key, or a certificate that was issued for it before.

    Raises:
        Untrusted: see `requested_key`.
    """
    own = certificates_of(issuer.chain)
    end = min(now + life_of(tolerance), own[0].not_valid_after_utc)
    public = _key_of(key)
    permitted = [
        *(x509.DNSName(domain) for domain in bounds.domains),
        *(x509.IPAddress(ipaddress.ip_network(network)) for network in bounds.networks),
    ]
    builder = _authority_builder(_named(common_name), public, now, end, path_length=0)
    constraints = x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)
    cert = _signed(builder.add_extension(constraints, critical=True), issuer)
    return cert + "".join(_pem(one) for one in own if not _is_root(one))


def make_crl(issuer: Issuing, revoked: Iterable[tuple[str, datetime]], now: datetime) -> str:
    """Return the list, PEM, of what an issuer has revoked: serial numbers, and since when."""
    own = certificates_of(issuer.chain)[0]
    return _crl(load_key(issuer.key), own.subject, revoked, now=now, until=own.not_valid_after_utc)


def make_empty_crl(key_pem: bytes, common_name: str, now: datetime) -> str:
    """Return the list, PEM, of an issuer that revokes nothing; its certificate need not be issued yet."""
    return _crl(load_key(key_pem), _named(common_name), (), now=now, until=now + ROOT_LIFE)


def revoked_by(crl: str) -> frozenset[str]:
    """Return the serial numbers on a list.

    Raises:
        Untrusted: it is none (`pki.crl_refused`).
    """
    return frozenset(serial_text(one.serial_number) for one in _crl_of(crl))


def check_crl(crl: str, cert: str) -> None:
    """Raise unless a list is that of an issuer, signed by it.

    Raises:
        Untrusted: it is not (`pki.crl_refused`).
    """
    issuer, found = certificates_of(cert)[0], _crl_of(crl)
    key = issuer.public_key()
    good = isinstance(key, ec.EllipticCurvePublicKey) and found.is_signature_valid(key)
    if not good or found.issuer != issuer.subject:
        raise Untrusted("pki.crl_refused", "the list of revoked certificates is another issuer's")


def inspect_authority(chain: str) -> Inspected:
    """Return what the first certificate of a chain says: it must be of an issuer with name constraints or a root.

    Raises:
        Untrusted: it is not (`pki.cert_refused`).
    """
    cert = certificates_of(chain)[0]
    try:
        is_issuer = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        key = cert.public_key() if is_issuer else None
    except (ValueError, x509.ExtensionNotFound, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Untrusted("pki.cert_refused", "that is no certificate of an issuer with an ECDSA key")
    return Inspected(
        serial=serial_text(cert.serial_number),
        key=_hash_of(key),
        subject=cert.subject.rfc4514_string(),
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        bounds=_bounds_of(cert),
    )


def check_chain(chain: str, roots: Sequence[str]) -> str:
    """Return the root, PEM, that a chain of issuers leads to, by signatures; times are not looked at.

    Raises:
        Untrusted: it leads to none (`pki.chain_broken`).
    """
    links = certificates_of(chain)
    trusted = [cert for root in roots for cert in certificates_of(root)]
    for cert, above in pairwise(links):
        if not _is_issued_by(cert, above):
            raise Untrusted("pki.chain_broken", f"{_told(cert)} is not issued by {_told(above)}")
    for root in trusted:
        if links[-1] == root or _is_issued_by(links[-1], root):
            return _pem(root)
    raise Untrusted("pki.chain_broken", f"{_told(links[-1])} is issued by no root that is trusted")


def serial_text(number: int) -> str:
    """Return a serial number as `spec.pki.Serial` writes it."""
    return number.to_bytes((number.bit_length() + 7) // 8).hex()


def certificates_of(pem: str | bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, at least one.

    Raises:
        Untrusted: there is none, or a damaged one (`pki.cert_refused`).
    """
    try:
        return x509.load_pem_x509_certificates(pem.encode() if isinstance(pem, str) else pem)
    except ValueError:
        raise Untrusted("pki.cert_refused", "that is no certificate in PEM") from None


def each_of(chain: str) -> list[str]:
    """Return the certificates of a chain, PEM each; raises as `certificates_of`."""
    return [_pem(one) for one in certificates_of(chain)]


def split_pem(text: str) -> tuple[str, str, list[str]]:
    """Return (the chain below the root, the root, all lists of revoked certificates) of a PEM text that has them all.

    Raises:
        Untrusted: there is no root, more than one, or nothing below it (`pki.cert_refused`).
    """
    certs = certificates_of(text)
    roots = [_pem(one) for one in certs if _is_root(one)]
    chain = "".join(_pem(one) for one in certs if not _is_root(one))
    if len(roots) != 1 or not chain:
        raise Untrusted("pki.cert_refused", "expected one root, and certificates between it and the hub")
    return chain, roots[0], [f"{crl}\n" for crl in _crl_re.findall(text)]


def _bounds_of(cert: x509.Certificate) -> Bounds:
    try:
        found = cert.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return Bounds(domains=(), networks=())
    permitted = found.permitted_subtrees or []
    return Bounds(
        domains=tuple(one.value for one in permitted if isinstance(one, x509.DNSName)),
        networks=tuple(str(one.value) for one in permitted if isinstance(one, x509.IPAddress)),
    )


def _key_of(text: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a signing request, which must be signed by it, or of a certificate."""
    try:
        if "CERTIFICATE REQUEST" in text:
            request = x509.load_pem_x509_csr(text.encode())
            key = request.public_key() if request.is_signature_valid else None
        else:
            key = certificates_of(text)[0].public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Untrusted("pki.request_refused", "that is no signing request of an ECDSA key on P-256")
    return key


def _crl(
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    revoked: Iterable[tuple[str, datetime]],
    *,
    now: datetime,
    until: datetime,
) -> str:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(now - BACKDATE)
        .next_update(max(until, now + BACKDATE))
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(_key_identifier(key.public_key()), critical=False)
    )
    for serial, since in sorted(revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, _HASH).public_bytes(Encoding.PEM).decode()


def _crl_of(crl: str) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(crl.encode())
    except ValueError:
        raise Untrusted("pki.crl_refused", "that is no list of revoked certificates in PEM") from None


def _authority_builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, issuer: Issuing) -> str:
    key, own = load_key(issuer.key), certificates_of(issuer.chain)[0]
    builder = builder.issuer_name(own.subject).add_extension(
        _key_identifier(key.public_key()), critical=False
    )
    return _pem(builder.sign(key, _HASH))


def _is_issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_root(cert: x509.Certificate) -> bool:
    return cert.subject == cert.issuer


def _told(cert: x509.Certificate) -> str:
    return cert.subject.rfc4514_string()[:200] or "a certificate without a subject"


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _hash_of(key: ec.EllipticCurvePublicKey) -> str:
    digest = hashes.Hash(_HASH)
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def _key_identifier(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(Encoding.PEM).decode()


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
