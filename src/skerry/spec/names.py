"""Names of a site: what its hosts tell each other of who is where, and what a host's DNS says of itself."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skerry.spec.ingress import SHORT_DOMAIN
from skerry.spec.metadata import Part

HOSTS_LABEL = "skerry"
"""Hosts are `HOST.skerry.SITE.DOMAIN`."""

__all__ = ["HOSTS_LABEL", "SHORT_DOMAIN", "DnsView", "NamePlace", "NameWord", "NamesPart", "SiteName"]

_Label = Annotated[str, Meta(max_length=64)]
_Number = Annotated[int, Meta(ge=0, le=65535)]


class NameWord(msgspec.Struct, frozen=True, array_like=True):
    """What a host says: that `application` is there under `host`, which is a label or, with a dot, a whole name.

    Clients come in at `port`. `service` is `https`, `http` or `grpc`, or of a TCP route its name. One that is not
    `serving` is there all the same, and will be.
    """

    application: _Label
    host: Annotated[str, Meta(max_length=253)]
    service: _Label
    port: _Number
    serving: bool = True


class NamesPart(msgspec.Struct, frozen=True, array_like=True):
    """A part of what a host says of names: the `part`th of `parts`, from 0. All of one set have one `mark`."""

    mark: Annotated[str, Meta(max_length=16)]
    part: _Number
    parts: Annotated[int, Meta(ge=1, le=1024)]
    words: Annotated[tuple[NameWord, ...], Meta(max_length=64)] = ()


class DnsView(Part, frozen=True, kw_only=True):
    """The DNS of a host: where it listens and what keeps it from that; and what is announced by multicast DNS."""

    listens: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    trouble: Annotated[str, Meta(max_length=1024)] = ""
    announces: Annotated[tuple[str, ...], Meta(max_length=512)] = ()


class NamePlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host that a name leads to, or would: `state` says how it stands there."""

    host: str
    address: str
    state: Literal["serving", "waiting", "silent"]
    services: tuple[tuple[str, int], ...] = ()


class SiteName(msgspec.Struct, frozen=True):
    """A name: whose it is, the hosts that it leads to, and those that have it as well and were passed over."""

    name: str
    applications: tuple[str, ...]
    places: tuple[NamePlace, ...]
    passed: tuple[NamePlace, ...] = ()
