"""The style of the house, as far as a program can see it. What ruff, mypy and import-linter check is not repeated."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 500
MAX_PARAMETERS = 6
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "base", "misc"}
TEXT_SUFFIXES = {
    "", ".cfg", ".css", ".html", ".in", ".ini", ".js", ".json", ".lock", ".md", ".py", ".sh", ".toml", ".ts", ".tsx",
    ".txt", ".yaml", ".yml",
}  # fmt: skip

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a path of a developer's machine": re.compile(
        r"(?<![\w.-])/" + r"(home|Users)/\w+|(?<![\w./-])/" + r"root/\w+"
    ),
    "a folder of one build machine": re.compile(
        r"(?<![\w.-])/" + r"(work|workspace|opt/pypi\S*|opt/wheels)/"
    ),
    "a mark of an unfinished merge": re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE),
}

SOURCES = sorted((ROOT / "src").rglob("*.py"))


@cache
def project_files() -> tuple[Path, ...]:
    """Return the project's own text files: what git tracks or would, without git the same by folder."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0 and listing.stdout:
        names = listing.stdout.decode().split("\0")
        files = [ROOT / name for name in names if name]
    else:
        folders = ("src", "tests", "docs", "scripts", "examples", ".ci")
        files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
        files += list(ROOT.glob("*"))
    skipped = {"build", "_build", "generated", "__pycache__"}
    return tuple(
        path
        for path in sorted(files)
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not skipped & set(path.relative_to(ROOT).parts)
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Everything that people read and change here, tests and tools as well.
OWN_CODE = [path for path in project_files() if path.suffix == ".py"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def parameters_of(function: Function) -> list[str]:
    """Return the names of what a caller hands over one by one: without `self` and `cls`, `*` and `**`."""
    known = function.args
    names = [argument.arg for argument in (*known.posonlyargs, *known.args, *known.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("path", OWN_CODE, ids=name_of)
def test_functions_fit_a_screen_and_take_few_parameters(path: Path) -> None:
    wrong: list[str] = []
    for function in functions_of(path):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            wrong.append(f"{name_of(path)}:{function.lineno} {function.name}: {lines} lines")
        if len(parameters_of(function)) > MAX_PARAMETERS:
            wrong.append(f"{name_of(path)}:{function.lineno} {function.name}{parameters_of(function)}")
    assert wrong == []


def test_files_are_one_thought() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in OWN_CODE}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_names_of_modules_say_something() -> None:
    vague = [
        name_of(path) for path in SOURCES if VAGUE_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)
    ]
    assert vague == []


def test_every_module_says_its_job() -> None:
    silent = [
        name_of(path)
        for path in SOURCES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_type_only_imports_dodge_no_cycle() -> None:
    dodging: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                imports = [ast.unparse(child) for child in node.body]
                dodging += [f"{name_of(path)}: {line}" for line in imports if "skerry" in line]
    assert dodging == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found: list[str] = []
    for path in project_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in FORBIDDEN[what].finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name_of(path)}:{line}: {match[0]}")
    assert found == []


def test_the_lock_file_names_public_addresses_only() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
    assert "file://" not in (ROOT / "uv.lock").read_text(encoding="utf-8")
