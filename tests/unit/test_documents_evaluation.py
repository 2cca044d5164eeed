"""A Model's evaluation as people write it: what is wrong is said with its line and what to do."""

from __future__ import annotations

import msgspec
import pytest

from skerry.spec.model import MetricTolerance, Model, Snapped
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected

SELF_TEST = "  self_test: {cases: [{name: a, input: {path: i, source: i}, expected: {path: o, source: o}}]}\n"


def model(evaluation: str, more: str = "") -> Model:
    (parsed,) = parse_documents(
        "kind: Model\n"
        "metadata: {name: digits}\n"
        "spec:\n"
        "  version: '1'\n"
        "  variants: [{name: a, format: onnx, files: [{path: m, source: m}]}]\n"
        f"{more}"
        f"  evaluation: {evaluation}\n"
    )
    assert isinstance(parsed.document, Model)
    return parsed.document


def test_a_whole_evaluation_is_read() -> None:
    evaluation = model(
        "{command: [python3, evaluate.py], timeout: 90s,"
        " metrics: {accuracy: {worse_by: 0.002}, 'map@50': {}, loss: {worse_by: 0.01, better: lower}}}"
    ).spec.evaluation
    assert evaluation is not None
    assert (evaluation.command, evaluation.timeout) == (("python3", "evaluate.py"), "90s")
    assert evaluation.metrics == {
        "accuracy": MetricTolerance(worse_by=0.002),
        "map@50": MetricTolerance(),
        "loss": MetricTolerance(worse_by=0.01, better="lower"),
    }


def test_golden_cases_alone_are_something_to_judge_by() -> None:
    assert model("{command: [x]}", SELF_TEST).spec.evaluation


@pytest.mark.parametrize(
    ("evaluation", "told"),
    (
        ("{command: [x]}", "spec.evaluation: judges nothing (write metrics:"),
        ("{command: [x], timeout: 0s, metrics: {a: {}}}", "spec.evaluation.timeout: must be longer than 0"),
        ("{command: [''], metrics: {a: {}}}", "spec.evaluation.command[0]: names no program"),
        ('{command: [x, "a\\0b"], metrics: {a: {}}}', "spec.evaluation.command[1]: contains a NUL character"),
        ("{command: [], metrics: {a: {}}}", "spec.evaluation.command"),
        ("{command: [x], metrics: {a: {worse_by: -1}}}", "spec.evaluation.metrics.a.worse_by"),
        ("{command: [x], metrics: {a: {better: more}}}", "spec.evaluation.metrics.a.better"),
        ("{command: [x], metrics: {'a b': {}}}", "spec.evaluation.metrics"),
        ("{command: [x], metrics: {a: {}}, epochs: 3}", "spec.evaluation.epochs"),
        ("{metrics: {a: {}}}", "spec.evaluation.command"),
    ),
)
def test_what_is_wrong_is_told_with_its_line(evaluation: str, told: str) -> None:
    with pytest.raises(DocumentRejected) as caught:
        model(evaluation)
    (problem,) = caught.value.problems
    assert told in str(problem)
    assert problem.line == 6


def test_a_model_without_either_is_written_as_before() -> None:
    plain = model("{command: [x], metrics: {a: {}}}")
    spec = msgspec.structs.replace(plain.spec, evaluation=None)
    written = msgspec.json.encode(msgspec.structs.replace(plain, spec=spec))
    assert b"evaluation" not in written and b"snapped" not in written


def test_how_a_variant_was_snapped_is_part_of_the_document() -> None:
    plain = model("{command: [x], metrics: {a: {}}}")
    how = Snapped(release="reader@1.0.0", bits=14, largest_error=0.0019)
    variant = msgspec.structs.replace(plain.spec.variants[0], snapped=how)
    spec = msgspec.structs.replace(plain.spec, variants=(variant,))
    written = msgspec.json.encode(msgspec.structs.replace(plain, spec=spec))
    assert msgspec.json.decode(written, type=Model).spec.variants[0].snapped == how
