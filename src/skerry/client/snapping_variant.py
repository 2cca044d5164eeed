"""Snaps one variant of a model: lays its files out, has them evaluated, and takes the most bits that pass.

Rules:
- The exact files must pass their own evaluation first.
- What is kept is, to the bit, what was evaluated: its digest is taken as it is laid out. The publisher's own files
  are copied for that and never written.
- On disk there is one copy of the variant at a time, where temporary files go (`TMPDIR`), and the old and the snapped
  files in the cache.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from skerry.client.client import Client
from skerry.client.images.cache import BlobCache
from skerry.client.snapping_evaluation import (
    EvaluationResult,
    Evaluator,
    GoldenOutputs,
    judge_exact,
    judge_snapped,
)
from skerry.client.snapping_report import Attempt, FileSnap, MetricChange, VariantSnap
from skerry.client.source_files import SourceFile, changed, identity_of, open_source
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.snapping import Snapper, SnapReport
from skerry.delivery.words import choose_words
from skerry.kit.digests import Digest
from skerry.kit.errors import Rejected
from skerry.spec.model import Evaluation, FileSpec, Model, Variant

_READ_BYTES = 1 << 20
# To compare deltas, ten times as fast as what the hub makes is near enough: it is larger by some per cent.
_QUICK_LEVEL = 3
_MAX_EXPECTED_BYTES = 16 << 20


class Candidate(NamedTuple):
    """A file that may be snapped: its path, and its partner's digest and size."""

    path: str
    digest: str
    size_bytes: int


class Workshop(NamedTuple):
    """What all variants of a push share."""

    client: Client
    cache: BlobCache
    sources: Mapping[str, SourceFile]
    on_step: Callable[[str], None]

    def fetch(self, digest: str, size_bytes: int) -> SourceFile:
        """Return a blob of the hub, from the cache if it is there.

        Raises:
            Missing, Unavailable: the hub does not give it.
            Rejected: what the hub gives is another one.
        """
        if held := self.sources.get(digest) or self.cache.find(digest):
            return held
        self.on_step(f"downloading {digest[:19]} to snap to")
        return self.cache.keep(self.client.download(digest), digest=digest, limit_bytes=size_bytes)


class SnappedVariant(NamedTuple):
    """What came out: the report and, where the variant was snapped, its files by path with how each was."""

    report: VariantSnap
    sources: Mapping[str, SourceFile]
    largest_error: float


class _Laid(NamedTuple):
    """Files in a folder that were snapped, by path: their digests, and how it was done."""

    folder: Path
    digests: dict[str, Digest]
    reports: dict[str, SnapReport]


class VariantSnapping:
    """One variant's snapping under way."""

    def __init__(self, shop: Workshop, evaluator: Evaluator, model: Model, variant: Variant) -> None:
        assert model.spec.evaluation is not None
        self._shop = shop
        self._evaluator = evaluator
        self._evaluation: Evaluation = model.spec.evaluation
        self._model = model
        self._variant = variant
        self._known_as = f"{model.metadata.name}/{variant.name}"
        self._old: dict[str, SourceFile] = {}
        self._exact_deltas: dict[str, int] = {}

    def run(self, found: Sequence[Candidate], ladder: Sequence[int]) -> SnappedVariant:
        """Snap to what was found, by the first number of bits of the ladder that passes.

        Raises:
            Rejected: the exact files do not pass, or the evaluation cannot be run on them (`snap.exact_fails`).
        """
        self._old = {c.path: self._shop.fetch(c.digest, c.size_bytes) for c in found}
        if not any(self._can_be_snapped(path) for path in self._old):
            return self._exact("it has no tensor of floats in common with the other release", ())
        golden = self._golden()
        exact = self._evaluate_exact(golden)
        attempts: list[Attempt] = []
        for bits in ladder:
            self._shop.on_step(f"evaluating {self._known_as} snapped by {bits} bits")
            with tempfile.TemporaryDirectory(prefix="skerry-snap-") as folder:
                laid = self._lay_out(Path(folder), bits)
                try:
                    snapped = self._evaluator.run(self._variant.name, laid.folder)
                    failure = judge_snapped(self._evaluation, exact, snapped, golden)
                except Rejected as error:
                    snapped, failure = EvaluationResult(), error.message
                attempts.append(Attempt(bits, failure))
                if not failure:
                    return self._accepted(laid, attempts, exact, snapped)
        return self._exact(f"no number of bits passes: {attempts[-1].failure}", attempts)

    def _evaluate_exact(self, golden: GoldenOutputs | None) -> EvaluationResult:
        self._shop.on_step(f"evaluating {self._known_as} as it is")
        with tempfile.TemporaryDirectory(prefix="skerry-snap-") as folder:
            laid = self._lay_out(Path(folder), 0)
            exact = self._evaluator.run(self._variant.name, laid.folder)
        if failure := judge_exact(self._evaluation, exact, golden):
            message = f"{self._known_as}: the exact files do not pass: {failure}"
            raise Rejected("snap.exact_fails", message, hint="put the evaluation or the golden cases right")
        return exact

    def _accepted(
        self, laid: _Laid, attempts: Sequence[Attempt], exact: EvaluationResult, snapped: EvaluationResult
    ) -> SnappedVariant:
        self._measure_exact()
        deltas = {path: _delta_bytes(self._old[path].path, laid.folder / path) for path in laid.digests}
        bits = attempts[-1].bits
        if sum(deltas.values()) >= sum(self._exact_deltas.values()):
            return self._exact(f"{bits} bits pass, but the delta would not be smaller", attempts)
        sources: dict[str, SourceFile] = {}
        for path, digest in laid.digests.items():
            held = self._shop.cache.find(digest)
            size_bytes = (laid.folder / path).stat().st_size
            content = _pieces(laid.folder / path)
            kept = held or self._shop.cache.keep(content, digest=digest, limit_bytes=size_bytes)
            sources[path] = msgspec.structs.replace(kept, name=f"{path} snapped by {bits} bits")
        files = tuple(
            FileSnap(
                path=path,
                full_bytes=sources[path].size_bytes,
                exact_delta_bytes=self._exact_deltas[path],
                snapped_delta_bytes=deltas[path],
                tensors=len(report.tensors),
                words_changed=report.words_changed,
                largest_error=report.largest_error,
            )
            for path, report in laid.reports.items()
        )
        metrics = tuple(
            MetricChange(name, exact.metrics[name], snapped.metrics[name])
            for name in self._evaluation.metrics
        )
        report = VariantSnap(
            self._model.metadata.name, self._variant.name, bits, "", metrics, tuple(attempts), files
        )
        return SnappedVariant(report, sources, max(r.largest_error for r in laid.reports.values()))

    def _exact(self, why: str, attempts: Sequence[Attempt]) -> SnappedVariant:
        self._measure_exact()
        files = tuple(
            FileSnap(path, self._new(path).size_bytes, delta) for path, delta in self._exact_deltas.items()
        )
        name = self._model.metadata.name
        report = VariantSnap(name, self._variant.name, 0, why, attempts=tuple(attempts), files=files)
        return SnappedVariant(report, {}, 0.0)

    def _measure_exact(self) -> None:
        for path, old in self._old.items():
            if path not in self._exact_deltas:
                self._shop.on_step(f"measuring the delta of {self._known_as}: {path}")
                self._exact_deltas[path] = _delta_bytes(old.path, self._new(path).path)

    def _new(self, path: str) -> SourceFile:
        file = next(file for file in self._variant.files if file.path == path)
        return self._shop.sources[str(file.digest)]

    def _can_be_snapped(self, path: str) -> bool:
        with open_source(self._old[path].path) as base, open_source(self._new(path).path) as target:
            return Snapper(base, target, bits=1).pairs > 0

    def _golden(self) -> GoldenOutputs | None:
        test = self._model.spec.self_test
        if test is None:
            return None
        expected = {case.name: self._content(case.expected) for case in test.cases}
        return GoldenOutputs(expected, self._variant.tolerance or test.tolerance)

    def _content(self, file: FileSpec) -> bytes:
        source = self._shop.fetch(str(file.digest), file.size_bytes)
        if source.size_bytes > _MAX_EXPECTED_BYTES:
            raise Rejected("snap.golden_too_large", f"{file.path} is larger than {_MAX_EXPECTED_BYTES} bytes")
        return b"".join(_pieces(source.path))

    def _lay_out(self, folder: Path, bits: int) -> _Laid:
        """Write the variant's files below a folder, those with a partner snapped by `bits` unless these are 0."""
        laid = _Laid(folder, {}, {})
        for file in self._variant.files:
            source = self._shop.fetch(str(file.digest), file.size_bytes)
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            with open_source(source.path) as target:
                if not bits or file.path not in self._old:
                    _write(folder / file.path, _rest(target))
                else:
                    with open_source(self._old[file.path].path) as base:
                        snapper = Snapper(base, target, bits=bits)
                        laid.digests[file.path] = _write(folder / file.path, snapper.pieces())
                    laid.reports[file.path] = snapper.report()
                if identity_of(target) != source.identity:
                    raise changed(source.path)
        return laid


def _write(path: Path, pieces: Iterable[bytes]) -> Digest:
    state = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            state.update(piece)
            file.write(piece)
    return Digest("sha256:" + state.hexdigest())


def _pieces(path: Path) -> Iterator[bytes]:
    with open_source(path) as file:
        yield from _rest(file)


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_READ_BYTES):
        yield piece


def _delta_bytes(old: Path, new: Path) -> int:
    with open_source(old) as base, open_source(new) as target:
        summary = encode_delta(
            base=base, target=target, sink=lambda _: None, words=choose_words(), level=_QUICK_LEVEL
        )
    return summary.delta_bytes
