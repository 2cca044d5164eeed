"""Output of a component is read on over turns of its two files, and what was given up is named."""

from __future__ import annotations

from pathlib import Path

from skerry.adapters.process_keeper import RingLog
from skerry.adapters.process_output import read_output
from skerry.ports.runtime import Output


def text(output: Output) -> bytes:
    return b"".join(piece for _, piece in output.pieces)


def test_nothing_is_read_twice_or_left_out_while_files_turn(tmp_path: Path) -> None:
    log, mark, read, written = RingLog(str(tmp_path / "log"), 400), "", b"", b""
    for number in range(60):
        line = f"line {number}\n".encode() * 3
        log.write(line)
        written += line
        output = read_output(tmp_path, mark, 1000)
        assert not output.lost
        read, mark = read + text(output), output.mark
    assert read == written


def test_a_reader_that_comes_too_late_is_told_that_some_was_given_up(tmp_path: Path) -> None:
    log = RingLog(str(tmp_path / "log"), 400)
    log.write(b"first\n")
    mark = read_output(tmp_path, "", 1000).mark
    (tmp_path / "held").hardlink_to(tmp_path / "log")  # so that its inode is not used again
    log.write(b"x" * 2000)
    output = read_output(tmp_path, mark, 1000)
    assert output.lost
    assert 200 <= len(text(output)) <= 400


def test_what_is_more_than_asked_for_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"a" * 100)
    (tmp_path / "log").write_bytes(b"b" * 100)
    first = read_output(tmp_path, "", 60)
    second = read_output(tmp_path, first.mark, 60)
    third = read_output(tmp_path, second.mark, 600)
    assert (first.more, second.more, third.more) == (True, True, False)
    assert text(first) + text(second) + text(third) == b"a" * 100 + b"b" * 100
    assert read_output(tmp_path / "nowhere", "1:2", 10) == Output((), "1:2")
