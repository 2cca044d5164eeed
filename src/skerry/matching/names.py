"""Which names a site has and where they lead: from the routes of its hosts to the answers of their DNS.

The same function makes each host's zone and the hub's view of it. Rules:
- A name leads to the hosts that serve it. Where none does, to those where the application is and does not serve yet;
  and where no host that is heard has it, to where it was last.
- A host on which the application stands by has no part in its names.
- No word of a host makes a name outside the site's two zones, `SITE.DOMAIN` and `site.internal`.
- A name that is not known is said not to be only by who knows the whole site.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from skerry.spec.ingress import SHORT_DOMAIN, RouteView
from skerry.spec.names import HOSTS_LABEL, NamePlace, NameWord, SiteName

TTL_S = 5
"""Of every record: a name follows its application within that time."""
MAX_WORDS = 256
"""Of one host."""
LOOPBACK = "127.0.0.1"
MAX_NAME, MAX_LABEL = 253, 63
"""Of names as text: RFC 1035, 2.3.4."""

RecordType = Literal["A", "AAAA", "SRV", "PTR", "NS", "SOA"]
_name_re = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


class HostWords(msgspec.Struct, frozen=True, kw_only=True):
    """One host of a site: its IP address, empty when that is not known, and what it last said of names.

    `heard` says whether it is heard now.
    """

    host: str
    address: str = ""
    heard: bool = True
    words: tuple[NameWord, ...] = ()


class ZoneRecord(msgspec.Struct, frozen=True):
    """A record of the DNS. `data` is an address or a name; `port` is an SRV record's."""

    name: str
    type: RecordType
    data: str
    port: int = 0


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """The zones of a site as one host knows them. `serial` tells two of them apart.

    `whole` says that a name which is not here is nowhere at the site. `records` are by name, `near` those for
    programs of this very host, and `present` every name that has `records` or names below it.
    """

    apexes: tuple[str, ...]
    serial: int = 1
    whole: bool = True
    server: str = ""
    names: Mapping[str, SiteName] = {}
    records: Mapping[str, tuple[ZoneRecord, ...]] = {}
    near: Mapping[str, tuple[ZoneRecord, ...]] = {}
    present: frozenset[str] = frozenset()


class Asked(msgspec.Struct, frozen=True):
    """A question: a name in lower case without its last dot, and a type. `near`: a program of this host asks."""

    name: str
    type: str
    near: bool = False


class ZoneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer: the records, and `apex` with `serial` of the zone that has none such, empty where it has."""

    code: Literal["NOERROR", "NXDOMAIN", "SERVFAIL"] = "NOERROR"
    records: tuple[ZoneRecord, ...] = ()
    apex: str = ""
    serial: int = 1
    server: str = ""


def words_of(
    routes: Sequence[RouteView], away: Collection[str], *, expose: Literal["site", "host"] = "site"
) -> tuple[NameWord, ...]:
    """Return what a host says of the names of its routes; applications that are `away` stand by there."""
    found: dict[tuple[str, str, str, int], bool] = {}
    for view in routes:
        if view.state == "refused" or view.expose != expose or view.application in away or not view.names:
            continue
        whole = len(view.names) == 1
        host = view.names[0] if whole else view.names[0].partition(".")[0]
        service = view.route if view.protocol == "tcp" else "grpc" if view.protocol == "grpc" else ""
        service = service or ("https" if view.tls else "http")
        key = (view.application, host, service, view.port)
        found[key] = found.get(key, False) or view.state == "serving"
    words = [NameWord(*key, serving) for key, serving in sorted(found.items())]
    return tuple(words[:MAX_WORDS])


def find_names(hosts: Sequence[HostWords], *, site: str, domain: str) -> dict[str, SiteName]:
    """Return the names of a site, by name, with the hosts that each leads to."""
    places: dict[str, dict[str, NamePlace]] = {}
    owners: dict[str, set[str]] = {}
    for host in hosts:
        if not is_address(host.address):
            continue
        for word in host.words:
            for name in _names(word, site, domain):
                owners.setdefault(name, set()).add(word.application)
                here = places.setdefault(name, {})
                here[host.host] = _joined(here.get(host.host), host, word)
    return {
        name: _settled(name, tuple(sorted(owners[name])), list(here.values()))
        for name, here in sorted(places.items())
    }


def lay_zone(
    hosts: Sequence[HostWords],
    *,
    site: str,
    domain: str,
    own: str,
    near: Sequence[NameWord] = (),
    whole: bool = True,
) -> Zone:
    """Return the zones of a site as host `own` answers for them. `near` are names for its own programs alone."""
    apexes = (f"{site}.{domain}", SHORT_DOMAIN)
    names = find_names(hosts, site=site, domain=domain)
    server = f"{own}.{HOSTS_LABEL}.{apexes[0]}"
    records: dict[str, list[ZoneRecord]] = {}
    for host in hosts:
        if is_address(host.address):
            name = f"{host.host}.{HOSTS_LABEL}.{apexes[0]}"
            _put(records, _address(name, host.address))
            _put(records, ZoneRecord(reverse_name(host.address), "PTR", name))
    for name, found in names.items():
        for place in found.places:
            _put(records, _address(name, place.address))
            for service, port in place.services:
                alias = f"_{service}._tcp.{name}"
                if len(alias) <= MAX_NAME and len(service) < MAX_LABEL:
                    _put(records, ZoneRecord(alias, "SRV", f"{place.host}.{HOSTS_LABEL}.{apexes[0]}", port))
    for apex in apexes:
        _put(records, ZoneRecord(apex, "NS", server))
        _put(records, ZoneRecord(apex, "SOA", server))
    only_here: dict[str, list[ZoneRecord]] = {}
    for word in near:
        for name in _names(word, site, domain):
            if name not in names:
                _put(only_here, ZoneRecord(name, "A", LOOPBACK))
    return Zone(
        apexes=apexes,
        whole=whole,
        server=server,
        names=names,
        records={name: tuple(found) for name, found in records.items()},
        near={name: tuple(found) for name, found in only_here.items()},
        present=frozenset(_with_ancestors([*records], apexes)),
    )


def answer_question(zone: Zone, asked: Asked) -> ZoneAnswer | None:
    """Return what a host answers of its site's names; None: that is none of them, and somebody else is to be asked."""
    apex = next((one for one in zone.apexes if is_below(asked.name, one)), "")
    found = zone.records.get(asked.name, ())
    if asked.near and not found:
        found = zone.near.get(asked.name, ())
    if not apex:
        pointers = tuple(record for record in found if record.type == "PTR" and asked.type in ("PTR", "ANY"))
        return ZoneAnswer(records=pointers, serial=zone.serial, server=zone.server) if pointers else None
    matching = tuple(record for record in found if asked.type in (record.type, "ANY"))
    if matching:
        return ZoneAnswer(records=matching, serial=zone.serial, server=zone.server)
    if found or asked.name in zone.present:
        return ZoneAnswer(apex=apex, serial=zone.serial, server=zone.server)
    code: Literal["NXDOMAIN", "SERVFAIL"] = "NXDOMAIN" if zone.whole else "SERVFAIL"
    return ZoneAnswer(code=code, apex=apex, serial=zone.serial, server=zone.server)


def is_below(name: str, apex: str) -> bool:
    """Tell whether a name is a zone's own or one below it."""
    return name == apex or name.endswith(f".{apex}")


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address that a name may lead to."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast) and "%" not in text


def reverse_name(address: str) -> str:
    """Return the name under which the name of an address is found (RFC 1035, 3.5; RFC 3596, 2.5)."""
    return ipaddress.ip_address(address).reverse_pointer


def _names(word: NameWord, site: str, domain: str) -> tuple[str, ...]:
    """Return the names that a word makes: none that is not well-formed, or of another zone."""
    apexes = (f"{site}.{domain}", SHORT_DOMAIN)
    host = word.host.lower()
    names = (host,) if "." in host else tuple(f"{host}.{apex}" for apex in apexes)
    hosts = f"{HOSTS_LABEL}.{apexes[0]}"
    return tuple(
        name
        for name in names
        if len(name) <= MAX_NAME
        and _name_re.fullmatch(name)
        and any(is_below(name, apex) for apex in apexes)
        and not is_below(name, hosts)
    )


def _joined(before: NamePlace | None, host: HostWords, word: NameWord) -> NamePlace:
    """Return how a name stands at a host with one word more: all its routes of that name count."""
    state: Literal["serving", "waiting", "silent"] = "silent"
    if host.heard:
        serves = word.serving or (before is not None and before.state == "serving")
        state = "serving" if serves else "waiting"
    services = {*(before.services if before else ()), *([(word.service, word.port)] if word.port else ())}
    return NamePlace(host.host, host.address, state, tuple(sorted(services)))


_ORDER = ("serving", "waiting", "silent")


def _settled(name: str, applications: tuple[str, ...], places: list[NamePlace]) -> SiteName:
    best = min(_ORDER.index(place.state) for place in places)
    chosen = tuple(place for place in places if _ORDER.index(place.state) == best)
    return SiteName(name, applications, chosen, tuple(place for place in places if place not in chosen))


def _address(name: str, address: str) -> ZoneRecord:
    return ZoneRecord(name, "AAAA" if ":" in address else "A", address)


def _put(records: dict[str, list[ZoneRecord]], record: ZoneRecord) -> None:
    here = records.setdefault(record.name, [])
    if record not in here:
        here.append(record)


def _with_ancestors(names: Sequence[str], apexes: Sequence[str]) -> Iterator[str]:
    """Yield names and those above them in their zone: these exist as well, with no records (RFC 8020)."""
    for name in names:
        left = name
        while left and any(is_below(left, apex) for apex in apexes):
            yield left
            left = left.partition(".")[2]
