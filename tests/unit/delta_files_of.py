"""Pairs of old and new content for the tests of deltas, and short ways to encode and apply."""

from __future__ import annotations

import hashlib
import io
import json
from random import Random

from hypothesis import strategies as st

from skerry.delivery.delta_apply import apply_delta
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.words import Words, choose_words

PLAIN = choose_words(numpy=False)
WITH_NUMPY = choose_words(numpy=True)
QUICK = 1


def delta_of(old: bytes, new: bytes, *, words: Words = PLAIN, level: int = QUICK) -> bytes:
    """Return the delta from `old` to `new`."""
    pieces: list[bytes] = []
    encode_delta(base=io.BytesIO(old), target=io.BytesIO(new), sink=pieces.append, words=words, level=level)
    return b"".join(pieces)


def applied(delta: bytes, old: bytes, *, words: Words = PLAIN) -> bytes:
    """Return what a delta makes of `old`."""
    output = io.BytesIO()
    apply_delta(io.BytesIO(delta), base=io.BytesIO(old), output=output, words=words)
    return output.getvalue()


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that nothing packs."""
    return Random(seed).randbytes(size)


def edited(old: bytes, random: Random) -> bytes:
    """Return content with pieces changed, moved, doubled, put in and taken out."""
    new = bytearray(old)
    for _ in range(random.randrange(1, 6)):
        at, to = random.randrange(len(new) + 1), random.randrange(len(new) + 1)
        size = random.choice((1, 3, 40, 700, 70_000))
        piece = bytes(new[at : at + size])
        match random.randrange(5):
            case 0:
                new[to:to] = random.randbytes(size)
            case 1:
                del new[at : at + size]
            case 2:
                del new[at : at + size]
                new[to:to] = piece
            case 3:
                new[to:to] = piece
            case _:
                new[at : at + size] = bytes(value ^ 1 for value in piece)
    return bytes(new)


def safetensors_of(tensors: dict[str, tuple[str, bytes]]) -> bytes:
    """Return a safetensors file."""
    header: dict[str, object] = {}
    at = 0
    for name, (dtype, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [len(content)], "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(content for _, content in tensors.values())


def sha256(content: bytes) -> bytes:
    """Return the raw digest."""
    return hashlib.sha256(content).digest()


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draw content: any bytes, text, runs, or noise of up to 300 KB."""
    kind = draw(st.sampled_from(("bytes", "runs", "noise", "text")))
    if kind == "bytes":
        return draw(st.binary(max_size=2000))
    if kind == "runs":
        runs = draw(
            st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 20_000)), max_size=4)
        )
        return b"".join(pattern * count for pattern, count in runs)
    random = Random(draw(st.integers(0, 1 << 30)))
    size = draw(st.integers(0, 300_000))
    if kind == "noise":
        return random.randbytes(size)
    return bytes(random.choices(b"etaoin shrdlu\n", k=size // 8))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw an old and a new content, mostly related."""
    old = draw(contents())
    if draw(st.integers(0, 4)) == 0:
        return old, draw(contents())
    return old, edited(old, Random(draw(st.integers(0, 1 << 30))))
