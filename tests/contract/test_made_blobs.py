"""What every LocalBlobs keeps when it makes a blob by a delta: the content that was named, or nothing at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.words import choose_words
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.testing.faults import FaultPlan, FaultyLocalBlobs
from skerry.testing.memory import MemoryLocalBlobs

pytestmark = [pytest.mark.delivery, pytest.mark.rule("DELTA-1")]

LOW, HIGH = random.Random(1).randbytes(3 << 20), random.Random(2).randbytes(1 << 20)
NEW = HIGH[:500_000] + b"inserted" + LOW[4:] + random.Random(3).randbytes(2 << 20)

KINDS: dict[str, Callable[[Path], LocalBlobs]] = {
    "directory": lambda path: DirectoryBlobs(path / "blobs"),
    "memory": lambda path: MemoryLocalBlobs(path / "blobs"),
    "faulty": lambda path: FaultyLocalBlobs(DirectoryBlobs(path / "blobs"), FaultPlan()),
}


def delta_of(*base: bytes, target: bytes = NEW) -> bytes:
    written = BytesIO()
    old = BytesIO(b"".join(base))
    encode_delta(base=old, target=BytesIO(target), sink=written.write, words=choose_words(), level=1)
    return written.getvalue()


DELTA, FULL = delta_of(LOW, HIGH), delta_of()


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> LocalBlobs:
    made = KINDS[str(request.param)](tmp_path)
    for content in (LOW, HIGH, DELTA, FULL):
        made.put(digest_of(content), content)
    return made


def make(blobs: LocalBlobs, *base: bytes, delta: bytes = DELTA, target: bytes = NEW) -> Path:
    digests = [digest_of(one) for one in base]
    return blobs.make_by_delta(digest_of(target), len(target), base=digests, delta=digest_of(delta))


def test_a_blob_is_made_of_several_others_and_made_once(blobs: LocalBlobs) -> None:
    for _ in range(2):
        assert make(blobs, LOW, HIGH).read_bytes() == NEW
    assert blobs.has(digest_of(NEW))
    assert blobs.verify(digest_of(NEW))
    assert len(DELTA) < len(NEW) * 0.6


def test_a_blob_is_made_of_nothing_where_none_is_a_relative(blobs: LocalBlobs) -> None:
    assert make(blobs, delta=FULL).read_bytes() == NEW


def test_what_came_of_it_as_it_is_goes_once_it_was_made_otherwise(blobs: LocalBlobs) -> None:
    blobs.append(digest_of(NEW), [NEW[:1000]], offset=0, limit=len(NEW))
    make(blobs, LOW, HIGH)
    assert blobs.partial_size(digest_of(NEW)) == 0


@pytest.mark.parametrize("base", ((HIGH, LOW), (LOW,), (HIGH,), ()), ids=("swapped", "low", "high", "none"))
def test_other_blobs_make_nothing(blobs: LocalBlobs, base: tuple[bytes, ...]) -> None:
    with pytest.raises(Untrusted, match="another file"):
        make(blobs, *base)
    assert not blobs.has(digest_of(NEW))


def test_a_delta_to_something_else_makes_nothing(blobs: LocalBlobs) -> None:
    other = delta_of(LOW, HIGH, target=NEW[:-1])
    blobs.put(digest_of(other), other)
    with pytest.raises(Untrusted, match="leads to another file"):
        make(blobs, LOW, HIGH, delta=other)
    assert not blobs.has(digest_of(NEW))


def test_what_is_not_here_is_said(blobs: LocalBlobs) -> None:
    blobs.remove(digest_of(LOW))
    with pytest.raises(Missing):
        make(blobs, LOW, HIGH)
    with pytest.raises(Missing):
        make(blobs, delta=b"never put")


def test_a_base_that_was_damaged_on_disk_makes_nothing(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    delta = delta_of(LOW)
    for content in (LOW, delta):
        blobs.put(digest_of(content), content)
    blobs.path(digest_of(LOW)).write_bytes(bytes(len(LOW)))
    with pytest.raises(Untrusted):
        make(blobs, LOW, delta=delta)
    assert not blobs.has(digest_of(NEW))
    assert not blobs.verify(digest_of(LOW))


def test_what_an_attempt_left_is_removed_with_the_blob_and_swept_with_the_old(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    for content in (LOW, HIGH, DELTA):
        blobs.put(digest_of(content), content)
    damaged = DELTA[:-1]
    blobs.put(digest_of(damaged), damaged)
    for clear in (
        lambda: blobs.remove(digest_of(NEW)),
        lambda: blobs.sweep(frozenset(), older_than_s=-1),
    ):
        with pytest.raises(Untrusted):
            make(blobs, LOW, HIGH, delta=damaged)
        assert {file.name.partition(".")[2] for file in (tmp_path / "partial").iterdir()} >= {"making"}
        clear()
        assert not list((tmp_path / "partial").iterdir())
