"""Certificates: what the hub tells a site of them, and what a host tells the hub. No private key is in any of these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part

DEFAULT_DOMAIN = "skerry.internal"
MAX_PEM = 32 << 10

DomainName = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        max_length=120,
        description="a domain of at least two labels in lower-case letters, such as edge.example.com",
    ),
]
Pem = Annotated[str, Meta(max_length=MAX_PEM)]
Serial = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{2}){0,20}$", description="a certificate's serial number, hexadecimal")
]
KeyHash = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{64})?$", description="SHA-256 of a public key's DER, hexadecimal")
]


class Authority(Part, frozen=True, kw_only=True):
    """The intermediate that a host issues certificates with.

    `chain` is its certificate and those between it and a root, PEM. `key` is the hash of its public key. The hub
    issues the next one from `renew_from` on. `crl` is the host's own list of revoked certificates, empty of entries:
    who checks every link of a chain needs one.
    """

    chain: Pem
    serial: Serial
    key: KeyHash
    renew_from: datetime
    not_after: datetime
    crl: Pem = ""


class RevokedAuthority(Part, frozen=True, kw_only=True):
    """An intermediate that nobody may trust any more. After `not_after` nobody would anyway."""

    serial: Serial
    key: KeyHash
    not_after: datetime


class SitePki(Part, frozen=True, kw_only=True):
    """The certificates of a site: `APP.SITE.DOMAIN` are its names.

    `roots` is what to trust, several while a root is being changed; none until the hub has one. `hosts` has each host's
    own intermediate. `crls` are the lists by which issuers above hosts revoke, PEM, and `revoked` says the same of
    this site's hosts.
    """

    domain: DomainName = DEFAULT_DOMAIN
    roots: Annotated[tuple[Pem, ...], Meta(max_length=16)] = ()
    hosts: dict[str, Authority] = {}
    crls: Annotated[tuple[Pem, ...], Meta(max_length=32)] = ()
    revoked: Annotated[tuple[RevokedAuthority, ...], Meta(max_length=4096)] = ()


class HostPki(Part, frozen=True, kw_only=True):
    """A host's own part of it, as the host sees it.

    `request` asks for an intermediate (PKCS#10, PEM), and `crl` is told, while the hub does not show that it has them.
    `serial` is the intermediate in use, with its end; `certificates` are those the host has issued to itself, by name.
    """

    request: Annotated[str, Meta(max_length=4096)] = ""
    crl: Annotated[str, Meta(max_length=4096)] = ""
    serial: Serial = ""
    not_after: Annotated[datetime, Meta(tz=True)] | None = None
    certificates: Annotated[dict[str, IssuedCertificate], Meta(max_length=256)] = {}
    trouble: Annotated[str, Meta(max_length=1024)] = ""


class IssuedCertificate(Part, frozen=True, kw_only=True):
    """A certificate that a host has issued: its names, and until when it holds."""

    serial: Serial
    not_after: Annotated[datetime, Meta(tz=True)]
    names: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
