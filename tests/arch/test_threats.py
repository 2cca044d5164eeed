"""Every test that the page of threats names exists, and every row names one."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/internals/threats.md"
_test_re = re.compile(r"`([\w/]+\.py)::(\w+)`")
_rule_re = re.compile(r"\b([A-Z]+-[0-9]+)\b")


def rows() -> list[str]:
    """Return the rows of all tables, without heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| attack ")]


def named() -> list[tuple[str, str]]:
    return sorted(set(_test_re.findall(PAGE.read_text(encoding="utf-8"))))


@functools.cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize(("file", "test"), named(), ids=str)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert (ROOT / "tests" / file).is_file(), f"there is no tests/{file}"
    assert test in functions_of(file)


def test_every_row_says_the_answer_what_remains_and_the_test() -> None:
    assert len(rows()) > 20
    for row in rows():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4 and all(cells), row
        assert _test_re.search(cells[3]), f"no test: {row}"


def test_rules_that_are_named_exist() -> None:
    known = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/rules").glob("*.md"))
    missing = {
        rule for rule in _rule_re.findall(PAGE.read_text(encoding="utf-8")) if f"## {rule}:" not in known
    }
    assert missing == set()
