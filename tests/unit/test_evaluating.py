"""A publisher's evaluation is run in bounds, read with care, and what cannot be judged has not passed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from skerry.client import snapping_evaluation
from skerry.client.snapping_evaluation import (
    EvaluationResult,
    Evaluator,
    GoldenOutputs,
    judge_exact,
    judge_snapped,
)
from skerry.kit.errors import Rejected
from skerry.spec.model import Evaluation, MetricTolerance, Tolerance

ACCURACY = MetricTolerance(worse_by=0.01)
LOSS = MetricTolerance(worse_by=0.1, better="lower")


def evaluated(folder: Path, script: str, *, timeout: str = "20s", **environment: str) -> EvaluationResult:
    evaluation = Evaluation(command=(sys.executable, "-c", script), timeout=timeout)
    return Evaluator(evaluation, folder, os.environ | environment).run("fp32", folder / "model")


def result_of(text: str) -> EvaluationResult:
    return snapping_evaluation._parse(text.encode())


def test_the_command_runs_beside_the_document_and_is_told_what_to_judge(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("0.5")
    script = (
        "import json, os\n"
        "told = [os.environ['SKERRY_MODEL_DIR'], os.environ['SKERRY_MODEL_VARIANT']]\n"
        "assert 'SKERRY_TOKEN_FILE' not in os.environ and os.environ['OTHER'] == 'x'\n"
        "print('epoch 1')\n"
        "print(json.dumps({'metrics': {'a': float(open('data.txt').read())}, 'outputs': {'one': told}}))\n"
        "print()\n"
    )
    result = evaluated(tmp_path, script, SKERRY_TOKEN_FILE="secret", OTHER="x")
    assert result.metrics == {"a": 0.5}
    assert json.loads(bytes(result.outputs["one"])) == [str(tmp_path / "model"), "fp32"]


@pytest.mark.parametrize(
    ("script", "message"),
    (
        ("print('fine')", "no result: 'fine'"),
        ("pass", "no result: ''"),
        ("print('{\"metrics\": {\"a\": NaN}}')", "no result"),
        ("print('{\"metrics\": {\"a\": \"high\"}}')", "no result"),
        ("import sys; print('{}'); print('no data', file=sys.stderr); sys.exit(3)", "exit code 3, saying:\nno data"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("while True: print('x' * 4096)", "printed more than 64.0 MiB"),
    ),
)  # fmt: skip
def test_what_gives_no_result_is_refused(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(Rejected) as caught:
        evaluated(tmp_path, script)
    assert caught.value.code == "snap.evaluation"
    assert message in caught.value.message


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"cannot be started: \./no-such"):
        Evaluator(Evaluation(command=("./no-such",)), tmp_path, {}).run("fp32", tmp_path)


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    # Reading comes to an end once nobody writes any more: neither the command nor what it started.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = (
        "import os, subprocess, sys\n"
        "os.dup2(os.open(os.environ['FIFO'], os.O_WRONLY), 1)\n"
        "print('begun', flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    with pytest.raises(Rejected, match="did not end within 2s"):
        evaluated(tmp_path, script, timeout="2s", FIFO=str(fifo))
    os.set_blocking(held, True)
    with os.fdopen(held, "rb") as file:
        assert file.read() == b"begun\n"


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    (
        ({"accuracy": 0.90, "loss": 1.0}, {"accuracy": 0.89, "loss": 1.1}, True),
        ({"accuracy": 0.90, "loss": 1.0}, {"accuracy": 0.8899, "loss": 1.0}, False),
        ({"accuracy": 0.90, "loss": 1.0}, {"accuracy": 0.90, "loss": 1.11}, False),
        ({"accuracy": 0.90, "loss": 1.0}, {"accuracy": 1.0, "loss": 0.1}, True),
        ({"accuracy": 0.90, "loss": 1.0}, {"accuracy": 0.90}, False),
    ),
)
def test_metrics_may_be_worse_by_as_much_as_is_stated(
    before: dict[str, float], after: dict[str, float], passes: bool
) -> None:
    evaluation = Evaluation(command=("x",), metrics={"accuracy": ACCURACY, "loss": LOSS})
    failure = judge_snapped(evaluation, EvaluationResult(before), EvaluationResult(after), None)
    assert bool(failure) is not passes


def test_a_metric_that_lacks_is_told_with_those_that_are_there() -> None:
    evaluation = Evaluation(command=("x",), metrics={"accuracy": ACCURACY})
    failure = judge_exact(evaluation, EvaluationResult({"acc": 1.0}), None)
    assert failure == "the metric accuracy lacks in what the evaluation printed (metrics there: acc)"


@pytest.mark.parametrize(
    ("outputs", "failure"),
    (
        ('{"one": [[1.0, 2.0005]]}', ""),
        ('{"one": [[1.0, 2.1]]}', "case one: output[0][1] is 2.1, expected 2 within 0.0021"),
        ('{"one": [[1.0]]}', "case one: output[0] has another shape"),
        ('{"two": [[1.0, 2.0]]}', "case one: the evaluation gives no outputs for it"),
        ("{}", "case one: the evaluation gives no outputs for it"),
    ),
)
def test_outputs_are_held_against_the_golden_cases(outputs: str, failure: str) -> None:
    golden = GoldenOutputs({"one": b"[[1, 2]]"}, Tolerance())
    exact = result_of('{"outputs": {"one": [[1, 2]]}}')
    evaluation = Evaluation(command=("x",))
    assert judge_exact(evaluation, exact, golden) == ""
    snapped = result_of(f'{{"outputs": {outputs}}}')
    assert judge_snapped(evaluation, exact, snapped, golden).startswith(failure)
    assert bool(judge_snapped(evaluation, exact, snapped, golden)) is bool(failure)


def test_an_expected_output_that_is_no_json_does_not_pass() -> None:
    golden = GoldenOutputs({"one": b"\xff"}, Tolerance())
    result = result_of('{"outputs": {"one": 1}}')
    assert judge_exact(Evaluation(command=("x",)), result, golden) == (
        "case one: the expected output is not JSON"
    )
