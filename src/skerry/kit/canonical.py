"""Canonical JSON: one value, one sequence of bytes.

Keys sorted by code point, no white space, UTF-8, instants as RFC 3339 in UTC. What is hashed or signed is
always these bytes; what is received is verified as the bytes that arrived and never re-encoded.
"""

from __future__ import annotations

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")


def encode_canonical(value: object) -> bytes:
    """Return the canonical JSON of a struct, mapping, sequence or scalar."""
    return _encoder.encode(value)
