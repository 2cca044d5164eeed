"""Fuzz targets hold for their seeds, and faults that are put in are found."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from skerry.delivery.delta_format import OPERATION_NAMES, BlockFrame, Header, parse_segments
from skerry.delivery.tensors import find_tensors
from skerry.kit.errors import Untrusted
from tests.fuzz.delta_seeds import delta_seeds, old_file
from tests.fuzz.delta_shaping import reshape_delta, split_delta
from tests.fuzz.fuzz_delta import DeltaTarget
from tests.fuzz.fuzz_tensors import TARGET as TENSORS
from tests.fuzz.model_files import tar_of
from tests.fuzz.search import has_atheris, search_at_random
from tests.fuzz.target import Guard, load_target, target_names
from tests.unit.delta_files_of import applied, noise, safetensors_of

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "DIFFERING": "words differ",
    "GREEDY": "are read at",
    "TRUSTFUL": "IndexError",
    "HUNGRY": "of memory",
}
# Guided by coverage where that is installed: pyproject.toml says where.
ENGINES = ("random", "atheris") if has_atheris() else ("random",)


@pytest.mark.parametrize("name", target_names())
def test_every_target_holds_for_its_seeds(name: str) -> None:
    target = load_target(name)
    assert target.seeds()
    guard = Guard(target)
    for seed in target.seeds():
        assert len(seed) <= target.max_bytes
        guard(seed)


def test_the_seeds_of_deltas_have_every_operation_and_are_taken() -> None:
    header, seen = Header(len(old_file()), b"", 1 << 40, b""), set[int]()
    for delta in delta_seeds():
        applied(delta, old_file())
        begins = 0
        for block in split_delta(delta)[1]:
            seen |= {part.operation for part in parse_segments(BlockFrame(*block), header, begins=begins)}
            begins += block.size
    assert seen == set(range(len(OPERATION_NAMES)))


def test_changes_along_the_form_reach_what_is_behind_checksums_and_digests() -> None:
    random, codes = Random(1), set[str]()
    deltas = [delta for delta in delta_seeds() if split_delta(delta)[1]]
    for _ in range(2000):
        changed = reshape_delta(random.choice(deltas), random, old_file())
        try:
            applied(changed, old_file())
        except Untrusted as refused:
            codes.add(refused.code)
    inner = {"block_mismatch", "bad_frame", "malformed", "out_of_range", "target_mismatch"}
    assert {f"delta.{code}" for code in inner} <= codes
    assert "delta.damaged" not in codes


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found_at_random_and_kept(planted: str, tmp_path: Path) -> None:
    target = load_target(f"tests.fuzz.planted:{planted}")
    _, found = search_at_random(target, tmp_path, seed=1, seconds=0, inputs=20_000)
    assert found is not None
    assert PLANTED[planted] in found.with_suffix(".txt").read_text()
    with pytest.raises(Exception, match=r".+"):
        Guard(target)(found.read_bytes())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_process_that_finds_a_planted_fault_fails_and_shows_it_again(engine: str, tmp_path: Path) -> None:
    planted = "tests.fuzz.planted:TRUSTFUL"
    ran = worker(planted, tmp_path, "--engine", engine, "--inputs", "20000")
    assert ran.returncode == 77, ran.stdout
    assert "IndexError: a copy of a single byte" in ran.stdout
    (found,) = (file for file in tmp_path.glob("crash-*") if file.suffix != ".txt")
    again = worker(planted, tmp_path, "--replay", str(found))
    assert (again.returncode, "IndexError" in again.stdout) == (77, True)
    right = worker("delta", tmp_path, "--replay", str(found))
    assert (right.returncode, right.stdout) == (0, f"{found.name}: all holds\n")


def worker(target: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a worker below a shell: a process takes over the peak of memory of the one that starts it, and counts on."""
    program = (sys.executable, "-m", "tests.fuzz.worker")
    return subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", *program, target, "--folder", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_checked_applier_takes_what_the_plain_one_takes() -> None:
    for delta in delta_seeds():
        DeltaTarget().run(delta)


def model_in_a_tar() -> bytearray:
    return bytearray(tar_of({"m.safetensors": safetensors_of({"a": ("F16", noise(20_000))})}))


def test_a_tar_whose_sizes_are_no_octal_numbers_has_no_tensors() -> None:
    content = model_in_a_tar()
    content[124:136] = b"99999999999\0"
    TENSORS.run(bytes(content))
    assert find_tensors(io.BytesIO(content), len(content)) == []


def test_a_model_that_leaves_its_tar_has_no_tensors() -> None:
    content = bytes(model_in_a_tar())
    size = int(content[124:135], 8)
    for end in range(size, size + 513, 64):
        TENSORS.run(content[:end])
        assert (find_tensors(io.BytesIO(content[:end]), end) != []) == (end >= size + 512)
