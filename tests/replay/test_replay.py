"""What was decided once is decided again from the same inputs: a change of what is decided is seen here.

The recordings are of simulated rollouts and of a hub. When a change is meant: `python -m tests.replay.record`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import structlog.testing

from skerry.hub.recording import DecisionFiles
from skerry.kit.errors import Rejected
from skerry.rollout.recording import (
    Recorded,
    decision_digest,
    encode_recorded,
    inputs_digest,
    parse_recorded,
    summarise_effects,
)
from tests.replay.record import RECORDINGS, record

pytestmark = pytest.mark.rollout

FILES = sorted(RECORDINGS.glob("*.jsonl"))


@pytest.mark.rule("ROLLOUT-5")
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_recorded_decision_is_decided_again(file: Path) -> None:
    recorded = list(parse_recorded(file.read_bytes()))
    assert len(recorded) >= 3
    for number, one in enumerate(recorded, start=1):
        again, backwards = one.decide(), msgspec.structs.replace(one, fleet=one.fleet[::-1])
        told = (number, again.state, again.why, summarise_effects(again))
        was = (number, one.decision.state, one.decision.why, summarise_effects(one.decision))
        assert told == was
        assert decision_digest(again) == decision_digest(one.decision) == decision_digest(backwards.decide())


def test_the_recordings_hold_what_rollouts_meet() -> None:
    recorded = {file.stem: list(parse_recorded(file.read_bytes())) for file in FILES}
    assert {name: found[-1].decision.state for name, found in recorded.items()} == {
        "aborted": "aborted",
        "halts": "failed",
        "hub-first": "succeeded",
        "hub-second": "failed",
        "succeeds": "succeeded",
    }
    states = {
        progress.state
        for found in recorded.values()
        for one in found
        for progress in one.decision.sites.values()
    }
    assert states >= {"pending", "offered", "succeeded", "failed", "rolled_back", "unreachable", "applying"}


def test_recording_again_writes_the_same_files(tmp_path: Path) -> None:
    record(tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for file in FILES:
        again = [one.rollout for one in parse_recorded(written.pop(file.name))]
        assert again == [one.rollout for one in parse_recorded(file.read_bytes())], file.name
    assert written == {}


def first() -> Recorded:
    return next(parse_recorded(FILES[0].read_bytes()))


def test_the_digest_of_inputs_follows_from_their_values_alone() -> None:
    one = first()
    digest = inputs_digest(one.rollout, one.fleet, one.now)
    (read,) = parse_recorded(encode_recorded(one))
    assert read == one
    assert inputs_digest(read.rollout, read.fleet[::-1], read.now) == digest
    other = msgspec.structs.replace(one.fleet[0], reachable=not one.fleet[0].reachable)
    assert inputs_digest(one.rollout, (other, *one.fleet[1:]), one.now) != digest
    assert inputs_digest(msgspec.structs.replace(one.rollout, blocked="x"), one.fleet, one.now) != digest


def test_a_line_that_was_cut_off_is_left_out_and_any_other_that_is_none_is_refused() -> None:
    line = encode_recorded(first())
    assert len(list(parse_recorded(line + line[: len(line) // 2]))) == 1
    with pytest.raises(Rejected, match="line 2 is no recorded decision"):
        list(parse_recorded(line + b"{}\n" + line))


def test_a_file_does_not_grow_beyond_its_bound_and_a_failure_to_write_is_logged_once(tmp_path: Path) -> None:
    one, line = first(), encode_recorded(first())
    files = DecisionFiles(tmp_path / "kept", most_bytes=2 * len(line) + 10)
    for _ in range(4):
        files(one.rollout, one.fleet, one.now, one.decision)
    (file,) = (tmp_path / "kept").iterdir()
    assert file.read_bytes() == 2 * line
    (tmp_path / "taken").write_text("no directory")
    failing = DecisionFiles(tmp_path / "taken")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            failing(one.rollout, one.fleet, one.now, one.decision)
    assert [entry["event"] for entry in logs] == ["recording.failing"]
