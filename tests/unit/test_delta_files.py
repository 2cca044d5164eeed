"""Deltas applied to files: what a cut, a kill and a full or damaged disk leave behind."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.adapters.delta_files import DeltaJob, apply_delta_file, forget_attempt
from skerry.delivery.delta_apply import DeltaApplier
from skerry.delivery.delta_format import Reading, read_header
from skerry.kit.digests import digest_of
from skerry.kit.errors import Untrusted
from tests.unit.delta_files_of import PLAIN, delta_of, noise

pytestmark = pytest.mark.delivery

OLD = noise(2_000_000)
NEW = noise(800_000, 2) + OLD[:1_000_000] + noise(900_000, 3) + OLD[500_000:] + noise(1_500_000, 4)
DELTA = delta_of(OLD, NEW)


def block_ends() -> list[int]:
    """Return the bytes of the delta at which a block ends, and the header first."""
    source = io.BytesIO(DELTA)
    header, header_bytes = read_header(source)
    applier = DeltaApplier(header, base=io.BytesIO(OLD), output=io.BytesIO(), words=PLAIN)
    return [header_bytes, *(step.delta_bytes for step in applier.run(source, applier.begin(header_bytes)))]


def job_in(folder: Path) -> DeltaJob:
    """Write the base and return the job."""
    (folder / "base").write_bytes(OLD)
    return DeltaJob((folder / "base",), folder / "target", digest_of(NEW), len(NEW))


def opening(content: bytes, opened: list[int] | None = None) -> Callable[[int], Reading]:
    """Return a way to open a delta, which writes down from where."""

    def open_delta(offset: int) -> Reading:
        if opened is not None:
            opened.append(offset)
        return io.BytesIO(content[offset:])

    return open_delta


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_sample_has_several_blocks() -> None:
    assert len(block_ends()) > 4


def test_a_target_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.target.write_bytes(b"what was there before")
    apply_delta_file(job, opening(DELTA), words=PLAIN)
    assert job.target.read_bytes() == NEW
    assert names_in(tmp_path) == {"base", "target"}


@pytest.mark.rule("DELTA-3")
def test_a_cut_at_every_block_fetches_no_block_twice(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    opened: list[int] = []
    ends = block_ends()
    for end in ends[:-1]:
        with pytest.raises(Untrusted) as refused:
            apply_delta_file(job, opening(DELTA[:end], opened), words=PLAIN)
        assert refused.value.code == "delta.truncated"
        assert not job.target.exists()
    apply_delta_file(job, opening(DELTA, opened), words=PLAIN)
    assert job.target.read_bytes() == NEW
    # The first attempt came no further than the header; each later one began where the one before had ended.
    assert opened == [0, 0, *ends[1:-1]]


@pytest.mark.rule("DELTA-3")
def test_a_connection_that_breaks_within_a_block_costs_that_block(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    second = block_ends()[2]

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > second + 50:
                raise ConnectionResetError
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        apply_delta_file(job, lambda _: Breaking(DELTA), words=PLAIN)
    opened: list[int] = []
    apply_delta_file(job, opening(DELTA, opened), words=PLAIN)
    assert opened == [second]
    assert job.target.read_bytes() == NEW


@pytest.mark.rule("DELTA-3")
def test_a_kill_at_every_block_resumes_without_reading_a_block_twice(tmp_path: Path) -> None:
    job_in(tmp_path)
    (tmp_path / "delta").write_bytes(DELTA)
    script = Path(__file__).with_name("delta_killed.py")
    command = [sys.executable, str(script), str(tmp_path), digest_of(NEW), str(len(NEW))]
    for end in block_ends()[1:-1]:
        killed = subprocess.run([*command, str(end)], check=False, timeout=60)
        assert killed.returncode == -9
        assert not (tmp_path / "target").exists()
    subprocess.run([*command, str(len(DELTA) + 1)], check=True, timeout=60)
    assert (tmp_path / "target").read_bytes() == NEW
    reached = 0
    for line in (tmp_path / "log").read_text().splitlines():
        begins, ends = map(int, line.split())
        assert begins == reached
        reached = ends
    assert reached == len(DELTA)


@pytest.mark.rule("DELTA-3")
@pytest.mark.parametrize("damage", ("note", "output", "gone", "other"))
def test_an_attempt_that_was_damaged_begins_anew(damage: str, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Untrusted):
        apply_delta_file(job, opening(DELTA[: block_ends()[2]]), words=PLAIN)
    making, note = tmp_path / "target.making", tmp_path / "target.making.note"
    match damage:
        case "note":
            note.write_bytes(note.read_bytes()[:20])
        case "output":
            making.write_bytes(b"x" + making.read_bytes()[1:])
        case "gone":
            making.unlink()
        case _:
            other = delta_of(OLD, NEW[::-1])
            job = DeltaJob(job.base, job.target, digest_of(NEW[::-1]), len(NEW))
            apply_delta_file(job, opening(other), words=PLAIN)
            assert job.target.read_bytes() == NEW[::-1]
            return
    opened: list[int] = []
    apply_delta_file(job, opening(DELTA, opened), words=PLAIN)
    assert opened == [0]
    assert job.target.read_bytes() == NEW


@pytest.mark.rule("DELTA-1")
@pytest.mark.parametrize("where", (0, 20, 90, len(DELTA) // 2, len(DELTA) - 1))
def test_a_damaged_delta_leaves_the_target_as_it_was(where: int, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.target.write_bytes(b"as it was")
    damaged = bytearray(DELTA)
    damaged[where] ^= 16
    with pytest.raises(Untrusted):
        apply_delta_file(job, opening(bytes(damaged)), words=PLAIN)
    assert job.target.read_bytes() == b"as it was"
    forget_attempt(job)
    assert names_in(tmp_path) == {"base", "target"}


@pytest.mark.rule("DELTA-1")
def test_a_base_that_is_not_what_it_should_be_is_refused(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.base[0].write_bytes(OLD[:-1] + b"?")
    with pytest.raises(Untrusted) as refused:
        apply_delta_file(job, opening(DELTA), words=PLAIN)
    assert refused.value.code == "delta.wrong_base"


@pytest.mark.rule("DELTA-1")
def test_a_base_that_goes_by_its_digest_is_not_read_again_but_damage_is_still_noticed(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    known = DeltaJob(job.base, job.target, job.target_digest, job.target_size_bytes, digest_of(OLD))
    apply_delta_file(known, opening(DELTA), words=PLAIN)
    assert job.target.read_bytes() == NEW
    job.base[0].write_bytes(OLD[:1_500_000] + b"?" + OLD[1_500_001:])
    with pytest.raises(Untrusted) as refused:
        apply_delta_file(known, opening(DELTA), words=PLAIN)
    assert refused.value.code == "delta.block_mismatch"


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (tmp_path / "target.making").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        apply_delta_file(job, opening(DELTA), words=PLAIN)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"
