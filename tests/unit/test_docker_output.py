"""Output of containers is read on from a mark, also where an engine tells the time in whole seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.docker_output import _after, _frames, _Mark
from skerry.ports.runtime import Output


def frame(second: int, text: bytes) -> bytes:
    return b"2026-11-22T05:27:%02dZ " % second + text


def text(output: Output) -> bytes:
    return b"".join(piece for _, piece in output.pieces)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=20)), max_size=40),
    st.integers(0, 40),
    st.integers(1, 50),
)
def test_nothing_is_read_twice_or_left_out_of_a_second(
    written: list[tuple[int, bytes]], first: int, limit: int
) -> None:
    frames = [frame(second, piece) for second, piece in sorted(written, key=lambda one: one[0])]
    read, mark = b"", ""
    for there in (frames[:first], frames):
        more = True
        while more:
            output = _after(_Mark.parse(mark, "c0"), there, limit)
            read, mark, more = read + text(output), output.mark, output.more
    assert read == b"".join(one[21:] for one in frames)


def test_the_output_of_another_container_is_read_from_its_beginning() -> None:
    mark = _after(_Mark.parse("", "first"), [frame(1, b"one")], 100).mark
    assert text(_after(_Mark.parse(mark, "first"), [frame(1, b"one"), frame(1, b"two")], 100)) == b"two"
    assert text(_after(_Mark.parse(mark, "second"), [frame(1, b"one")], 100)) == b"one"


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(1, 20))
def test_frames_are_told_apart_however_they_arrive(frames: list[bytes], step: int) -> None:
    stream = b"".join(bytes([1, 0, 0, 0]) + len(one).to_bytes(4, "big") + one for one in frames)
    pieces = [stream[begin : begin + step] for begin in range(0, len(stream), step)]
    assert list(_frames(pieces)) == frames
