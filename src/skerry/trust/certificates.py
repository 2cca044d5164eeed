"""The hub's own CA and the certificates of its HTTPS port and of relays'. Imported late: X.509 costs memory.

ECDSA P-256 keys, because every TLS client knows them. The CA may sign end entities only (path length 0).
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skerry.kit.errors import Rejected

CA_DAYS = 20 * 365
SERVER_DAYS = 397
RENEW_BEFORE = timedelta(days=60)
# A host whose clock is a little behind must not find a certificate that is not valid yet.
BACKDATE = timedelta(days=1)


def make_ca(common_name: str, now: datetime) -> tuple[bytes, bytes]:
    """Return (private key, certificate) of a new CA, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pem(key), builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make_pinned(common_name: str, now: datetime) -> tuple[bytes, bytes]:
    """Return (private key, certificate) of a server that clients know by the hash of its certificate, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
    )
    return _pem(key), builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def issue_server(ca_key: bytes, ca_cert: bytes, names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """Return (private key, certificate) for a server of these host names and addresses, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _pem(key), issue_server_for(key.public_key(), ca_key, ca_cert, names, now)


def issue_server_for(
    key: ec.EllipticCurvePublicKey, ca_key: bytes, ca_cert: bytes, names: Sequence[str], now: datetime
) -> bytes:
    """Return a certificate, as PEM, of a server's public key for these host names and addresses."""
    issuer_key = load_pem_private_key(ca_key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(ca_cert)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def port_key(text: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a port: base64 of the DER of a P-256 key.

    Raises:
        Rejected: it is anything else (`tls_key.malformed`).
    """
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Rejected("tls_key.malformed", "the key of a port must be an ECDSA key on P-256, DER in base64")
    return key


def is_of_key(cert: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Tell whether a certificate is of a key."""
    try:
        return x509.load_pem_x509_certificate(cert).public_key() == key
    except ValueError:
        return False


def is_server_good(cert: bytes, names: Sequence[str], now: datetime) -> bool:
    """Tell whether a certificate names exactly these names and need not be renewed yet."""
    try:
        certificate = x509.load_pem_x509_certificate(cert)
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    wanted = {_general_name(name) for name in names}
    return set(held) == wanted and now + RENEW_BEFORE < certificate.not_valid_after_utc


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
