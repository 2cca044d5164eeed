"""Blocks: the windows of many series over a stretch of time, as few bytes; what a host keeps and sends.

Format (docs/internals/telemetry.md has it in full): a version, then zlib (RFC 1950) with a fixed dictionary of the
common names. Inside, for each series: its kind, name and labels; where its windows begin, as steps; and column by
column the differences from window to window as variable-length numbers. Values of gauges have five significant digits
(a relative error of 5e-5 at most); increases of counters are exact where they are whole, and else have nine digits.
A value that is 10^25 times smaller than another of its series in the block may become 0.

Rules: counts are exact. Decoding is bounded in bytes, series and windows, whoever made the block. A block that is
decoded and encoded again is the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from skerry.kit.errors import Rejected
from skerry.telemetry.naming import MAX_LABELS, MAX_NAME, MAX_VALUE, is_clean
from skerry.telemetry.numbers import Reader, Unreadable, put_signed, put_text, put_unsigned
from skerry.telemetry.sketch import put_sketch, read_sketch
from skerry.telemetry.windows import (
    MAX_COUNT,
    RESOLUTIONS_S,
    Counter,
    Distribution,
    Gauge,
    Kind,
    SeriesKey,
    Windows,
    WindowValue,
    coarsen_windows,
    merge_windows,
)

VERSION = 1
MAX_RAW_BYTES = 8 << 20
MAX_SERIES = 5000
MAX_WINDOWS = 200_000
MAX_EXPONENT = 330
LAST_S = 1 << 34
GAUGE_DIGITS, COUNTER_DIGITS = 5, 9
WHOLE = float(1 << 53)
MAX_SPAN = 25
LARGEST = 1e300

_kinds: tuple[Kind, ...] = ("gauge", "counter", "distribution")
# A part of the format: changed only together with VERSION.
_dictionary = b"".join(
    (
        b"skerry_host_disk_read_bytesskerry_host_disk_written_bytesdeviceinterfaceeth0sda",
        b"skerry_host_network_received_bytesskerry_host_network_sent_bytesskerry_host_temperature_celsiussensor",
        b"skerry_host_load1skerry_host_clock_offset_secondsskerry_host_memory_available_bytes",
        b"skerry_host_memory_used_bytesskerry_host_disk_free_bytesskerry_host_cpu_secondsskerry_host_cpu_busy",
        b"skerry_component_restartsskerry_component_memory_bytesskerry_component_cpu_seconds",
        b"http_requests_totalhttp_request_duration_secondsprocess_cpu_seconds_total",
        b"applicationcomponentmainreleasevariantstatus200methodGET",
    )
)


class Block(msgspec.Struct, frozen=True):
    """Windows of one length, by series."""

    resolution_s: int
    series: Mapping[SeriesKey, Windows]

    @property
    def samples(self) -> int:
        """How many samples all windows are made of."""
        return sum(value.count for windows in self.series.values() for value in windows.values())

    @property
    def windows(self) -> int:
        """How many windows."""
        return sum(map(len, self.series.values()))

    @property
    def weight(self) -> int:
        """About how many bytes it has before it is compressed, and no fewer than 40 for each window."""
        return sum(_weight(value) for windows in self.series.values() for value in windows.values())

    @property
    def begin(self) -> int:
        """Where the first window begins."""
        return min(begin for windows in self.series.values() for begin in windows)

    @property
    def end(self) -> int:
        """Where the last window ends."""
        return max(begin for windows in self.series.values() for begin in windows) + self.resolution_s


def split_block(block: Block, most: int) -> list[Block]:
    """Return blocks of `most` series each that have all of it."""
    keys = sorted(block.series)
    parts = (keys[first : first + most] for first in range(0, len(keys), most))
    return [Block(block.resolution_s, {key: block.series[key] for key in part}) for part in parts]


def join_blocks(blocks: Iterable[Block]) -> Block:
    """Return one block of all, at the length of the coarsest; a later one counts as told later.

    Raises:
        Rejected: there is none (`telemetry.empty`).
    """
    parts = list(blocks)
    if not parts:
        raise Rejected("telemetry.empty", "there are no blocks to join")
    resolution_s = max(part.resolution_s for part in parts)
    series: dict[SeriesKey, Windows] = {}
    for part in parts:
        for key, windows in coarsen_block(part, resolution_s).series.items():
            series[key] = merge_windows(series.get(key, {}), windows)
    return Block(resolution_s, series)


def coarsen_block(block: Block, resolution_s: int) -> Block:
    """Return the block with windows of that length; no sample is lost by it."""
    if block.resolution_s >= resolution_s:
        return block
    return Block(
        resolution_s, {key: coarsen_windows(windows, resolution_s) for key, windows in block.series.items()}
    )


def encode_block(block: Block) -> bytes:
    """Return the bytes of a block."""
    out = bytearray()
    put_unsigned(out, block.resolution_s)
    put_unsigned(out, len(block.series))
    for key in sorted(block.series):
        windows = block.series[key]
        put_unsigned(out, _kinds.index(key.kind))
        put_text(out, key.name)
        put_unsigned(out, len(key.labels))
        for name, value in key.labels:
            put_text(out, name)
            put_text(out, value)
        put_windows(out, windows, block.resolution_s)
    press = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, _dictionary)
    return bytes((VERSION,)) + press.compress(bytes(out)) + press.flush()


def decode_block(content: bytes) -> Block:
    """Return the block of some bytes.

    Raises:
        Rejected: they are none, or a block that is larger than blocks are (`telemetry.unreadable`).
    """
    try:
        reader = Reader(_unpress(content))
        block = _read_block(reader)
        if not reader.at_end:
            raise Unreadable("there is more than a block")
    except Unreadable as error:
        raise Rejected("telemetry.unreadable", f"not a block of windows: {error}") from error
    return block


def put_windows(out: bytearray, windows: Windows, resolution_s: int) -> None:
    """Append the windows of one series: how many, where they begin, and their columns."""
    begins = sorted(windows)
    values = [windows[begin] for begin in begins]
    put_unsigned(out, len(begins))
    before = 0
    for begin in begins:
        put_unsigned(out, begin // resolution_s - before)
        before = begin // resolution_s
    if values and isinstance(values[0], Gauge):
        _put_gauges(out, [value for value in values if isinstance(value, Gauge)])
    elif values and isinstance(values[0], Counter):
        _put_counters(out, [value for value in values if isinstance(value, Counter)])
    else:
        for value in values:
            if isinstance(value, Distribution):
                put_sketch(out, value.sketch)


def read_windows(reader: Reader, kind: Kind, resolution_s: int) -> dict[int, WindowValue]:
    """Return the windows of one series.

    Raises:
        Unreadable: these are none.
    """
    count = reader.unsigned()
    if count > MAX_WINDOWS:
        raise Unreadable("too many windows")
    begins: list[int] = []
    at = 0
    for place in range(count):
        step = reader.unsigned()
        at += step
        if (place and not step) or at * resolution_s > LAST_S:
            raise Unreadable("windows out of order, or beyond all time")
        begins.append(at * resolution_s)
    values: list[WindowValue]
    if kind == "gauge":
        values = _read_gauges(reader, count)
    elif kind == "counter":
        values = _read_counters(reader, count)
    else:
        values = [Distribution(read_sketch(reader)) for _ in range(count)]
    return dict(zip(begins, values, strict=True))


def rounded(value: WindowValue) -> WindowValue:
    """Return the value as a block tells it."""
    if isinstance(value, Gauge):
        digits = [
            _number(*_parted(part, GAUGE_DIGITS)) for part in (value.low, value.high, value.mean, value.last)
        ]
        return Gauge(value.count, *digits)
    if isinstance(value, Counter):
        return Counter(value.count, _number(*_increase(value.increase)))
    return value


def _weight(value: WindowValue) -> int:
    if not isinstance(value, Distribution):
        return 40
    return 40 + 3 * (len(value.sketch.positive.counts) + len(value.sketch.negative.counts))


def _unpress(content: bytes) -> bytes:
    if not content or content[0] != VERSION:
        raise Unreadable("it is of another version")
    press = zlib.decompressobj(15, _dictionary)
    try:
        raw = press.decompress(content[1:], MAX_RAW_BYTES)
    except zlib.error as error:
        raise Unreadable(str(error)) from error
    if not press.eof or press.unused_data:
        raise Unreadable("it is cut off, or too large")
    return raw


def _read_block(reader: Reader) -> Block:
    resolution_s, count = reader.unsigned(), reader.unsigned()
    if resolution_s not in RESOLUTIONS_S or count > MAX_SERIES:
        raise Unreadable("no length of a window, or too many series")
    series: dict[SeriesKey, Windows] = {}
    total = 0
    for _ in range(count):
        key = _read_key(reader)
        windows = read_windows(reader, key.kind, resolution_s)
        total += len(windows)
        if key in series or total > MAX_WINDOWS:
            raise Unreadable("a series twice, or too many windows")
        if windows:
            series[key] = windows
    return Block(resolution_s, series)


def _read_key(reader: Reader) -> SeriesKey:
    kind = reader.unsigned()
    if kind >= len(_kinds):
        raise Unreadable("no such kind of series")
    name = reader.text(most=MAX_NAME)
    count = reader.unsigned()
    if count > MAX_LABELS:
        raise Unreadable("too many labels")
    labels = tuple((reader.text(most=MAX_NAME), reader.text(most=4 * MAX_VALUE)) for _ in range(count))
    key = SeriesKey(name, labels, _kinds[kind])
    if not is_clean(key):
        raise Unreadable("a name or label that is none")
    return key


def _put_column(out: bytearray, numbers: Iterable[int]) -> None:
    before = 0
    for number in numbers:
        put_signed(out, number - before)
        before = number


def _read_column(reader: Reader, count: int) -> list[int]:
    found: list[int] = []
    at = 0
    for _ in range(count):
        at += reader.signed()
        found.append(at)
    return found


def _put_gauges(out: bytearray, gauges: list[Gauge]) -> None:
    columns = _Decimals(GAUGE_DIGITS)
    lasts = columns.part(gauge.last for gauge in gauges)
    lows = columns.part(gauge.low for gauge in gauges)
    highs = columns.part(gauge.high for gauge in gauges)
    means = columns.part(gauge.mean for gauge in gauges)
    put_signed(out, columns.exponent)
    last = columns.whole(lasts)
    _put_column(out, last)
    # Near the last of the window: most are small, and 0 where nothing moved.
    for column in (lows, highs, means):
        for number, near in zip(columns.whole(column), last, strict=True):
            put_signed(out, number - near)
    _put_column(out, (gauge.count for gauge in gauges))


def _read_gauges(reader: Reader, count: int) -> list[WindowValue]:
    number = _numbers(_read_exponent(reader))
    last = _read_column(reader, count)
    lows, highs, means = ([near + reader.signed() for near in last] for _ in range(3))
    counts = _read_counts(reader, count)
    return [
        Gauge(each, number(low), number(high), number(mean), number(near))
        for each, low, high, mean, near in zip(counts, lows, highs, means, last, strict=True)
    ]


def _put_counters(out: bytearray, counters: list[Counter]) -> None:
    columns = _Decimals(COUNTER_DIGITS)
    increases = columns.take(_increase(counter.increase) for counter in counters)
    put_signed(out, columns.exponent)
    _put_column(out, columns.whole(increases))
    _put_column(out, (counter.count for counter in counters))


def _read_counters(reader: Reader, count: int) -> list[WindowValue]:
    number = _numbers(_read_exponent(reader))
    increases = _read_column(reader, count)
    counts = _read_counts(reader, count)
    if any(increase < 0 for increase in increases):
        raise Unreadable("a counter that falls")
    return [Counter(each, number(increase)) for each, increase in zip(counts, increases, strict=True)]


def _read_counts(reader: Reader, count: int) -> list[int]:
    counts = _read_column(reader, count)
    if any(not 1 <= each <= MAX_COUNT for each in counts):
        raise Unreadable("a window of no samples")
    return counts


def _read_exponent(reader: Reader) -> int:
    exponent = reader.signed()
    if abs(exponent) > MAX_EXPONENT:
        raise Unreadable("an exponent out of range")
    return exponent


class _Decimals:
    """Numbers of some digits over one power of ten: the least of theirs that is not beyond all others."""

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._powers: set[int] = set()

    @property
    def exponent(self) -> int:
        return max(min(self._powers), max(self._powers) - MAX_SPAN) if self._powers else 0

    def take(self, parted: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        found = list(parted)
        self._powers.update(exponent for number, exponent in found if number)
        return found

    def part(self, values: Iterable[float]) -> list[tuple[int, int]]:
        return self.take(_parted(value, self._digits) for value in values)

    def whole(self, parted: Iterable[tuple[int, int]]) -> list[int]:
        least = self.exponent
        return [
            number * 10 ** (exponent - least) if number and exponent >= least else 0
            for number, exponent in parted
        ]


def _increase(increase: float) -> tuple[int, int]:
    """Return an increase as number and power of ten: exact where it is whole."""
    return (
        (int(increase), 0)
        if increase < WHOLE and increase == int(increase)
        else _parted(increase, COUNTER_DIGITS)
    )


def _parted(value: float, digits: int) -> tuple[int, int]:
    """Return a value to some significant digits as number and power of ten, without zeros at the number's end."""
    if value == 0.0 or not math.isfinite(value):
        return 0, 0
    value = min(max(value, -LARGEST), LARGEST)
    number, _, power = f"{value:.{digits - 1}e}".partition("e")
    whole = number.replace(".", "").rstrip("0")
    return int(whole), int(power) - (len(whole.lstrip("-")) - 1)


def _number(number: int, exponent: int) -> float:
    return _numbers(exponent)(number)


def _numbers(exponent: int) -> Callable[[int], float]:
    """Return what makes numbers of a power of ten: each the float that is nearest to the decimal."""
    if exponent >= 0:
        factor = 10**exponent
        return lambda number: _float(number * factor)
    divisor = 10**-exponent
    # Of two ints the quotient is rounded correctly, however long they are.
    return lambda number: _float_of(number, divisor)


def _float_of(number: int, divisor: int) -> float:
    try:
        return number / divisor
    except OverflowError:
        raise Unreadable("a number that is too large") from None


def _float(number: int) -> float:
    return _float_of(number, 1)
