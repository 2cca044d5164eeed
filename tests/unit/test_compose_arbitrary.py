"""Whatever a Compose file holds becomes an Application or problems; nothing makes the converter fall over."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from skerry.client.compose.keys import KEYS
from skerry.spec.parsing import parse_documents
from tests.unit.compose_files import convert

_words = st.one_of(
    st.sampled_from(["", "a", "a:b", "/a:/b", "data:/x", "8080:80", "0-1", "host", "${A", "${A:-${B}}", "$$", "1m",
                     "-1", "nan", "ALL", "/dev/a:/dev/a:r", "CMD", "x" * 5000, "a=b", "\u2028", "é", "[", "no"]),
    st.text(max_size=12),
)  # fmt: skip
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_words, inner, max_size=4)),
    max_leaves=8,
)


def _shaped(table: str) -> st.SearchStrategy[object]:
    """Return mappings with the keys of a table, the inner ones shaped by their own tables, or anything at all."""
    keys: dict[str, st.SearchStrategy[object]] = {}
    for key in KEYS[table]:
        inner = f"{table}.{key}" if table else key
        shapes: list[st.SearchStrategy[object]] = [_values]
        for suffix in ("", "[]", ".*"):
            if inner + suffix in KEYS:
                shaped = st.deferred(lambda name=inner + suffix: _shaped(name))  # type: ignore[misc]
                wrapped = {
                    "": shaped,
                    "[]": st.lists(shaped, max_size=2),
                    ".*": st.dictionaries(_words, shaped, max_size=2),
                }
                shapes.append(wrapped[suffix])
        keys[key] = st.one_of(shapes)
    return st.fixed_dictionaries({}, optional=keys)


@settings(deadline=None, max_examples=300)
@given(_shaped(""), st.booleans())
def test_arbitrary_compose_values_give_a_document_or_problems(value: object, keep: bool) -> None:
    text = json.dumps(value)
    made = convert(text, {"A": "${B}"}, site="B", keep_default_capabilities=keep)
    if made.problems:
        assert made.document == {} and made.text == ""
    else:
        (parsed,) = parse_documents(made.text)
        assert parsed.raw == made.document


@given(st.text(alphabet="{}[]:,-&*<!|>\n \t\"'#abc$1", max_size=60))
@example("services: &a\n  b: *a")
@example("services: {a: {image: x, image: y}}")
@example("--- 1\n--- 2")
@example("services: {? [a] : b}")
def test_arbitrary_text_gives_a_document_or_problems(text: str) -> None:
    made = convert(text)
    assert bool(made.problems) != bool(made.document)


def test_bombs_of_aliases_depth_and_size_are_refused() -> None:
    aliases = "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9))
    for text in (f"x0: &x0 [a]\n{aliases}", "[" * 500 + "]" * 500, "a: " + "x" * (5 << 20)):
        (problem,) = convert(text).problems
        assert problem.hint
