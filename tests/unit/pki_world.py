"""A root, hosts that ask it for intermediates, and the openssl program as the judge of what they issue."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from skerry.spec.pki import Authority, HostPki, RevokedAuthority, SitePki
from skerry.trust.authorities import (
    Issuing,
    inspect_authority,
    issue_authority,
    make_crl,
    make_request,
    make_root,
    new_key,
    requested_key,
)
from skerry.trust.pki import authority_name, bounds_of, half_of

DOMAIN = "edge.example.com"
NETWORKS = ("10.1.0.0/16",)


class Root:
    """A root that issues to hosts, and writes what a hub would put into a site's desired state."""

    def __init__(self, now: datetime, site: str = "harbour") -> None:
        self.issuer = make_root("Skerry root test", now)
        self.site = site
        self.issued: dict[str, Authority] = {}
        self.revoked: list[RevokedAuthority] = []
        self.crl = make_crl(self.issuer, (), now)

    @property
    def pem(self) -> str:
        """The root's certificate."""
        return self.issuer.chain.decode()

    def answer(
        self, told: Mapping[str, HostPki], now: datetime, tolerance: timedelta = timedelta(minutes=5)
    ) -> SitePki:
        """Return what is desired, after hosts have told this; each request is granted."""
        for host, seen in told.items():
            if seen.request:
                self.grant(host, seen.request, now, tolerance)
            if seen.crl and host in self.issued:
                self.issued[host] = msgspec.structs.replace(self.issued[host], crl=seen.crl)
        return self.pki()

    def pki(self) -> SitePki:
        """Return what is desired now."""
        return SitePki(
            domain=DOMAIN,
            roots=(self.pem,),
            hosts=dict(self.issued),
            crls=(self.crl,),
            revoked=tuple(self.revoked),
        )

    def grant(
        self, host: str, key: str, now: datetime, tolerance: timedelta = timedelta(minutes=5)
    ) -> Authority:
        """Issue an intermediate for a signing request, or anew for a certificate."""
        bounds = bounds_of(self.site, DOMAIN, NETWORKS)
        name = authority_name(host, requested_key(key))
        chain = issue_authority(self.issuer, key, name, bounds, now=now, tolerance=tolerance)
        found = inspect_authority(chain)
        self.issued[host] = Authority(
            chain=chain,
            serial=found.serial,
            key=found.key,
            renew_from=half_of(now, found.not_after),
            not_after=found.not_after,
        )
        return self.issued[host]

    def revoke(self, host: str, now: datetime) -> RevokedAuthority:
        """Revoke a host's intermediate."""
        held = self.issued.pop(host)
        one = RevokedAuthority(serial=held.serial, key=held.key, not_after=held.not_after)
        self.revoked.append(one)
        self.crl = make_crl(self.issuer, [(one.serial, now) for one in self.revoked], now)
        return one


def intermediate(root: Root, host: str, now: datetime) -> Issuing:
    """Return a host's intermediate with its key."""
    key = new_key()
    return Issuing(key, root.grant(host, make_request(key, host), now).chain.encode())


def openssl_verify(
    folder: Path, chain: str | bytes, root: str, now: datetime, *, crl: str = "", name: str = ""
) -> str:
    """Return what `openssl verify` has against a chain; empty when it has nothing."""
    files = {"chain.pem": chain, "root.pem": root, "crl.pem": crl}
    for file, content in files.items():
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    arguments: Sequence[str] = (
        *("-x509_strict", "-attime", str(int(now.timestamp())), "-CAfile", str(folder / "root.pem")),
        *(("-crl_check_all", "-CRLfile", str(folder / "crl.pem")) if crl else ()),
        *(("-verify_hostname", name) if name else ()),
        *("-untrusted", str(folder / "chain.pem"), str(folder / "chain.pem")),
    )
    command = ["openssl", "verify", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    return "" if done.returncode == 0 else done.stderr + done.stdout
