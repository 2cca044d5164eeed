"""What is written cannot forge another line, another name, another time, nor steer a terminal."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.re2_patterns import Re2Patterns
from skerry.cli.logs_display import line_text
from skerry.kit.errors import Rejected
from skerry.spec.api_logs import LogLine
from skerry.spec.logs import CrashRecord, LogQuestion, LogRecord
from skerry.telemetry.crashes import (
    MAX_TAIL,
    MOST_ERRORS_PER_HOUR,
    MOST_PER_HOUR,
    CrashRoom,
    shape_of,
    tail_of,
)
from skerry.telemetry.log_answers import (
    MAX_ANSWER_RAW_BYTES,
    MAX_RAW_BYTES,
    find_newest,
    match_record,
    pack_crash,
    pack_records,
    unpack_crash,
    unpack_records,
)
from skerry.telemetry.log_lines import (
    MAX_FIELDS,
    MAX_LINE_BYTES,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_VALUE,
    LineSplitter,
    clean_record,
    parse_line,
)

AT = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


def parse(line: bytes) -> LogRecord:
    return parse_line(line, AT, application="reader", component="main")


def record(message: str, *, after_s: float = 0.0, level: str = "", **fields: str) -> LogRecord:
    made = LogRecord(
        at=AT + timedelta(seconds=after_s), application="reader", component="main", message=message
    )
    return msgspec.structs.replace(made, level=level, fields=fields)


def printed(found: LogRecord) -> str:
    return line_text(LogLine(host="edge", site="harbour", record=found))


@pytest.mark.rule("LOG-2")
@given(st.binary(max_size=300))
def test_whatever_is_written_is_one_printable_line_of_whoever_wrote_it(content: bytes) -> None:
    for line, _ in LineSplitter().feed(content + b"\n"):
        found = parse(line)
        assert (found.at, found.application, found.component) == (AT, "reader", "main")
        assert len(printed(found).splitlines()) == 1
        assert all(char.isprintable() or not char.isascii() for char in printed(found))


@pytest.mark.rule("LOG-2")
@given(
    st.dictionaries(
        st.text(max_size=100),
        st.none() | st.text(max_size=700) | st.integers() | st.lists(st.text(max_size=5)),
    )
)
def test_an_object_gives_level_message_and_bounded_fields_and_nothing_else(
    content: dict[str, object],
) -> None:
    found = parse(json.dumps(content).encode())
    assert (found.at, found.application, found.component) == (AT, "reader", "main")
    assert len(found.fields) <= MAX_FIELDS
    assert all(len(name) <= MAX_NAME and len(value) <= MAX_VALUE for name, value in found.fields.items())
    assert len(printed(found).splitlines()) == 1
    assert clean_record(found) == found


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize(
    ("line", "shown"),
    (
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"a\rb", "a\\rb"),
        ("a\u202eb\u2028c".encode(), "a\\u202eb\\u2028c"),
        (b'{"msg": "one\\n2026-11-22T04:00:00Z edge forged"}', "one\\n2026-11-22T04:00:00Z edge forged"),
        (b'{"msg": "x", "application": "other", "at": "1999"}', "x"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"msg": ', '{"msg": '),
        (b"[" * 5000, "[" * 5000),
    ),
)
def test_what_would_steer_a_terminal_or_begin_a_line_is_shown_as_it_is_written(
    line: bytes, shown: str
) -> None:
    found = parse(line)
    assert found.message == shown
    assert (found.at, found.application) == (AT, "reader")


@pytest.mark.rule("LOG-2")
def test_a_line_of_a_megabyte_is_cut_and_says_by_how_much() -> None:
    splitter, line = LineSplitter(), b"x" * 1_000_000
    ended = [
        one for begin in range(0, len(line), 65_536) for one in splitter.feed(line[begin : begin + 65_536])
    ]
    ended += splitter.feed(b"\nnext\n")
    (first, cut), (second, none) = ended
    assert (len(first), cut, second, none) == (MAX_LINE_BYTES, 1_000_000 - MAX_LINE_BYTES, b"next", 0)
    found = parse_line(first, AT, application="reader", cut=cut)
    assert (len(found.message), found.cut) == (MAX_MESSAGE, 1_000_000 - MAX_MESSAGE)
    assert f"[{found.cut} more bytes]" in printed(found)


@pytest.mark.parametrize(
    ("line", "level"),
    (
        (b'{"level": "WARN", "msg": "x"}', "warning"),
        (b'{"severity": "fatal", "message": "x"}', "critical"),
        (b"2026-11-22 04:00:00 ERROR boo", "error"),
        (b"timestamp=x level=info event=agent.started", "info"),
        (b"Traceback (most recent call last):", "error"),
        (b"no level here, and no terror either", ""),
    ),
)
def test_levels_are_recognised(line: bytes, level: str) -> None:
    assert parse(line).level == level


def test_a_line_counts_where_everything_matches() -> None:
    search = Re2Patterns().compile("gate=[0-9]+")
    asked = LogQuestion(application="reader", component="main", level="warning", since=AT)
    assert match_record(record("late", level="error", gate="7"), asked, search)
    assert not match_record(record("late", level="error", gate="x"), asked, search)
    assert not match_record(record("late", gate="7"), asked, search)
    assert not match_record(record("late", level="error", gate="7", after_s=-1.0), asked, search)
    other = msgspec.structs.replace(asked, component="other")
    assert not match_record(record("late", level="error", gate="7"), other, search)


@pytest.mark.rule("LOG-4")
@pytest.mark.parametrize("pattern", ("(a*)*$b", "(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*a){25}x"))
def test_expressions_that_other_engines_take_years_for_are_searched_at_once(pattern: str) -> None:
    search = Re2Patterns().compile(pattern)
    assert search("a" * 50_000 + "!") is False


@pytest.mark.rule("LOG-4")
@pytest.mark.parametrize("pattern", ("(a", "(?=a)b", "(a)\\1", "((a{1,1000}){1,1000}){1,1000}"))
def test_what_is_no_expression_or_a_huge_one_is_refused(pattern: str) -> None:
    with pytest.raises(Rejected) as refused:
        Re2Patterns().compile(pattern)
    assert refused.value.code == "pattern.malformed"


@given(st.lists(st.lists(st.floats(0, 1000), min_size=1, max_size=20), max_size=8), st.integers(1, 40))
def test_the_newest_lines_are_found_whichever_source_they_are_of(
    times: list[list[float]], limit: int
) -> None:
    chunks = sorted(
        ([record("x", after_s=at) for at in sorted(some)] for some in times), key=lambda one: one[-1].at
    )
    asked = LogQuestion(application="reader", limit=limit)
    found = find_newest(reversed(chunks), asked, None)
    everything = sorted(one.at for chunk in chunks for one in chunk)
    assert [one.at for one in found.records] == everything[-limit:]
    assert found.more == (len(everything) > limit)


@pytest.mark.rule("LOG-3")
def test_an_answer_has_no_more_lines_and_bytes_than_it_may_and_says_so() -> None:
    many = [record("y" * 8000, after_s=number) for number in range(1000)]
    found = find_newest([many], LogQuestion(application="reader", limit=5000), None)
    assert 0 < len(found.records) < 1000
    assert found.more
    assert found.records[-1] == many[-1]
    assert sum(len(one.message) for one in found.records) < MAX_ANSWER_RAW_BYTES
    parts = pack_records(found.records)
    assert len(parts) > 1
    assert [one for part in parts for one in unpack_records(part)] == list(found.records)
    spent = find_newest([many, many], LogQuestion(application="reader"), None, enough=lambda: True)
    assert (spent.records, spent.more) == ((), True)


@pytest.mark.rule("LOG-3")
@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"nothing",
        zlib.compress(b"nothing"),
        zlib.compress(bytes(MAX_RAW_BYTES + 1)),
        pack_records([record("x")])[0][:-3],
        zlib.compress(msgspec.msgpack.encode([{"at": 1, "evil": 2}])),
    ),
)
def test_a_part_that_is_not_what_it_says_it_is_is_refused(content: bytes) -> None:
    for unpack in (unpack_records, unpack_crash):
        with pytest.raises(Rejected):
            unpack(content)


@pytest.mark.rule("LOG-3")
def test_the_like_of_an_error_is_told_once_an_hour_with_how_often_it_was() -> None:
    room, like = CrashRoom(), ("error", shape_of("timeout after 5001 ms at 0x7f3a"))
    assert shape_of("timeout after 17 ms at 0x1b") == like[1]
    told = [room.admit(like, AT + timedelta(minutes=number), is_error=True) for number in range(61)]
    assert [one.times for one in told if one] == [1, 60]


@pytest.mark.rule("LOG-3")
def test_however_many_kinds_of_errors_there_are_few_are_told_and_crashes_still_find_room() -> None:
    room = CrashRoom()
    errors = [room.admit(("error", str(number)), AT, is_error=True) for number in range(500)]
    assert sum(one is not None for one in errors) == MOST_ERRORS_PER_HOUR
    crashes = [room.admit(("ended", str(number)), AT, is_error=False) for number in range(50)]
    assert sum(one is not None for one in crashes) == MOST_PER_HOUR - MOST_ERRORS_PER_HOUR
    assert crashes[0] is not None
    assert crashes[0].silenced == 500 - MOST_ERRORS_PER_HOUR
    later = room.admit(("ended", "again"), AT + timedelta(hours=1, seconds=1), is_error=False)
    assert later is not None


@pytest.mark.rule("LOG-3")
def test_a_tail_is_bounded_and_travels_whole() -> None:
    tail = tail_of([record("z" * 5000, after_s=number) for number in range(100)])
    assert len(tail) <= MAX_TAIL
    assert tail[-1].cut == 4000
    crash = CrashRecord(id="0" * 16, at=AT, kind="ended", application="reader", component="main", tail=tail)
    assert unpack_crash(pack_crash(crash)) == crash
