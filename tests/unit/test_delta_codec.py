"""Deltas lead from the old content to the new, whatever the two are, and can be gone on with from every block."""

from __future__ import annotations

import io
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.delivery.delta_apply import DeltaApplier, Progress
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.delta_format import read_header
from skerry.kit.errors import Untrusted
from tests.unit.delta_files_of import (
    PLAIN,
    WITH_NUMPY,
    applied,
    delta_of,
    edited,
    noise,
    pairs,
    safetensors_of,
)

pytestmark = pytest.mark.delivery
slow_draws = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow]
)


@pytest.mark.rule("DELTA-1")
@slow_draws
@given(pairs())
def test_a_delta_makes_the_new_content(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    delta = delta_of(old, new)
    assert applied(delta, old) == new
    assert applied(delta, old, words=WITH_NUMPY) == new


@slow_draws
@given(pairs())
def test_the_same_pair_gives_the_same_delta_with_and_without_numpy(pair: tuple[bytes, bytes]) -> None:
    assert delta_of(*pair) == delta_of(*pair, words=WITH_NUMPY)


@pytest.mark.parametrize("seed", range(6))
def test_large_content_is_put_together_from_where_it_went(seed: int) -> None:
    random = Random(seed)
    old = noise(2_500_000, seed)
    new = edited(old, random)
    delta = delta_of(old, new)
    assert applied(delta, old) == new
    # At most five pieces of at most 70,000 bytes are new; all else is referred to.
    assert len(delta) < 5 * 71_000 + 3000


def test_content_that_is_the_same_costs_nothing() -> None:
    old = noise(40_000_000)
    assert len(delta_of(old, old)) < 300


def test_content_that_repeats_costs_once() -> None:
    part = noise(1_200_000)
    delta = delta_of(b"", part * 4)
    assert applied(delta, b"") == part * 4
    assert len(delta) < len(part) + 2000


@pytest.mark.parametrize("pattern", (b"\0", b"ab", b"abc" * 9 + b"d", noise(97), noise(70_000)))
def test_periodic_content_is_no_trap(pattern: bytes) -> None:
    new = pattern * (3_000_000 // len(pattern))
    delta = delta_of(pattern, new)
    assert applied(delta, pattern) == new
    assert len(delta) < len(pattern) + 3000


@pytest.mark.parametrize(("dtype", "word_bytes"), (("F32", 4), ("F16", 2), ("BF16", 2), ("I8", 1)))
def test_tensors_are_found_by_name_when_their_order_changes(dtype: str, word_bytes: int) -> None:
    def words(seed: int) -> bytes:
        return noise(60_000, seed)

    def nudged(content: bytes) -> bytes:
        random = Random(9)
        changed = bytearray(content)
        for at in range(0, len(changed), word_bytes):
            changed[at] = (changed[at] + random.randrange(3)) % 256
        return bytes(changed)

    names = [f"layer.{number}" for number in range(5)]
    old = safetensors_of({name: (dtype, words(seed)) for seed, name in enumerate(names)})
    new = safetensors_of({name: (dtype, nudged(words(names.index(name)))) for name in reversed(names)})
    delta = delta_of(old, new, level=3)
    assert applied(delta, old) == new
    assert len(delta) < len(new) * (0.35 if word_bytes == 1 else 0.3)


def test_numbers_of_an_unknown_format_are_found_behind_an_odd_header() -> None:
    numbers = noise(400_000)
    near = bytearray(numbers)
    for at in range(0, len(near), 4):
        near[at] = (near[at] + at % 5) % 256
    old, new = b"old" + numbers, b"newer" + bytes(near)
    delta = delta_of(old, new)
    assert applied(delta, old) == new
    assert len(delta) < len(new) // 2


def test_words_without_a_base_are_packed_as_numbers() -> None:
    import numpy as np

    values = np.random.default_rng(1).standard_normal(100_000).astype("<f2").tobytes()
    delta = delta_of(b"", values)
    assert applied(delta, b"") == values
    assert len(delta) < 0.9 * len(values)


def _steps(delta: bytes, old: bytes) -> list[Progress]:
    source = io.BytesIO(delta)
    header, header_bytes = read_header(source)
    applier = DeltaApplier(header, base=io.BytesIO(old), output=io.BytesIO(), words=PLAIN)
    return list(applier.run(source, applier.begin(header_bytes)))


@pytest.mark.rule("DELTA-3")
def test_a_cut_at_every_block_is_gone_on_from() -> None:
    old = noise(3_000_000)
    new = noise(700_000, 2) + old[:1_500_000] + noise(900_000, 3) + old[1_400_000:] + noise(700_000, 4)
    new += new[:2_000_000]
    delta = delta_of(old, new)
    steps = _steps(delta, old)
    assert len(steps) >= 3
    for step in steps:
        # What was written after the last whole block is thrown away.
        output = io.BytesIO(new[: step.output_bytes] + b"half a block")
        header, _ = read_header(io.BytesIO(delta))
        applier = DeltaApplier(header, base=io.BytesIO(old), output=output, words=PLAIN)
        applier.resume(step)
        rest = io.BytesIO(delta[step.delta_bytes :])
        reached = list(applier.run(rest, step))
        assert output.getvalue() == new
        assert [later.output_bytes for later in reached] == [
            later.output_bytes for later in steps if later.blocks > step.blocks
        ]


@pytest.mark.rule("DELTA-3")
@given(st.integers(0, 699_999))
@settings(max_examples=30, deadline=None)
def test_progress_is_not_believed_when_the_output_was_damaged(at: int) -> None:
    old, new = b"", noise(700_000) + noise(700_000, 2)
    delta = delta_of(old, new)
    header, _ = read_header(io.BytesIO(delta))
    damaged = bytearray(new[:1_048_576])
    damaged[at] ^= 4
    applier = DeltaApplier(header, base=io.BytesIO(), output=io.BytesIO(damaged), words=PLAIN)
    with pytest.raises(Untrusted) as refused:
        applier.resume(_steps(delta, old)[0])
    assert refused.value.code == "delta.lost_progress"


def test_the_summary_accounts_for_every_byte() -> None:
    old = noise(900_000)
    new = old[100_000:] + b"more" * 1000
    pieces: list[bytes] = []
    summary = encode_delta(
        base=io.BytesIO(old), target=io.BytesIO(new), sink=pieces.append, words=PLAIN, level=1
    )
    assert sum(summary.output_bytes.values()) == len(new) == summary.header.target_size
    assert summary.delta_bytes == len(b"".join(pieces))
    assert summary.output_bytes["copy"] == 800_000
