"""Messages of the DNS as bytes (RFC 1035, RFC 6891 for EDNS), by dnslib. No sockets here.

Rules: what comes is bounded before it is read, and whatever the library stumbles over is a message that cannot be read.
Answers of upstreams are passed on with their records; only their number and their age are changed.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from skerry.kit.errors import Rejected, Unavailable
from skerry.matching.names import TTL_S, ZoneAnswer, ZoneRecord

MAX_QUERY_BYTES = 1024
TCP_BYTES = 65535
PLAIN_UDP_BYTES = 512
UDP_BYTES = 1232
"""What passes every usual network in one piece (DNS Flag Day 2020)."""
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
_CODES = {"NOERROR": NOERROR, "NXDOMAIN": NXDOMAIN, "SERVFAIL": SERVFAIL}
_HEADER_BYTES = 12
_IN, _ANY, _OPT = 1, 255, 41
_TRANSFERS = (251, 252)
_QUERY = 0


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question of a client. `room` is what it takes by UDP in bytes, `refusal` a code to answer at once, or -1."""

    id: int
    name: str
    type: str
    room: int = PLAIN_UDP_BYTES
    edns: bool = False
    refusal: int = -1
    raw: bytes = b""


def load_library() -> Any:
    """Return dnslib; it is read only where there is a DNS.

    Raises:
        Unavailable: it is not installed (`names.missing`).
    """
    try:
        return importlib.import_module("dnslib")
    except ImportError as error:
        raise Unavailable(
            "names.missing", "a DNS needs dnslib", hint="pip install 'skerry[names]'"
        ) from error


def read_query(data: bytes) -> Query | None:
    """Return what a client asks; None: it is no question, and nothing is to be answered.

    One that breaks the rules has a `refusal`.
    """
    if len(data) < _HEADER_BYTES or data[2] & 0x80:
        return None
    number = int.from_bytes(data[:2], "big")
    broken = Query(id=number, name="", type="", refusal=FORMERR, raw=data)
    if len(data) > MAX_QUERY_BYTES:
        return broken
    if data[2] >> 3 & 0xF != _QUERY:
        return msgspec.structs.replace(broken, refusal=NOTIMP)
    try:
        record = load_library().DNSRecord.parse(data)
        if len(record.questions) != 1 or record.rr or record.auth:
            return broken
        asked = record.questions[0]
        options = [one for one in record.ar if one.rtype == _OPT]
        name = str(asked.qname).rstrip(".").lower()
        record.pack()  # it reads names that it cannot write
    except Unavailable:
        raise
    except Exception:  # the library raises what it likes about bytes of strangers
        return broken
    found = Query(id=number, name=name, type=type_name(asked.qtype), raw=data)
    if len(options) > 1:
        return broken
    if options:
        room = min(max(options[0].rclass, PLAIN_UDP_BYTES), UDP_BYTES)
        found = msgspec.structs.replace(found, room=room, edns=True)
        if options[0].ttl >> 16 & 0xFF:
            return msgspec.structs.replace(found, refusal=BADVERS)
    if asked.qclass != _IN or asked.qtype in _TRANSFERS:
        return msgspec.structs.replace(found, refusal=REFUSED)
    return found


def type_name(number: int) -> str:
    """Return the name of a record type, `TYPE` with its number where it has none here (RFC 3597, 5)."""
    names = {1: "A", 2: "NS", 6: "SOA", 12: "PTR", 28: "AAAA", 33: "SRV", _ANY: "ANY"}
    return names.get(number, f"TYPE{number}")


def write_answer(query: Query, answer: ZoneAnswer, *, room: int) -> bytes:
    """Return the message that answers a query with what the zone says; beyond `room` bytes it says only that."""
    lib = load_library()
    reply = lib.DNSRecord.parse(query.raw).reply(ra=1, aa=1)
    reply.header.rcode = _CODES[answer.code]
    reply.header.aa = 0 if answer.code == "SERVFAIL" else 1
    for record in answer.records:
        reply.add_answer(_record(lib, record, answer))
    if answer.apex and answer.code != "SERVFAIL":
        reply.add_auth(_record(lib, ZoneRecord(answer.apex, "SOA", answer.server), answer))
    if query.edns:
        reply.add_ar(lib.EDNS0(udp_len=UDP_BYTES))
    packed = bytes(reply.pack())
    return packed if len(packed) <= room else write_short(query)


def write_refusal(query: Query, code: int) -> bytes:
    """Return the message that says only a code; with the question where it could be read."""
    flags = bytes((0x80 | query.raw[2] & 0x79, 0x80 | code & 0xF))
    if not query.name and not query.type:
        return query.raw[:2] + flags + bytes(8)
    lib = load_library()
    reply = lib.DNSRecord.parse(query.raw).reply(ra=1, aa=0)
    reply.header.rcode = code & 0xF
    if query.edns:
        reply.add_ar(lib.EDNS0(udp_len=UDP_BYTES, ext_rcode=code >> 4))
    return bytes(reply.pack())


def write_short(query: Query) -> bytes:
    """Return the message that says: too long for this way, ask by TCP."""
    lib = load_library()
    reply = lib.DNSRecord.parse(query.raw).reply(ra=1, aa=0)
    reply.header.tc = 1
    if query.edns:
        reply.add_ar(lib.EDNS0(udp_len=UDP_BYTES))
    return bytes(reply.pack())


def read_reply(data: bytes, query: Query) -> tuple[int, bool]:
    """Return for how many seconds an upstream's answer to a query may be kept, and whether it is cut short.

    0: it may not be kept.

    Raises:
        Rejected: it does not answer this query, or cannot be read (`names.bad_reply`).
    """
    try:
        lib = load_library()
        reply, asked = lib.DNSRecord.parse(data), lib.DNSRecord.parse(query.raw).questions[0]
        answers = reply.header.qr == 1 and len(reply.questions) == 1
        if not answers or reply.questions[0] != asked or reply.header.id != query.id:
            raise Rejected("names.bad_reply", "an upstream answered another question")
        times = [one.ttl for one in (*reply.rr, *reply.auth) if one.rtype != _OPT]
        keep = reply.header.rcode in (NOERROR, NXDOMAIN) and not reply.header.tc
        return (min(times) if keep and times else 0), bool(reply.header.tc)
    except (Rejected, Unavailable):
        raise
    except Exception as error:  # the library raises what it likes about bytes of strangers
        raise Rejected("names.bad_reply", f"an upstream's answer cannot be read: {error}") from error


def with_number(data: bytes, number: int) -> bytes:
    """Return a message with another number."""
    return number.to_bytes(2, "big") + data[2:]


def aged(data: bytes, seconds: int) -> bytes:
    """Return an upstream's answer after it was kept for so long."""
    reply = load_library().DNSRecord.parse(data)
    for one in (*reply.rr, *reply.auth, *reply.ar):
        if one.rtype != _OPT:
            one.ttl = max(0, one.ttl - seconds)
    return bytes(reply.pack())


def _record(lib: Any, record: ZoneRecord, answer: ZoneAnswer) -> Any:
    data: Any
    if record.type == "SOA":
        times = (answer.serial, 60, 30, 600, TTL_S)
        data = lib.SOA(record.data, f"hostmaster.{record.data}", times)
    elif record.type == "SRV":
        data = lib.SRV(0, 0, record.port, record.data)
    else:
        data = getattr(lib, record.type)(record.data)
    return lib.RR(record.name, getattr(lib.QTYPE, record.type), rdata=data, ttl=TTL_S)
