"""Several files read as one are what their contents one after the other would be."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.joined_files import JoinedFiles, open_joined

pytestmark = pytest.mark.delivery

PARTS = st.lists(st.binary(max_size=12), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.one_of(st.none(), st.integers(-1, 30))),
        st.tuples(st.just("set"), st.integers(0, 60)),
        st.tuples(st.just("on"), st.integers(-20, 20)),
        st.tuples(st.just("end"), st.integers(-60, 5)),
        st.tuples(st.just("into"), st.integers(0, 30)),
        st.tuples(st.just("tell"), st.none()),
    ),
    max_size=12,
)


def step(file: io.BufferedIOBase | io.BytesIO, kind: str, number: int | None) -> object:
    """Do one thing with a file and return what came of it."""
    if kind == "read":
        return file.read(number)
    if kind == "tell" or number is None:
        return file.tell()
    if kind == "into":
        space = bytearray(number)
        return file.readinto(space), bytes(space)
    return file.seek(number, {"set": os.SEEK_SET, "on": os.SEEK_CUR, "end": os.SEEK_END}[kind])


@given(parts=PARTS, steps=STEPS)
def test_joined_files_read_and_seek_as_one_file_does(
    parts: list[bytes], steps: list[tuple[str, int | None]]
) -> None:
    one, several = io.BytesIO(b"".join(parts)), JoinedFiles([io.BytesIO(part) for part in parts])
    assert several.readable()
    assert several.seekable()
    for kind, number in steps:
        assert step(several, kind, number) == step(one, kind, number), (kind, number)


@given(parts=PARTS)
def test_files_on_the_disk_are_joined_and_closed(
    parts: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / str(number) for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    with open_joined(paths) as opened:
        assert opened.read() == b"".join(parts)


def test_a_file_that_became_shorter_is_an_error_and_no_shorter_content(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_bytes(bytes(10_000))
    with open_joined(paths) as opened:
        os.truncate(paths[1], 5000)
        with pytest.raises(OSError, match="shorter"):
            opened.read()
