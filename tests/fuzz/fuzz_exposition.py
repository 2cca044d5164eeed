"""What an application tells as its metrics, of any bytes: sound values, or a refusal."""

from __future__ import annotations

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.application import Collected, MeanMetric, MetricsEndpoint, RateMetric
from skerry.spec.metrics import Value
from skerry.telemetry.collecting import Look, measure, merge_values, take_look, wanted_names
from skerry.telemetry.exposition import parse_exposition
from tests.fuzz.target import Broken, Target

_ENDPOINT = MetricsEndpoint(
    port="http",
    collect=(
        Collected(name="errors", rate=RateMetric(bad='a_total{s=~"5.."}', total="a_total")),
        Collected(name="latency", histogram="b"),
        Collected(name="queue", mean=MeanMetric(gauge="c", low=-1, high=1)),
        Collected(name="size", mean=MeanMetric(summary="d", low=0, high=10)),
    ),
)
_PAGE = b"""\
# HELP a_total Requests.
# TYPE a_total counter
a_total{s="200",p="x\\"\\\\\\n"} 90
a_total{s="503"} 7 1700000000000
b_bucket{le="0.1"} 80
b_bucket{le="0.5"} 95 # {trace="x"} 1 1.0
b_bucket{le="+Inf"} 100
c 0.5
d_sum 50
d_count 10
# EOF
"""


def run(data: bytes) -> None:
    """Measure between two pages, which a NUL byte parts."""
    one, _, other = data.partition(b"\0")
    names = wanted_names(_ENDPOINT)
    try:
        before, after = (take_look(_ENDPOINT, parse_exposition(page, names)) for page in (one, other))
    except Rejected:
        return
    for start in (before, Look({})):
        for value in measure(_ENDPOINT, start, after).values():
            # A value that does not come back as it went is one that the hub would not take.
            twice = merge_values(value, value)
            for made in (value, twice):
                back: Value = msgspec.json.decode(msgspec.json.encode(made), type=Value)
                if back != made:
                    raise Broken("a value is another on its way back")


def seeds() -> list[bytes]:
    """Return pages as they are, and what is odd about numbers and labels."""
    odd = [
        b'b_bucket{le="1e999"} 5\n', b'b_bucket{le="-1"} 3\n', b'b_bucket{le="5e-324"} 3\n', b"a_total 1e300\n",
        b"c NaN\nc -Inf\n", b'c{a="b",} 1\n', b'c{a="}"} 1\n', b"d_sum -1e308\nd_count 1e308\n", b"",
    ]  # fmt: skip
    return [_PAGE, _PAGE + b"\0" + _PAGE.replace(b"90", b"99"), *(b"\0" + one for one in odd), *odd]


TARGET = Target(
    run,
    seeds,
    tokens=(
        b"a_total", b"b_bucket", b"c", b"d_sum", b"d_count", b'{le="', b'"} ', b"+Inf", b"NaN", b"\0", b"\n",
        b"1e", b"# EOF",
    ),
    max_bytes=4096,
)  # fmt: skip
