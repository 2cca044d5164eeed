"""Documents as people write them: every problem at once, at the right line, and never anything worse."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from skerry.spec.application import Application
from skerry.spec.documents import KINDS
from skerry.spec.model import Model
from skerry.spec.parsing import MAX_PROBLEMS, decode_text, parse_documents, parse_raw
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.schema import json_schema
from skerry.spec.site import Site
from skerry.spec.yaml_tree import MAX_DEPTH, MAX_TEXT_BYTES, Place

GOOD = """\
# a comment first
apiVersion: skerry/v1
kind: Model
metadata:
  name: digits
spec:
  version: "1.10"
  variants:
    - name: fp32
      format: onnx
      requires: {arch: [x86_64], memory: 1GiB}
      files:
        - {path: model.onnx, source: build/model.onnx}
---
---
kind: Application
metadata:
  name: reader
  labels: {team.example/owner: "42"}
spec:
  version: 1.0.0
  components:
    - name: reader
      command: [python3, "${data}/app"]
      ports:
        - name: http
      probes:
        startup: {http: {port: http, path: /healthz}, period: 500ms}
"""


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(text, file="site.yaml")
    return list(caught.value.problems)


def only_problem_of(text: str) -> Problem:
    problems = problems_of(text)
    assert len(problems) == 1, problems
    return problems[0]


def test_good_documents_come_back_typed_with_their_lines() -> None:
    model, application = parse_documents(GOOD, file="release.yaml")
    assert isinstance(model.document, Model)
    assert (model.line, model.file, model.document.spec.version) == (2, "release.yaml", "1.10")
    assert isinstance(application.document, Application)
    assert application.line == 16
    assert application.raw["metadata"]["name"] == "reader"
    assert application.problem_at("spec.components[0].ports[0].name", "x").line == 26


def test_json_is_read_as_well() -> None:
    (parsed,) = parse_documents(json.dumps({"kind": "Site", "metadata": {"name": "zurich"}}))
    assert isinstance(parsed.document, Site)


def test_nothing_and_empty_documents_are_no_documents() -> None:
    assert parse_documents("") == []
    assert parse_documents("---\n---\n# nothing\n---\n") == []


SEEDED = (
    # what is written, what becomes of it, path, line, part of the message, part of the hint
    ("name: digits", "name: Digits_2", "metadata.name", 5, "lower-case letters", "digits-2"),
    ("name: digits", "nmae: digits", "metadata.nmae", 5, "unknown field", "did you mean name?"),
    ("name: digits", "label: digits", "metadata.name", 4, "is missing", "lower-case letters"),
    ("kind: Model", "kind: Modle", "kind", 3, "unknown kind", "did you mean Model?"),
    ("skerry/v1", "skerry/v2", "apiVersion", 2, "unknown version", "skerry/v1"),
    ('"1.10"', "1.10", "spec.version", 7, "expected text, got the number 1.1", 'quote it: "1.10"'),
    ("format: onnx", "format: ''", "spec.variants[0].format", 10, "at least 1 characters", ""),
    ("1GiB", "1G", "spec.variants[0].requires.memory", 11, "a size such as 512MiB", ""),
    ("[x86_64]", "x86_64", "spec.variants[0].requires.arch", 11, "expected a list", "[x86_64]"),
    ("path: model.onnx", "path: ../x", "spec.variants[0].files[0].path", 13, "without . and .. parts", ""),
    ('owner: "42"', "owner: 42", "metadata.labels.team.example/owner", 19, "expected text", 'quote it: "42"'),
    ('owner: "42"', "owner: no", "metadata.labels.team.example/owner", 19, "got false", 'quote it: "no"'),
    ('"${data}/app"', '"${date}/app"', "spec.components[0].command[1]", 24, "unknown reference", "${data}"),
    ("[python3,", "[1:30,", "spec.components[0].command[0]", 24, "expected text", 'quote it: "1:30"'),
    (
        "port: http,",
        "port: https,",
        "spec.components[0].probes.startup.http.port",
        28,
        "no port named",
        "http",
    ),
    ("500ms", "5", "spec.components[0].probes.startup.period", 28, "expected text", "a duration such as"),
    (
        "- name: http",
        "- name: http\n          port: 70000",
        "spec.components[0].ports[0].port",
        27,
        "65535 or less",
        "",
    ),
    (
        "startup: {",
        "startup: {oops: 1, ",
        "spec.components[0].probes.startup.oops",
        28,
        "unknown field",
        "known here",
    ),
    ("version: 1.0.0", "version: 1.0.0\n  version: 2.0.0", "spec.version", 22, "there twice", "line 21"),
    ("version: 1.0.0", "version: !!binary aaaa", "spec.version", 21, "unknown tag", "plain text"),
)


@pytest.mark.parametrize(("good", "bad", "path", "line", "message", "hint"), SEEDED)
def test_each_error_is_told_with_its_path_line_and_remedy(
    good: str, bad: str, path: str, line: int, message: str, hint: str
) -> None:
    assert good in GOOD
    told = {problem.path: problem for problem in problems_of(GOOD.replace(good, bad, 1))}
    assert path in told, told
    problem = told[path]
    assert (problem.line, problem.file) == (line, "site.yaml")
    assert message in problem.message
    assert hint in problem.hint
    assert "^" not in problem.message, "a regular expression is no explanation"


def test_all_errors_of_all_documents_are_told_at_once() -> None:
    text = GOOD
    # These do not hide each other: they are errors of the schema, in two documents.
    seeds = [
        seed for seed in SEEDED if seed[4] in ("unknown field", "expected text", "a size such as 512MiB")
    ]
    chosen: dict[str, tuple[str, str, str, int, str, str]] = {seed[0]: seed for seed in seeds}
    for good, bad, *_ in chosen.values():
        text = text.replace(good, bad, 1)
    told = {(problem.path, problem.line) for problem in problems_of(text)}
    assert {(path, line) for _, _, path, line, *_ in chosen.values()} <= told


def test_problems_are_told_in_the_order_of_the_lines() -> None:
    lines = [problem.line for problem in problems_of(GOOD.replace("name:", "nmae:"))]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    (
        ("kind: Site\nmetadata: [1,\n  2\n", 4, "did not find expected ',' or ']'"),
        ("kind: Site\nmetadata:\n\tname: x\n", 3, "column 1"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: \x00", 1, "control characters"),
        ("- 1\n- 2\n", 1, "expected a document, got a list"),
        ("just text", 1, 'expected a document, got "just text"'),
        ("metadata: {name: x}", 1, "is missing"),
        ("? [a]\n: b\n", 1, "a key that is not text"),
        ("kind: Site\nmetadata: {name: x, labels: {a: .nan}}", 2, "not a number"),
        (f"kind: Site\nmetadata: {{name: x, labels: {{a: {10**30}}}}}", 2, "more than 64 bits"),
    ),
)
def test_what_is_no_document_is_told_with_its_line(text: str, line: int, message: str) -> None:
    problems = problems_of(text)
    assert [line, True] == [problems[0].line, message in problems[0].message], problems


def test_text_that_looks_like_an_instant_stays_text() -> None:
    (parsed,) = parse_documents("kind: Site\nmetadata: {name: x, labels: {since: 2026-01-31}}")
    assert parsed.document.metadata.labels == {"since": "2026-01-31"}


def test_aliases_and_merges_may_be_used() -> None:
    text = """\
kind: Site
metadata: {name: a, labels: &labels {region: north}}
spec: {<<: {time_zone: Europe/Zurich, offline_tolerance: 1m}, offline_tolerance: 2m, variables: *labels}
"""
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Site)
    assert parsed.document.spec.time_zone == "Europe/Zurich"
    assert parsed.document.spec.offline_tolerance == "2m"
    assert parsed.document.spec.variables == {"region": "north"}


def test_aliases_cannot_be_used_to_exhaust_memory() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    begun = time.monotonic()
    assert "aliases counted as often as used" in only_problem_of("\n".join(rows)).message
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("text", ("&a [*a]", "&a {x: *a}", "a: &a {<<: *a}"))
def test_an_alias_inside_itself_is_refused(text: str) -> None:
    assert "nested deeper" in only_problem_of(text).message


@pytest.mark.parametrize("opening", ("[", "- ", "{a: "))
def test_deep_nesting_is_refused_before_anything_is_built(opening: str) -> None:
    assert f"deeper than {MAX_DEPTH}" in only_problem_of(opening * 100_000).message


def test_a_text_that_is_too_long_is_refused_unread() -> None:
    assert str(MAX_TEXT_BYTES) in only_problem_of("x" * (MAX_TEXT_BYTES + 1)).message
    with pytest.raises(DocumentRejected, match=str(MAX_TEXT_BYTES)):
        decode_text(b"x" * (MAX_TEXT_BYTES + 1))


def test_a_file_that_is_not_utf_8_is_refused_with_its_line() -> None:
    with pytest.raises(DocumentRejected) as caught:
        decode_text(b"kind: Site\nmetadata: {name: z\xfcrich}", file="a.yaml")
    assert (caught.value.problems[0].line, caught.value.problems[0].file) == (2, "a.yaml")
    assert decode_text(b"\xef\xbb\xbfkind: Site") == "kind: Site", "a byte order mark is no content"


def test_very_many_problems_are_counted_not_listed() -> None:
    labels = "\n".join(f"    k{n}: {n}" for n in range(1000))
    problems = problems_of(f"kind: Site\nmetadata:\n  name: x\n  labels:\n{labels}\n")
    assert len(problems) == MAX_PROBLEMS + 1
    assert "more problems" in problems[-1].message


def test_a_place_with_dots_in_its_keys_is_found() -> None:
    leaf = Place(3)
    place = Place(1, children={"a": Place(2, children={"b.c/d": leaf, "b": Place(9)})})
    assert place.find("a.b.c/d") is leaf
    assert place.find("a.b.x").line == 9
    assert place.find("a.nothing[3].there").line == 2


def test_json_values_are_checked_like_text() -> None:
    assert isinstance(parse_raw({"kind": "Site", "metadata": {"name": "x"}}), Site)
    with pytest.raises(DocumentRejected) as caught:
        parse_raw({"kind": "Site", "metadata": {"nmae": "x"}, "spec": {"time_zone": 5}})
    assert {problem.path for problem in caught.value.problems} == {
        "metadata.nmae",
        "metadata.name",
        "spec.time_zone",
    }
    with pytest.raises(DocumentRejected, match="Nowhere"):
        parse_raw({"kind": "Site", "metadata": {"name": "x"}, "spec": {"time_zone": "Nowhere"}})


def test_a_whole_number_is_written_as_one() -> None:
    # JSON Schema takes 80.0 for a whole number; the types do not.
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(GOOD.replace("- name: http", "- {name: http, port: 80.0}"))
    assert [(p.path, p.line) for p in caught.value.problems] == [("spec.components[0].ports[0].port", 26)]


def test_a_trailing_line_end_does_not_slip_through_a_pattern() -> None:
    with pytest.raises(DocumentRejected, match="lower-case letters"):
        parse_raw({"kind": "Site", "metadata": {"name": "zurich\n"}})


def test_the_published_schema_takes_good_documents_and_refuses_bad_ones() -> None:
    validator = jsonschema_rs.validator_for(json_schema())
    for document in yaml.safe_load_all(GOOD):
        assert document is None or validator.is_valid(document)
    assert not validator.is_valid({"kind": "Site", "metadata": {"name": "x", "oops": 1}})
    assert not validator.is_valid({"kind": "Sites", "metadata": {"name": "x"}})
    assert set(KINDS) <= set(json_schema()["$defs"])


# What parsing must survive: anything at all.

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(
    (
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "labels",
        "spec",
        "version",
        "components",
        "variants",
        "probes",
        "startup",
    )
)
likely_values: st.SearchStrategy[Any] = st.recursive(
    json_values | st.sampled_from((*KINDS, "skerry/v1", "x", "1GiB", "5m", "a@1")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(field_names, inner, max_size=6),
    max_leaves=20,
)
yaml_words: tuple[str, ...] = (
    "a",
    ": ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<",
    "---\n",
    "!!int ",
    "!x ",
    "'",
)
yaml_words += (
    '"',
    "|",
    "kind: Site\n",
    "metadata: ",
    "1e999",
    "0x",
    "? ",
    "#",
    "\t",
    "%YAML 1.1\n",
    "\u2028",
    "~",
)
yaml_pieces = st.lists(st.sampled_from(yaml_words), max_size=40).map("".join)


def told(error: DocumentRejected) -> bool:
    """A refusal that says nothing would be as bad as a crash."""
    return bool(error.problems) and all(problem.message for problem in error.problems)


def survives(text: str) -> None:
    try:
        parse_documents(text, file="f")
    except DocumentRejected as error:
        assert told(error)  # noqa: PT017 - either outcome is right


@given(st.text())
@example("\ud800")
@example("a: !!int ''")
@example("!!bool x")
@example("!!map x")
@example("!!str [a]")
@example("1: {2: 3}")
@example("'': {'': 1}")
def test_no_text_raises_anything_but_document_rejected(text: str) -> None:
    survives(text)


@given(yaml_pieces)
def test_no_yaml_raises_anything_but_document_rejected(text: str) -> None:
    survives(text)


@given(st.binary())
def test_no_bytes_raise_anything_but_document_rejected(content: bytes) -> None:
    try:
        survives(decode_text(content))
    except DocumentRejected as error:
        assert told(error)  # noqa: PT017 - either outcome is right


@given(likely_values)
def test_no_document_raises_anything_but_document_rejected(value: Any) -> None:
    survives(json.dumps(value))
    survives(json.dumps({"kind": "Site", "metadata": value, "spec": value}))


@given(st.sampled_from(tuple(KINDS)), st.dictionaries(field_names, likely_values))
def test_no_json_value_raises_anything_but_document_rejected(kind: str, value: dict[str, Any]) -> None:
    try:
        parse_raw({"kind": kind, **value})
    except DocumentRejected as error:
        assert told(error)  # noqa: PT017 - either outcome is right


@given(st.integers(0, len(GOOD)), st.integers(0, 20), st.text(max_size=5))
def test_no_damage_to_a_good_document_raises_anything_else(start: int, length: int, put: str) -> None:
    survives(GOOD[:start] + put + GOOD[start + length :])
