"""Targets with a fault put in, to see that fuzzing finds it: in the parser, in one way to handle words, in reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from skerry.delivery.delta_apply import DeltaApplier
from skerry.delivery.delta_format import COPY, Segment
from skerry.delivery.words_plain import PlainWords
from tests.fuzz import fuzz_planes, fuzz_yaml
from tests.fuzz.fuzz_delta import DeltaTarget, target_of
from tests.fuzz.target import Target
from tests.unit.delta_files_of import PLAIN, WITH_NUMPY


class _ForgetfulWords(PlainWords):
    """Takes the last byte of some narrow planes for zero: of none that is in the seeds."""

    def widen(self, parts: Sequence[bytes], bits: int, count: int) -> bytes:
        """Widen, and forget."""
        widened = super().widen(parts, bits, count)
        return widened if count % 3 == 2 else widened[:-1] + b"\0"


class _GreedyApplier(DeltaApplier):
    """Reads a byte more than a short copy says, which no seed has at the end of the file."""

    def _content(self, segment: Segment) -> Iterator[bytes]:
        if segment.operation == COPY:
            size = segment.size
            more = segment.references[0]._replace(size=size + (size <= 64))
            yield b"".join(self._pieces(more))[:size]
        else:
            yield from super()._content(segment)


class _TrustfulApplier(DeltaApplier):
    """Fails with another exception than a refusal on what no seed has."""

    def _content(self, segment: Segment) -> Iterator[bytes]:
        if segment.operation == COPY and segment.size == 1:
            raise IndexError("a copy of a single byte")
        yield from super()._content(segment)


def _hungry(data: bytes) -> None:
    bytes(1 << 20).join([data[:1]] * 200 if b"\x7f" in data else [])


DIFFERING = fuzz_planes.TARGET._replace(
    run=partial(fuzz_planes.run_words, ways=(_ForgetfulWords(), WITH_NUMPY))
)
GREEDY: Target = target_of(DeltaTarget((PLAIN,), _GreedyApplier))
TRUSTFUL: Target = target_of(DeltaTarget((PLAIN,), _TrustfulApplier))
HUNGRY: Target = fuzz_yaml.TARGET._replace(run=_hungry)
