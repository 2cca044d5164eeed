"""Every promise in docs/rules has a test that proves it, and every test that says it proves one names a promise."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_heading_re = re.compile(r"^## ([A-Z]+-[0-9]+): \S", re.MULTILINE)


def promised() -> list[str]:
    """Return the ids of all rules, in the order of the pages."""
    pages = sorted((ROOT / "docs/rules").glob("*.md"))
    return [rule for page in pages for rule in _heading_re.findall(page.read_text(encoding="utf-8"))]


@functools.cache
def marked() -> dict[str, list[str]]:
    """Return, by rule, the tests that are marked with it."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for rule, test in marks_of(ast.parse(file.read_text(encoding="utf-8"))):
            found.setdefault(rule, []).append(f"{file.relative_to(ROOT)}::{test}")
    return found


def marks_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (rule, where) of every `pytest.mark.rule("...")`, as decorator, in `pytestmark` or in a parameter set."""
    for owner in ast.walk(tree):
        if isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in owner.decorator_list:
                yield from ((rule, owner.name) for rule in _rules_in(decorator))
        elif isinstance(owner, ast.Assign | ast.Call):
            is_mark_of_module = isinstance(owner, ast.Assign) and "pytestmark" in ast.unparse(
                owner.targets[0]
            )
            is_parameters = isinstance(owner, ast.Call) and ast.unparse(owner.func) == "pytest.param"
            if is_mark_of_module or is_parameters:
                yield from ((rule, ast.unparse(owner)[:60]) for rule in _rules_in(owner))


def _rules_in(node: ast.AST) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.rule":
            for argument in call.args:
                assert isinstance(argument, ast.Constant), (
                    "a rule's id is written out, so that it can be found"
                )
                yield str(argument.value)


def test_rules_have_ids_of_their_own() -> None:
    assert promised()
    assert [rule for rule, count in Counter(promised()).items() if count > 1] == []


def test_every_second_heading_of_the_rules_is_a_rule() -> None:
    strays = [
        f"{page.name}: {line}"
        for page in sorted((ROOT / "docs/rules").glob("*.md"))
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("## ") and not _heading_re.match(line)
    ]
    assert strays == []


@pytest.mark.parametrize("rule", promised())
def test_a_rule_is_proven_by_a_test(rule: str) -> None:
    assert rule in marked(), f"no test is marked with @pytest.mark.rule({rule!r})"


def test_a_marked_rule_exists() -> None:
    unknown = {rule: tests for rule, tests in marked().items() if rule not in promised()}
    assert unknown == {}


def test_marks_are_found_wherever_pytest_takes_them() -> None:
    source = """
pytestmark = [pytest.mark.rule("A-1")]
@pytest.mark.rule("A-2")
async def test_one(): ...
class TestTwo:
    @pytest.mark.rule("A-3", "A-4")
    def test_three(self): ...
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.rule("A-5"))])
def test_four(x): ...
"""
    assert {rule for rule, _ in marks_of(ast.parse(source))} == {"A-1", "A-2", "A-3", "A-4", "A-5"}
