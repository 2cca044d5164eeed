"""Messages of the DNS: questions are answered, refused or passed over; answers of upstreams are refused or kept.

The first byte of an input says which: a question by UDP, or an answer to one of some questions.
"""

from __future__ import annotations

from typing import Any

from skerry.adapters.dns_packets import (
    MAX_QUERY_BYTES,
    TCP_BYTES,
    Query,
    aged,
    load_library,
    read_query,
    read_reply,
    write_answer,
    write_refusal,
    write_short,
)
from skerry.kit.errors import Rejected
from skerry.matching.names import Asked, HostWords, answer_question, lay_zone
from skerry.spec.names import NameWord
from tests.fuzz.target import Broken, Target

_dns: Any = load_library()
_WORDS = tuple(NameWord(f"app-{number}", f"app-{number}", "https", 443) for number in range(20))
_ZONE = lay_zone(
    [
        HostWords(host="h1", address="10.0.0.1", words=_WORDS),
        HostWords(host="h6", address="fd00::6", words=_WORDS),
    ],
    site="zurich",
    domain="skerry.internal",
    own="h1",
)
_KINDS = ("A", "AAAA", "SRV", "PTR", "SOA", "NS", "ANY", "TXT", "HTTPS")
_NAMES = ("app-1.site.internal", "App-1.zurich.skerry.internal", "x.site.internal", "site.internal", "example.org", "",
          "_https._tcp.app-1.site.internal", "1.0.0.10.in-addr.arpa", "h6.skerry.zurich.skerry.internal")  # fmt: skip


def run(data: bytes) -> None:
    """Take an input as a question, or as an answer."""
    if not data:
        return
    if data[0] & 1:
        _reply(data[1:], bytes(_question(_NAMES[(data[0] >> 1) % len(_NAMES)], "A")))
    else:
        _ask(data[1:])


def _ask(data: bytes) -> None:
    query = read_query(data)
    if query is None:
        return
    if len(data) > MAX_QUERY_BYTES and query.refusal < 0:
        raise Broken("a question that is too long was taken")
    if query.refusal >= 0:
        _check(write_refusal(query, query.refusal), query, TCP_BYTES)
        return
    answer = answer_question(_ZONE, Asked(query.name, query.type))
    if answer is None:
        _check(write_refusal(query, 2), query, TCP_BYTES)
    else:
        _check(write_answer(query, answer, room=query.room), query, query.room)
    _check(write_short(query), query, TCP_BYTES)


def _check(message: bytes, query: Query, room: int) -> None:
    """Hold what is sent against its number, its size, and what a client can read."""
    if message[:2] != query.id.to_bytes(2, "big") or not message[2] & 0x80:
        raise Broken("the answer is not one to the question")
    if len(message) > max(room, MAX_QUERY_BYTES + 64):
        raise Broken(f"{len(message)} bytes where there is room for {room}")
    _dns.DNSRecord.parse(message)


def _reply(data: bytes, raw: bytes) -> None:
    query = read_query(raw)
    if query is None or query.refusal >= 0:
        raise Broken("a plain question was not understood")
    try:
        keep_s, _ = read_reply(data, query)
    except Rejected as refused:
        if refused.code != "names.bad_reply":
            raise Broken(f"refused as {refused.code}") from refused
        return
    if keep_s < 0:
        raise Broken("kept for less than no time")
    try:
        older = aged(data, 1)
    except Exception:  # it is passed on and not kept
        return
    read_reply(older, query)


def _question(name: str, kind: str) -> bytes:
    record = _dns.DNSRecord.question(name, kind)
    record.header.id = 0x1234
    return bytes(record.pack())


def seeds() -> list[bytes]:
    """Return questions of every kind, with and without EDNS, and answers to them."""
    found = [b"\0" + _question(name, kind) for name in _NAMES for kind in _KINDS[:3]]
    found += [b"\0" + _question(_NAMES[0], kind) for kind in _KINDS]
    asked = _dns.DNSRecord.parse(_question(_NAMES[0], "A"))
    asked.add_ar(_dns.EDNS0(udp_len=4096, flags="do"))
    found.append(b"\0" + bytes(asked.pack()))
    for place, name in enumerate(_NAMES):
        reply = _dns.DNSRecord.parse(_question(name, "A")).reply()
        reply.add_answer(_dns.RR(name or ".", 1, rdata=_dns.A("192.0.2.1"), ttl=60))
        reply.add_auth(_dns.RR("org", 6, rdata=_dns.SOA("a.org", "b.org", (1, 2, 3, 4, 5)), ttl=60))
        reply.add_ar(_dns.EDNS0(udp_len=1232))
        found.append(bytes([place << 1 | 1]) + bytes(reply.pack()))
    return found


TARGET = Target(run, seeds, max_bytes=2048)
