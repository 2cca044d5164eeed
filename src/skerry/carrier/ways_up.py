"""How a host or relay goes up: by which upstreams in which order, and how they are dialled.

How they are dialled is kept in `dialling.json`, readable by its owner alone, as a proxy's password may be in it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from skerry.carrier.dialling import Dialling, check_dialling
from skerry.carrier.link import HttpLink, fetch_trust_root, parse_upstream
from skerry.carrier.upstreams import MAX_UPSTREAMS, Upstream, Upstreams
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.clock import Clock
from skerry.spec.carrier import TrustRoot

_log = structlog.get_logger()


class StatedDialling(msgspec.Struct, frozen=True):
    """What a person stated of how upstreams are dialled, see `Dialling`; what is None is as it is on disk."""

    proxy: str | None = None
    ca_pem: str | None = None
    connect_s: float | None = None
    answer_s: float | None = None

    def __repr__(self) -> str:
        """Return nothing of it: there may be a password in it."""
        return "StatedDialling()"

    def over(self, held: Dialling) -> Dialling:
        """Return what holds when the rest is as it is held."""
        stated = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(held, **stated)


class StatedWay(msgspec.Struct, frozen=True):
    """What a person stated of the way up; without upstreams, those on disk count."""

    upstreams: tuple[str, ...] = ()
    dialling: StatedDialling = StatedDialling()


NOTHING_STATED = StatedWay()


class WayUp(msgspec.Struct, frozen=True):
    """Addresses of upstreams in the order of preference, and how to dial them."""

    upstreams: tuple[str, ...]
    dialling: Dialling

    def check(self) -> None:
        """Refuse what can never work.

        Raises:
            Rejected: an address, the proxy or the certificates are none, or there are too many.
        """
        if not 1 <= len(self.upstreams) <= MAX_UPSTREAMS or len(set(self.upstreams)) < len(self.upstreams):
            raise Rejected("upstreams.number", f"name 1 to {MAX_UPSTREAMS} upstreams, each once")
        for url in self.upstreams:
            parse_upstream(url)
        check_dialling(self.dialling)


def load_dialling(data: Path) -> Dialling:
    """Return how upstreams are dialled.

    Raises:
        Rejected: the file is damaged (`agent.dialling_damaged`).
    """
    path = data / "dialling.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Dialling)
    except FileNotFoundError:
        return Dialling()
    except UNREADABLE:
        # Nothing of it is repeated, nor is the cause: there may be a password in it.
        hint = "state it again, as with skerry agent upstreams set"
        raise Rejected("agent.dialling_damaged", f"{path} is damaged", hint=hint) from None


def save_dialling(data: Path, dialling: Dialling) -> None:
    """Store how upstreams are dialled."""
    write_file(data / "dialling.json", msgspec.json.encode(dialling))


def open_upstreams(way: WayUp, root: TrustRoot, clock: Clock) -> Upstreams:
    """Return the link up. It dials nothing as yet.

    Raises:
        Rejected: an address, the proxy or the certificates are none.
        Untrusted: the trust root holds no usable CA (`trust_root.bad_ca`).
    """
    return Upstreams(links_of(way, root), clock)


def links_of(way: WayUp, root: TrustRoot) -> list[Upstream]:
    """Return a link to each upstream of a way."""
    return [Upstream(url, HttpLink(url, root.ca_pem, dialling=way.dialling)) for url in way.upstreams]


def fetch_first_root(way: WayUp, digest: str) -> tuple[str, TrustRoot, bytes]:
    """Return the first upstream that answers, and the trust root that it shows.

    Raises:
        Untrusted: it shows another than the one with the digest. Unavailable: none answers.
    """
    for url in way.upstreams[:-1]:
        try:
            return url, *fetch_trust_root(url, digest, dialling=way.dialling)
        except Unavailable as error:
            _log.warning("upstream.away", url=url, reason=error.message)
    url = way.upstreams[-1]
    return url, *fetch_trust_root(url, digest, dialling=way.dialling)
