"""A delta that is damaged, truncated, for another base or made to harm never yields a file."""

from __future__ import annotations

import io
import sys
import zlib
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.delivery import planes, zstd_frames
from skerry.delivery.delta_apply import apply_delta, verify_header
from skerry.delivery.delta_format import (
    COPY,
    NUM,
    NUMFULL,
    OLD,
    OUTPUT,
    ZPATCH,
    ZSTD,
    Header,
    Reference,
    Segment,
    encode_block,
    encode_header,
    encode_integer,
    read_header,
)
from skerry.delivery.word_shape import WordShape
from skerry.kit.digests import digest_of
from skerry.kit.errors import Untrusted
from tests.unit.delta_files_of import (
    PLAIN,
    WITH_NUMPY,
    applied,
    delta_of,
    noise,
    safetensors_of,
    sha256,
)

pytestmark = [pytest.mark.delivery, pytest.mark.rule("DELTA-1")]

OLD_FILE = noise(5000)
MIB = 1 << 20


@cache
def sample() -> tuple[bytes, bytes, bytes]:
    """Return an old and a new content, and a delta with every operation in it."""
    random = Random(3)
    words = b"".join(random.randrange(1 << 13, 1 << 14).to_bytes(2, "little") for _ in range(2000))
    changed = b"".join(
        (int.from_bytes(words[at : at + 2], "little") + random.randrange(3)).to_bytes(2, "little")
        for at in range(0, len(words), 2)
    )
    part = noise(70_000, 4)
    old = safetensors_of({"a": ("F16", words), "b": ("U8", part), "c": ("U8", noise(6000, 5))})
    new = safetensors_of(
        {
            "a": ("F16", changed),
            "n": ("F16", words[::-1]),
            "b": ("U8", part),
            "c": ("U8", noise(6000, 5)[:3000] * 2),
        }
    )
    return old, new, delta_of(old, new, level=3)


def forged(*segments: Segment, makes: bytes, old: bytes = OLD_FILE, block_size: int | None = None) -> bytes:
    """Return a delta of one block, right in all that is not said."""
    header = Header(len(old), sha256(old), len(makes), sha256(makes))
    size = len(makes) if block_size is None else block_size
    return encode_header(header) + encode_block(size, sha256(makes), list(segments))


def refusal_of(delta: bytes, old: bytes = OLD_FILE) -> str:
    """Return the code by which a delta is refused."""
    with pytest.raises(Untrusted) as refused:
        applied(delta, old)
    return refused.value.code


def test_the_sample_is_right_and_has_every_operation() -> None:
    old, new, delta = sample()
    assert applied(delta, old) == new == applied(delta, old, words=WITH_NUMPY)
    packed = zstd_frames.compress(b"a" * 100, 3)
    after = zstd_frames.compress_after(OLD_FILE, OLD_FILE[:2000], 3)
    shape = WordShape(2, 1)
    made = OLD_FILE[7:17] + b"a" * 100 + OLD_FILE[:2000] + bytes(40) + bytes(40)
    delta = forged(
        Segment(COPY, 10, (Reference(OLD, 7, 10),)),
        Segment(ZSTD, 100, payload=packed),
        Segment(ZPATCH, 2000, (Reference(OLD, 0, 5000),), after),
        Segment(
            NUM, 40, (Reference(OLD, 0, 40),),
            planes.pack_difference(PLAIN, bytes(40), OLD_FILE[:40], shape, levels=(1,)), shape,
        ),
        Segment(NUMFULL, 40, payload=planes.pack_full(PLAIN, bytes(40), WordShape(4), levels=(1,)), shape=WordShape(4)),
        makes=made,
    )  # fmt: skip
    assert applied(delta, OLD_FILE) == made


def test_every_prefix_is_refused() -> None:
    old, _, delta = sample()
    assert {refusal_of(delta[:end], old) for end in range(len(delta))} == {"delta.truncated"}


def test_every_bit_flip_of_a_whole_delta_is_refused() -> None:
    old, _, delta = sample()
    for bit in range(8 * len(delta)):
        flipped = bytearray(delta)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Untrusted):
            applied(bytes(flipped), old)


@given(st.data())
@settings(max_examples=1000, deadline=None)
def test_whoever_can_make_checksums_right_makes_no_other_file(data: st.DataObject) -> None:
    """Change bytes behind the checksums, which an attacker can make right: refused, or the very same file."""
    old, new, delta = sample()
    _, begins = read_header(io.BytesIO(delta))
    frame = bytearray(delta[begins:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    changed = delta[:begins] + bytes(frame) + zlib.crc32(frame).to_bytes(4, "little")
    for words in (PLAIN, WITH_NUMPY):
        try:
            assert applied(changed, old, words=words) == new
        except Untrusted:
            continue


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    assert refusal_of(content) in ("delta.not_a_delta", "delta.truncated")
    assert refusal_of(b"SKDELTA\x01" + content).startswith("delta.")


def test_another_base_is_refused() -> None:
    old, _, delta = sample()
    for wrong in (b"", old + b"a", old[:-1], old[:50] + b"!" + old[51:]):
        assert refusal_of(delta, wrong) == "delta.wrong_base"


def test_another_target_is_refused_before_anything_is_done() -> None:
    old, new, delta = sample()
    header, _ = read_header(io.BytesIO(delta))
    verify_header(header, target_digest=digest_of(new), target_size=len(new), base_digest=digest_of(old))
    for digest, size, base in (
        (digest_of(old), len(new), digest_of(old)),
        (digest_of(new), len(new) + 1, digest_of(old)),
        (digest_of(new), len(new), digest_of(new)),
    ):
        with pytest.raises(Untrusted):
            verify_header(header, target_digest=digest, target_size=size, base_digest=base)


def test_what_follows_the_last_block_is_refused() -> None:
    old, _, delta = sample()
    assert refusal_of(delta + b"\0", old) == "delta.malformed"


COPY_3 = Segment(COPY, 3, (Reference(OLD, 0, 3),))
PACKED = zstd_frames.compress(b"abc", 3)
ONE_BYTE = WordShape(1)


@pytest.mark.parametrize(
    ("segments", "code"),
    (
        pytest.param((), "malformed", id="nothing"),
        pytest.param((COPY_3, COPY_3), "malformed", id="more than the block"),
        pytest.param((Segment(COPY, 3, (Reference(OLD, 4998, 3),)),), "out_of_range", id="behind the base"),
        pytest.param((Segment(COPY, 3, (Reference(OUTPUT, 0, 3),)),), "out_of_range", id="output to come"),
        pytest.param((Segment(COPY, 3, (Reference(OLD, 1 << 45, 3),)),), "out_of_bounds", id="far away"),
        pytest.param(
            (Segment(COPY, 17 * MIB, (Reference(OLD, 0, 17 * MIB),)),), "out_of_bounds", id="long copy"
        ),
        pytest.param((Segment(COPY, 0, (Reference(OLD, 0, 3),)), COPY_3), "malformed", id="copy of nothing"),
        pytest.param((Segment(ZSTD, MIB + 1, payload=PACKED),), "out_of_bounds", id="too much coded"),
        pytest.param(
            (Segment(ZSTD, MIB, payload=PACKED), Segment(ZSTD, 1, payload=PACKED)), "malformed", id="sum"
        ),
        pytest.param((Segment(ZSTD, 3, payload=b""),), "bad_frame", id="no frame"),
        pytest.param((Segment(ZSTD, 3, payload=PACKED + b"x"),), "bad_frame", id="frame and more"),
        pytest.param((Segment(ZSTD, 3, payload=PACKED[:-1]),), "bad_frame", id="cut frame"),
        pytest.param((Segment(ZSTD, 3, payload=PACKED * 2),), "bad_frame", id="two frames"),
        pytest.param((Segment(ZPATCH, 3, (), PACKED),), "malformed", id="patch of nothing"),
        pytest.param(
            (Segment(ZPATCH, 3, (Reference(OLD, 0, 0),), PACKED),), "malformed", id="empty reference"
        ),
        pytest.param(
            (Segment(ZPATCH, 3, (Reference(OLD, 0, 5 * MIB),), PACKED),), "out_of_bounds", id="long"
        ),
        pytest.param(
            (Segment(ZPATCH, 3, (Reference(OLD, 0, 9),) * 1025, PACKED),), "out_of_bounds", id="many"
        ),
        pytest.param(
            (Segment(NUM, 3, (Reference(OLD, 0, 2),), b"", ONE_BYTE),), "malformed", id="too few words"
        ),
        pytest.param((Segment(NUM, 3, (Reference(OLD, 0, 3),), b"", ONE_BYTE),), "truncated", id="no planes"),
        pytest.param((Segment(NUM, 3, (Reference(OLD, 0, 3),), b"\3", ONE_BYTE),), "malformed", id="width"),
        pytest.param(
            (Segment(NUM, 3, (Reference(OLD, 0, 3),), b"\0\4", ONE_BYTE),), "out_of_bounds", id="plane"
        ),
        pytest.param(
            (Segment(NUM, 3, (Reference(OLD, 0, 3),), b"\0\0x", ONE_BYTE),), "malformed", id="behind"
        ),
        pytest.param(
            (Segment(NUMFULL, 3, payload=b"\0\0\0\0", shape=WordShape(2)),), "malformed", id="half word"
        ),
        pytest.param(
            (Segment(NUMFULL, 4, payload=b"\0\0", shape=WordShape(4, 1)),), "malformed", id="sorted full"
        ),
        pytest.param(
            (Segment(NUMFULL, 8, payload=b"\0\0", shape=WordShape(8)),), "malformed", id="long words"
        ),
        pytest.param((Segment(NUMFULL, 4, payload=b"\0\0", shape=WordShape(4, 2)),), "malformed", id="order"),
        pytest.param((Segment(9, 3, payload=PACKED),), "malformed", id="operation"),
    ),
)
def test_hostile_segments_are_refused(segments: tuple[Segment, ...], code: str) -> None:
    assert refusal_of(forged(*segments, makes=OLD_FILE[:3])) == f"delta.{code}"


def test_limits_of_a_block_count_all_its_segments() -> None:
    half = MIB // 2 + 1
    coded = [Segment(ZSTD, half, payload=zstd_frames.compress(bytes(half), 3))] * 2
    assert refusal_of(forged(*coded, makes=bytes(2 * half))) == "delta.out_of_bounds"
    old = bytes(3 * MIB)
    patch = Segment(ZPATCH, 3, (Reference(OLD, 0, 3 * MIB),), zstd_frames.compress_after(old, b"abc", 3))
    assert refusal_of(forged(patch, patch, makes=b"abcabc", old=old), old) == "delta.out_of_bounds"
    copies = [Segment(COPY, 1, (Reference(OLD, 0, 1),))] * 4097
    assert refusal_of(forged(*copies, makes=OLD_FILE[:1] * 4097)) == "delta.out_of_bounds"


@pytest.mark.parametrize(
    ("segment", "makes"),
    (
        (Segment(ZSTD, 1000, payload=zstd_frames.compress(bytes(MIB), 3)), bytes(1000)),
        (Segment(ZSTD, 1000, payload=zstd_frames.compress(bytes(999), 3)), bytes(1000)),
        (
            Segment(
                NUMFULL, 1000, payload=b"\0\x14" + zstd_frames.compress(bytes(MIB), 3)[:20], shape=ONE_BYTE
            ),
            b"?",
        ),
    ),
)
def test_a_frame_of_another_size_is_refused(segment: Segment, makes: bytes) -> None:
    assert refusal_of(forged(segment, makes=makes, block_size=1000)).startswith("delta.")


def test_a_window_of_zstd_larger_than_a_block_is_refused() -> None:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    # Written without knowing the size, so that the frame asks for its whole window.
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = packer.compress(b"abc") + packer.flush()
    assert zstd.decompress(frame) == b"abc"
    assert refusal_of(forged(Segment(ZSTD, 3, payload=frame), makes=b"abc")) == "delta.bad_frame"


def test_right_blocks_to_a_wrong_whole_are_refused() -> None:
    made = OLD_FILE[:3]
    delta = encode_header(Header(5000, sha256(OLD_FILE), 3, sha256(b"abc"))) + encode_block(
        3, sha256(made), [COPY_3]
    )
    assert refusal_of(delta) == "delta.target_mismatch"
    delta = encode_header(Header(5000, sha256(OLD_FILE), 3, sha256(made))) + encode_block(
        3, sha256(b"abc"), [COPY_3]
    )
    assert refusal_of(delta) == "delta.block_mismatch"
    delta = encode_header(Header(5000, sha256(OLD_FILE), 2, sha256(made))) + encode_block(
        3, sha256(made), [COPY_3]
    )
    assert refusal_of(delta) == "delta.malformed"


def _with_size(number: bytes) -> bytes:
    content = b"SKDELTA\x01" + number + sha256(OLD_FILE) + encode_integer(3) + sha256(b"abc")
    return content + zlib.crc32(content).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("number", "code"),
    (
        (b"\x88\x27", "truncated"),
        (b"\x88\xa7\x00", "malformed"),
        (b"\xff" * 9, "malformed"),
        (encode_integer((1 << 42) + 1), "out_of_bounds"),
    ),
)
def test_numbers_have_one_form_and_a_bound(number: bytes, code: str) -> None:
    assert refusal_of(_with_size(number)) == f"delta.{code}"


def test_a_length_is_refused_before_anything_is_read_for_it() -> None:
    header = encode_header(Header(5000, sha256(OLD_FILE), 3, sha256(b"abc")))
    asked: list[int] = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(-1 if size is None else size)
            return super().read(size)

    delta = header + encode_integer(3) + encode_integer(1 << 40)
    with pytest.raises(Untrusted):
        apply_delta(Source(delta), base=io.BytesIO(OLD_FILE), output=io.BytesIO(), words=PLAIN)
    assert 0 < max(asked) < 100


def test_the_reader_takes_what_comes_piecemeal() -> None:
    old, new, delta = sample()

    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size if size and size > 0 else 7))

    output = io.BytesIO()
    apply_delta(Trickle(delta), base=io.BytesIO(old), output=output, words=PLAIN)
    assert output.getvalue() == new
