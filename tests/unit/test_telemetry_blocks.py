"""Windows and blocks: they become longer, travel as few bytes, and lose no count on the way."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.kit.errors import Rejected
from skerry.telemetry.blocks import (
    Block,
    coarsen_block,
    decode_block,
    encode_block,
    join_blocks,
    rounded,
)
from skerry.telemetry.naming import SeriesRoom, clean_series, clean_value, is_clean
from skerry.telemetry.sketch import sketch_of
from skerry.telemetry.windows import (
    Counter,
    CounterReader,
    Distribution,
    Gauge,
    Kind,
    SeriesKey,
    WindowValue,
    gauge_of,
    merge_all,
    merge_two,
)

BEGIN = 1_777_852_800 - 1_777_852_800 % 3600
NUMBERS = st.floats(-1e9, -1e-9) | st.just(0.0) | st.floats(1e-9, 1e9)
WILD = st.floats(-1e300, 1e300)
LABELS = st.dictionaries(st.text(max_size=200), st.text(max_size=200), max_size=20)


@st.composite
def gauges(draw: st.DrawFn) -> Gauge:
    samples = sorted(draw(st.lists(NUMBERS, min_size=4, max_size=4)))
    return Gauge(draw(st.integers(1, 9999)), samples[0], samples[3], samples[1], samples[2])


COUNTERS = st.builds(Counter, st.integers(1, 9999), st.floats(1e-9, 1e9) | st.integers(0, 1 << 50))
DISTRIBUTIONS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20).map(
    lambda samples: Distribution(sketch_of(samples))
)
VALUES: dict[Kind, st.SearchStrategy[WindowValue]] = {
    "gauge": gauges(),
    "counter": COUNTERS,
    "distribution": DISTRIBUTIONS,
}


@st.composite
def blocks(draw: st.DrawFn, resolution_s: int = 60) -> Block:
    series: dict[SeriesKey, dict[int, WindowValue]] = {}
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(list(VALUES)))
        key = clean_series(draw(st.text(max_size=150)), draw(LABELS).items(), kind)
        places = draw(st.sets(st.integers(0, 200), min_size=1, max_size=12))
        series[key] = {BEGIN + place * resolution_s: draw(VALUES[kind]) for place in places}
    return Block(resolution_s, series)


@settings(max_examples=60)
@given(blocks())
def test_a_block_comes_back_from_its_bytes_as_it_is_rounded_and_then_for_good(block: Block) -> None:
    once = decode_block(encode_block(block))
    assert {key: set(windows) for key, windows in once.series.items()} == {
        key: set(windows) for key, windows in block.series.items()
    }
    for key, windows in block.series.items():
        for begin, value in windows.items():
            assert once.series[key][begin] == rounded(value)
    assert decode_block(encode_block(once)) == once


@given(st.lists(WILD, min_size=1, max_size=8))
def test_numbers_of_any_size_can_be_kept_side_by_side(samples: list[float]) -> None:
    key = clean_series("wild", (), "gauge")
    block = Block(60, {key: {BEGIN + 60 * place: gauge_of(one) for place, one in enumerate(samples)}})
    kept = decode_block(encode_block(block))
    largest = max(map(abs, samples))
    for begin, value in block.series[key].items():
        told = kept.series[key][begin]
        assert isinstance(value, Gauge)
        assert isinstance(told, Gauge)
        assert abs(told.last - value.last) <= max(6e-5 * abs(value.last), 1e-20 * largest)


@settings(max_examples=60)
@given(blocks(), st.sampled_from([600, 3600]))
def test_coarser_windows_have_as_many_samples(block: Block, resolution_s: int) -> None:
    coarse = coarsen_block(block, resolution_s)
    assert coarse.samples == block.samples
    assert all(begin % resolution_s == 0 for windows in coarse.series.values() for begin in windows)
    assert coarse.begin <= block.begin
    assert coarse.end >= block.end


@settings(max_examples=40)
@given(blocks(), blocks())
def test_joined_blocks_have_the_samples_of_both(one: Block, other: Block) -> None:
    assert join_blocks([one, other]).samples == one.samples + other.samples


def test_joining_goes_to_the_length_of_the_coarsest() -> None:
    key = clean_series("a", (), "counter")
    fine = Block(60, {key: {BEGIN: Counter(1, 1.0), BEGIN + 60: Counter(1, 2.0)}})
    coarse = Block(3600, {key: {BEGIN: Counter(7, 10.0)}})
    assert join_blocks([fine, coarse]) == Block(3600, {key: {BEGIN: Counter(9, 13.0)}})
    with pytest.raises(Rejected, match="no blocks"):
        join_blocks([])


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.integers(1, 19))
def test_gauges_keep_least_largest_last_and_count_however_they_are_grouped(
    samples: list[float], cut: int
) -> None:
    parts = [gauge_of(sample) for sample in samples]
    left, right = merge_all(parts[:cut]), merge_all(parts[cut:])
    whole = merge_all([part for part in (left, right) if part is not None])
    assert isinstance(whole, Gauge)
    assert (whole.count, whole.low, whole.high, whole.last) == (
        len(samples), min(samples), max(samples), samples[-1],
    )  # fmt: skip
    assert whole.low <= whole.mean <= whole.high


def test_a_series_that_changed_its_kind_begins_anew() -> None:
    assert merge_two(gauge_of(1.0), Counter(1, 5.0)) == Counter(1, 5.0)
    assert merge_all([]) is None


def test_twenty_series_of_an_hour_at_one_minute_take_a_few_bytes_for_each_window() -> None:
    chance = random.Random(7)
    series: dict[SeriesKey, dict[int, WindowValue]] = {}
    for number in range(20):
        key = clean_series(f"skerry_host_value_{number}", [("device", "sda")], "gauge")
        level, windows = 50.0, dict[int, WindowValue]()
        for minute in range(60):
            samples = [level := level + chance.gauss(0, 0.5) for _ in range(6)]
            merged = merge_all([gauge_of(sample) for sample in samples])
            assert merged is not None
            windows[BEGIN + 60 * minute] = merged
        series[key] = windows
    assert len(encode_block(Block(60, series))) / 1200 < 9


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"\x02abc",
        b"\x01abc",
        b"\x01" + zlib.compress(b"\x3d\x00"),
        encode_block(Block(60, {}))[:-3],
        encode_block(Block(60, {})) + b"x",
    ),
)
def test_bytes_that_are_no_block_are_refused(content: bytes) -> None:
    with pytest.raises(Rejected, match="not a block"):
        decode_block(content)


@settings(max_examples=60)
@given(blocks(), st.data())
def test_a_damaged_block_is_refused_or_is_another_block_and_never_anything_else(
    block: Block, data: st.DataObject
) -> None:
    content = bytearray(encode_block(block))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        decode_block(bytes(content))
    except Rejected as error:
        assert error.code == "telemetry.unreadable"  # noqa: PT017


def test_a_block_that_would_become_gigabytes_is_refused_before_it_does() -> None:
    press = zlib.compressobj(9)
    bomb = press.compress(bytes(64 << 20)) + press.flush()
    with pytest.raises(Rejected, match="cut off, or too large"):
        decode_block(b"\x01" + bomb)


@given(st.text(), LABELS)
def test_whatever_an_application_calls_a_series_becomes_a_bounded_name(
    name: str, labels: dict[str, str]
) -> None:
    assert is_clean(clean_series(name, labels.items(), "gauge"))


def test_labels_can_neither_move_a_cursor_nor_end_a_line() -> None:
    assert clean_value("a\x1b[31mb\nc\u202ed") == "a\ufffd[31mb\ufffdc\ufffdd"
    assert len(clean_value("x" * (1 << 20))) == 128


@pytest.mark.rule("TELEMETRY-6")
def test_a_bomb_of_a_hundred_thousand_series_is_bounded_and_named() -> None:
    room = SeriesRoom(500)
    admitted = sum(
        room.admits(clean_series("requests", [("user", str(number))], "counter")) for number in range(100_000)
    )
    assert (admitted, room.refused, room.worst) == (500, 99_500, "requests")
    assert room.admits(clean_series("requests", [("user", "3")], "counter"))
    room.forget([clean_series("requests", [("user", "3")], "counter")])
    assert room.admits(clean_series("other", (), "gauge"))


def test_a_counter_counts_from_the_look_before_and_from_nothing_where_it_fell() -> None:
    a, b = clean_series("a", (), "counter"), clean_series("b", (), "counter")
    reader = CounterReader()
    assert reader.added({a: 100.0}) == {a: 0.0}
    assert reader.added({a: 105.0, b: 3.0}) == {a: 5.0, b: 3.0}
    assert reader.added({a: 2.0, b: float("nan")}) == {a: 2.0}
