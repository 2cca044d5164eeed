"""What the README and the documentation tell people to type exists, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import click
import pytest

from skerry.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
# Pages that are made when the documentation is built.
MADE = ROOT / "docs/reference/generated"

_block_re = re.compile(r"^([ ]*)```(?:console|shell|bash|sh)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_link_re = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_fence_re = re.compile(r"^([ ]*)(`{3,}|~{3,}).*?^\1\2", re.MULTILINE | re.DOTALL)
_target_re = re.compile(r"^\(([\w-]+)\)=", re.MULTILINE)


class Shown(NamedTuple):
    """A command line on a page."""

    page: str
    line: str


def pages() -> list[Path]:
    """Return everything people read."""
    found = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*/*.md"),
    ]
    return sorted(page for page in found if "_build" not in page.parts and MADE not in page.parents)


def shown_commands() -> Iterator[Shown]:
    """Yield what pages show after a prompt, in blocks for a shell."""
    for page in pages():
        name = str(page.relative_to(ROOT))
        for _, block in _block_re.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                prompt = re.match(r"\s*[$#] (.*)", line)
                if prompt:
                    yield Shown(name, prompt[1])


def skerry_calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of skerry in a command line, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words = list(lexer)
    for index, word in enumerate(words):
        begins = index == 0 or is_separator(words[index - 1]) or words[max(index - 2, 0)] == "ssh"
        if not word.endswith("/bin/skerry") and not (word == "skerry" and begins):
            continue
        arguments: list[str] = []
        for argument in words[index + 1 :]:
            if is_separator(argument):
                break
            arguments.append(argument)
        yield arguments


def is_separator(word: str) -> bool:
    """Tell whether a word ends a command: a pipe, a redirection and the like."""
    return set(word) <= set("|&;<>")


def check_call(arguments: list[str]) -> None:
    """Parse a call as click would, without running it.

    Raises:
        click.UsageError: there is no such command or option, or something is missing.
    """
    command: click.Command = cli
    parent: click.Context | None = None
    name = "skerry"
    while True:
        context = command.make_context(name, list(arguments), parent=parent)
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        found_name, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        command, name, parent = found, found_name or "", context


CALLS = [
    pytest.param(arguments, id=f"{shown.page}: skerry {' '.join(arguments)}"[:120])
    for shown in shown_commands()
    for arguments in skerry_calls(shown.line)
    if arguments not in (["--help"], ["-h"])
]


def test_pages_show_commands() -> None:
    assert len(CALLS) > 30


@pytest.mark.parametrize("arguments", CALLS)
def test_a_shown_command_parses(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files that commands name need not be there: parsing is done where any name will do.
    monkeypatch.chdir(tmp_path)
    for argument in arguments:
        if re.search(r"\.ya?ml$", argument):
            (tmp_path / argument).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / argument).touch()
        elif argument.endswith("/"):
            (tmp_path / argument).mkdir(parents=True, exist_ok=True)
    check_call(arguments)


@pytest.mark.parametrize(
    "line",
    (
        "skerry nonsense",
        "skerry get sites --no-such-option",
        "skerry rollout start",
        "skerry site create a b",
    ),
)
def test_a_wrong_command_is_found(line: str) -> None:
    (arguments,) = skerry_calls(line)
    with pytest.raises(click.UsageError):
        check_call(arguments)


def test_calls_are_found_within_pipes_and_redirections() -> None:
    line = "skerry site token a > token && ssh h /opt/skerry/bin/skerry agent join - --data d < token"
    assert list(skerry_calls(line)) == [["site", "token", "a"], ["agent", "join", "-", "--data", "d"]]


def test_commands_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = {
        (str(page.relative_to(ROOT)), target)
        for page in pages()
        for target in re.findall(r"(?:\$ |`)make ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert {(page, target) for page, target in used if target not in targets} == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _fence_re.sub("", page.read_text(encoding="utf-8"))
    broken: list[str] = []
    for link in _link_re.findall(text):
        if re.match(r"^[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if MADE in target.parents:
            continue
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that headings and targets of a page make."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(_target_re.findall(text))
