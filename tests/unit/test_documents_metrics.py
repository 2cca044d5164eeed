"""What an application may say of its metrics, and a rollout of its gates: each contradiction with its place."""

from __future__ import annotations

import pytest

from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected, Problem

APPLICATION = """\
apiVersion: skerry/v1
kind: Application
metadata: {name: reader}
spec:
  version: 1.0.0
  components:
    - name: main
      command: [serve]
      ports: [{name: http}]
      metrics:
        port: http
        path: /metrics
        interval: 15s
        collect:
          - {name: errors, rate: {bad: 'http_requests_total{status=~"5.."}', total: http_requests_total}}
          - {name: latency, histogram: http_seconds}
          - {name: accuracy, mean: {gauge: accuracy, low: 0, high: 1}}
"""
ROLLOUT = """\
apiVersion: skerry/v1
kind: Rollout
metadata: {name: spring}
spec:
  release: reader@2.0.0
  sites: "*"
  gates:
    - {metric: errors, kind: rate, max_increase: "0.005"}
    - {metric: latency, kind: quantile, quantile: 0.95, max_increase: 10%}
"""


def problems(text: str) -> list[Problem]:
    try:
        list(parse_documents(text, file="reader.yaml"))
    except DocumentRejected as rejected:
        return list(rejected.problems)
    return []


def test_what_is_right_has_no_problem() -> None:
    assert problems(APPLICATION) == problems(ROLLOUT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "path"),
    (
        ("port: http\n", "port: htp\n", "port"),
        ("interval: 15s", "interval: 10ms", "interval"),
        ("interval: 15s", "interval: 1h", "interval"),
        ("name: latency", "name: errors", "collect"),
        ("latency, histogram: http_seconds", "latency", "collect[1]"),
        ("histogram: http_seconds", "histogram: http_seconds_bucket", "collect[1].histogram"),
        ("histogram: http_seconds", "histogram: 'http_seconds{le}'", "collect[1].histogram"),
        ("total: http_requests_total", "total: 'http_requests_total{x=1}'", "collect[0].rate.total"),
        ('5.."}', '5[0-9]+"}', "collect[0].rate.bad"),
        ("gauge: accuracy, ", "", "collect[2].mean"),
        ("gauge: accuracy", "gauge: accuracy, summary: accuracy", "collect[2].mean"),
        ("low: 0, high: 1", "low: 1, high: 1", "collect[2].mean.high"),
    ),
)
def test_each_contradiction_is_told_with_its_place(right: str, wrong: str, path: str) -> None:
    text = APPLICATION.replace(right, wrong, 1)
    assert text != APPLICATION
    (problem,) = problems(text)
    assert problem.path == f"spec.components[0].metrics.{path}"
    assert problem.line >= 10
    assert problem.message


def test_all_problems_are_told_at_once() -> None:
    text = (
        APPLICATION.replace("port: http\n", "port: x\n").replace("15s", "1ms").replace("high: 1", "high: -1")
    )
    assert len(problems(text)) == 3


def test_a_gate_that_nothing_could_break_is_told_with_its_place() -> None:
    (problem,) = problems(ROLLOUT.replace(', max_increase: "0.005"', ""))
    assert problem.path == "spec.gates[0]"
    assert problem.line == 8
