"""Changes bytes at random: what serves where no fuzzer guided by coverage is installed, and beside it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

# Where integers of this or that width turn over, also as LEB128.
_EDGES = (
    b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\x80\x01", b"\xff\x7f", b"\xff\xff\xff\x7f", b"\xff" * 8 + b"\x01",
    b"\x00\x00", b"\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip


def mutate_bytes(
    data: bytes, random: Random, *, tokens: Sequence[bytes] = (), max_bytes: int = 8192
) -> bytes:
    """Return the bytes with one to four changes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change(changed, random, tokens)
    return bytes(changed[:max_bytes])


def _change(data: bytearray, random: Random, tokens: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    size = random.choice((1, 1, 2, 4, 16, 64))
    match random.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 1 if at < len(data):
            data[at] = random.randrange(256)
        case 2 if at < len(data):
            data[at] = (data[at] + random.choice((-1, 1))) % 256
        case 3:
            data[at:at] = random.randbytes(size)
        case 4:
            del data[at : at + size]
        case 5:
            to = random.randrange(len(data) + 1)
            data[to:to] = data[at : at + size]
        case 6:
            edge = random.choice(_EDGES)
            data[at : at + len(edge)] = edge
        case _:
            if tokens:
                token = random.choice(tokens)
                data[at : at + random.choice((0, len(token)))] = token
