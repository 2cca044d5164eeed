"""Configurations as people write them: every problem of a document at once, with its path and its line."""

from __future__ import annotations

import json

import pytest

from skerry.spec.configuration import MAX_SCHEMA_BYTES, MAX_VALUES_BYTES, MAX_VALUES_DEPTH
from skerry.spec.configuration_schema import check_schema, check_values
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected

pytestmark = pytest.mark.rollout

CONFIGURATION = """
apiVersion: skerry/v1
kind: Configuration
metadata: {name: one}
spec:
"""


def problems(text: str) -> list[tuple[str, int, str]]:
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(text)
    return [(problem.path, problem.line, problem.message) for problem in caught.value.problems]


def test_all_problems_of_a_configuration_are_told_at_once() -> None:
    text = CONFIGURATION + (
        "  application: camera\n"
        "  of: {selector: a=b, version: '1', host: edge}\n"
        "  values:\n"
        "    url: ${site.name} ${vault.key}\n"
        "    list: ['${secrets.x}']\n"
    )
    assert problems(text) == [
        ("spec.of", 7, "says version and selector"),
        ("spec.of.host", 7, "a host of which site?"),
        ("spec.values.url", 9, "unknown reference ${vault.key}"),
        ("spec.values.list[0]", 10, "unknown reference ${secrets.x}"),
    ]


def test_values_are_bounded_in_size_and_depth() -> None:
    large = json.dumps({"a": "x" * MAX_VALUES_BYTES})
    [(_, _, message)] = problems(f"{CONFIGURATION}  application: camera\n  values: {large}\n")
    assert "more than the 65536 that values may have" in message
    deep = "{a: " * (MAX_VALUES_DEPTH + 2) + "1" + "}" * (MAX_VALUES_DEPTH + 2)
    [(_, _, message)] = problems(f"{CONFIGURATION}  application: camera\n  values: {deep}\n")
    assert message == f"nested deeper than {MAX_VALUES_DEPTH} levels"


APPLICATION = """
apiVersion: skerry/v1
kind: Application
metadata: {name: camera}
spec:
  version: "1"
"""


def test_all_problems_of_what_components_take_are_told_at_once() -> None:
    text = APPLICATION + (
        "  components:\n"
        "    - name: main\n"
        "      command: [./run, '${config}/a']\n"
        "      env: {A: x}\n"
        "      config:\n"
        "        files: [{path: a}, {path: a/b}, {path: a}]\n"
        "        env: {A: a}\n"
        "        on_change: {signal: HUP, none: true, http: {port: web}, timeout: 0s}\n"
    )
    path = "spec.components[0].config"
    assert sorted(found[::2] for found in problems(text)) == [
        (path, "the application has no configuration"),
        (f"{path}.env.A", "the component sets this variable as well"),
        (f"{path}.files", "a is a file and a directory"),
        (f"{path}.files", "a is a file and a directory"),
        (f"{path}.files", "path a is there 2 times"),
        (f"{path}.on_change", "says signal and http and none"),
        (f"{path}.on_change.http.port", "no port named web"),
        (f"{path}.on_change.timeout", "must be longer than 0"),
    ]


@pytest.mark.parametrize(
    ("schema", "message"),
    (
        ({"type": "number?"}, "not a JSON Schema"),
        ({"$ref": "https://example.org/schema.json"}, "leads elsewhere"),
        ({"properties": {"a": {"$dynamicRef": "other.json"}}}, "leads elsewhere"),
        ({"$ref": "#/$defs/none"}, "not a JSON Schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "another dialect"),
        ({"pattern": "(?=a)b"}, "not a JSON Schema"),
        ({"description": "x" * MAX_SCHEMA_BYTES}, "bytes are more than"),
    ),
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, object], message: str) -> None:
    found = list(check_schema("spec.config.schema", schema))
    assert found and all(message in str(problem) for problem in found)


def test_a_schema_may_refer_to_itself_and_says_what_values_break() -> None:
    schema = {
        "$defs": {"rate": {"type": "integer", "minimum": 1}},
        "properties": {"a": {"properties": {"rate": {"$ref": "#/$defs/rate"}}}},
    }
    assert not list(check_schema("s", schema))
    [problem] = check_values({"a": {"rate": 0}}, schema)
    assert (problem.path, problem.message) == ("a.rate", "expected 1 or more, got 0")
    assert not check_values({"a": {"rate": 2}}, schema)


def test_the_schema_of_an_application_is_checked_with_it() -> None:
    text = APPLICATION + (
        "  config: {schema: {type: nothing}}\n  components:\n    - {name: main, command: [./run]}\n"
    )
    [(path, line, message)] = problems(text)
    assert (path, line) == ("spec.config.schema", 7)
    assert message.startswith("not a JSON Schema")
