"""What certificates may say, how long they last, and when they are due: the policy, without any X.509.

- A host's intermediate may name what is below `SITE.DOMAIN`, addresses in the site's networks, and the machine itself
  (`localhost` and its loopback addresses): who is asked there is that machine. Below `site.internal` it may as well:
  that is this site everywhere, so such a name says nothing of which site it is.
- It lasts 360 days, or twice the site's offline tolerance if that is longer, and is renewed from half of its life on: a
  site may be away for as long as it is tolerated at any moment, and come back with one that still holds.
- What it issues lasts 7 days, and is renewed from two thirds of that on.
- Who is revoked stays revoked: a host adds up what it has been told.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.spec.ingress import SHORT_DOMAIN
from skerry.spec.pki import HostPki, RevokedAuthority, SitePki

LEAST_LIFE = timedelta(days=360)
MOST_LIFE = timedelta(days=10 * 365)
LEAF_LIFE = timedelta(days=7)
LEAF_RENEWED_AT = 2 / 3
# A host whose clock is a little behind must not find a certificate that is not valid yet.
BACKDATE = timedelta(days=1)
MAX_REVOKED = 4096
LOCAL_NAME = "localhost"
LOOPBACK = ("127.0.0.0/8", "::1/128")
MAX_DNS = 253


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate's issuer may name: domains with all below them, and networks."""

    domains: tuple[str, ...]
    networks: tuple[str, ...]


class CertificateExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """The intermediate of a host: it runs out at `not_after` unless its site is heard of after `renew_from`."""

    host: str
    serial: str
    not_after: datetime
    renew_from: datetime


def site_domain(site: str, domain: str) -> str:
    """Return the domain that all names of a site are in."""
    return f"{site}.{domain}"


def spiffe_id(domain: str, site: str, application: str) -> str:
    """Return the name by which applications know each other (SPIFFE ID)."""
    return f"spiffe://{domain}/site/{site}/app/{application}"


def bounds_of(site: str, domain: str, networks: Sequence[str]) -> Bounds:
    """Return what the intermediates of a site's hosts may name."""
    own = {str(ipaddress.ip_network(network, strict=False)) for network in networks}
    return Bounds(
        domains=(site_domain(site, domain), SHORT_DOMAIN, LOCAL_NAME), networks=(*LOOPBACK, *sorted(own))
    )


def life_of(offline_tolerance: timedelta) -> timedelta:
    """Return how long an intermediate lasts at a site whose silence is tolerated for so long."""
    return min(max(LEAST_LIFE, 2 * offline_tolerance), MOST_LIFE)


def authority_name(host: str, key: str) -> str:
    """Return the subject of a host's intermediate, by the hash of its key: no two issuers have the same."""
    return f"{host[:47]} {key[:16]}"


def half_of(start: datetime, end: datetime) -> datetime:
    """Return when half of a life is over."""
    return start + (end - start) / 2


def check_names(
    bounds: Bounds, *, dns: Iterable[str], addresses: Iterable[str], uris: Iterable[str], domain: str
) -> list[str]:
    """Return why a certificate with these names may not be issued within these bounds; nothing if it may.

    A name with `*` as its first label stands for all names one level below the rest.
    """
    problems: list[str] = []
    for name in dns:
        bare = name.removeprefix("*.")
        if not _is_dns(bare):
            problems.append(f"{name} is no DNS name")
        elif not any(bare == within or bare.endswith(f".{within}") for within in bounds.domains):
            problems.append(f"{name} is not below {' or '.join(bounds.domains)}")
    networks = [ipaddress.ip_network(network) for network in bounds.networks]
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            problems.append(f"{text} is no address")
            continue
        if not any(address in network for network in networks):
            problems.append(f"{text} is in none of {', '.join(bounds.networks)}")
    problems += [f"{uri} is not below spiffe://{domain}/" for uri in uris if not _is_spiffe(uri, domain)]
    return problems


def is_leaf_due(issued_at: datetime, not_after: datetime, now: datetime) -> bool:
    """Tell whether a certificate is to be renewed: at two thirds of its life, or when it is from the future.

    One is from the future when the clock was wrong while it was issued; nobody with a right clock takes it.
    """
    return now >= issued_at + (not_after - issued_at) * LEAF_RENEWED_AT or now < issued_at - BACKDATE


def add_revoked(
    held: Iterable[RevokedAuthority], told: Iterable[RevokedAuthority], now: datetime
) -> tuple[RevokedAuthority, ...]:
    """Return who is revoked, all told: nobody is left out because a document does, but those that have run out."""
    in_order = sorted((*held, *told), key=lambda one: (one.not_after, one.serial))
    lasting = {one.serial: one for one in in_order if one.not_after > now}
    return tuple(lasting.values())[-MAX_REVOKED:]


def pki_expiries(pki: SitePki, told: Mapping[str, HostPki]) -> tuple[CertificateExpiry, ...]:
    """Return what will run out at a site, the earliest first.

    `pki` is that of the site's newest DesiredState, `told` what its hosts reported last. The intermediate that a host
    uses counts, which may be the one before the newest. What hosts issue themselves is renewed without a link, and ends
    with the intermediate.
    """
    found: list[CertificateExpiry] = []
    for host, authority in pki.hosts.items():
        seen = told.get(host, HostPki())
        serial, end = authority.serial, authority.not_after
        if seen.serial and seen.not_after is not None and seen.serial != serial:
            serial, end = seen.serial, seen.not_after
        found.append(
            CertificateExpiry(host=host, serial=serial, not_after=end, renew_from=authority.renew_from)
        )
    return tuple(sorted(found, key=lambda one: (one.not_after, one.host)))


def _is_dns(name: str) -> bool:
    labels = name.split(".")
    return 0 < len(name) <= MAX_DNS and all(
        0 < len(label) <= 63
        and all(c.isascii() and ((c.isalnum() and c == c.lower()) or c == "-") for c in label)
        and not (label.startswith("-") or label.endswith("-"))
        for label in labels
    )


def _is_spiffe(uri: str, domain: str) -> bool:
    start = f"spiffe://{domain}/"
    rest = uri.removeprefix(start)
    return (
        uri.startswith(start)
        and 0 < len(rest) <= 1024
        and all(part not in ("", ".", "..") and _is_segment(part) for part in rest.split("/"))
    )


def _is_segment(part: str) -> bool:
    return all(c.isascii() and (c.isalnum() or c in "-._") for c in part)
