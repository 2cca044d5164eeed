"""Certificates over the operator API. No answer has a private key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.pki import IssuedCertificate, Serial


class IssuerView(Part, frozen=True, kw_only=True):
    """A root that is trusted, or an issuer that this hub is or was; it `issues` now, or has only issued before."""

    role: Literal["root", "issuer"]
    subject: str
    serial: Serial
    not_before: datetime
    not_after: datetime
    issues: bool = False


class PkiView(Part, frozen=True, kw_only=True):
    """The hub's part in certificates. `requested`: a request waits for what a root makes of it."""

    domain: str
    issuers: tuple[IssuerView, ...]
    requested: bool = False


class TrustBundle(Part, frozen=True, kw_only=True):
    """What verifies certificates of sites: `roots`, and lists of what is revoked (`crls`), PEM each."""

    roots: tuple[str, ...]
    crls: tuple[str, ...]


class AuthorityView(Part, frozen=True, kw_only=True):
    """A host's intermediate, and what the host has issued with it if it is the one `in_use`."""

    site: str
    host: str
    serial: Serial
    issued_at: datetime
    renew_from: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    in_use: bool = False
    certificates: dict[str, IssuedCertificate] = {}
    trouble: str = ""


class PkiRequest(Part, frozen=True, kw_only=True):
    """A signing request (PKCS#10, PEM) of the hub, and the domain that it is to issue for."""

    request: str
    domain: str


class PkiImport(Part, frozen=True, kw_only=True):
    """What a root has made of the request, in one PEM: the certificate, those above it, the root, and their lists."""

    pem: Annotated[str, Meta(max_length=256 << 10)]
    dry_run: bool = False
