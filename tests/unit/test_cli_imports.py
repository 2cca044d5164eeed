"""Help is quick: it names every command without importing what the commands need."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import click
import pytest

from skerry.cli.main import SECTIONS, cli

HEAVY = (
    "httpx2",
    "msgspec",
    "rich",
    "sqlalchemy",
    "litestar",
    "starlette",
    "cryptography",
    "yaml",
    "jsonschema_rs",
    "ssl",
)
# A bare interpreter has some 60 modules; click and what it needs are most of the rest.
MOST_MODULES = 200

PROBE = """
import json, sys
from skerry.cli.main import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""

OWN = {name for entries in SECTIONS.values() for name in entries} - {"hub", "agent"}


def imported_by(*arguments: str) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    *shown, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["code"] == 0, done.stderr
    return "\n".join(shown), found["modules"]


@pytest.mark.parametrize("arguments", (("--help",), ("--version",), ("-h",)))
def test_help_and_version_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    _, modules = imported_by(*arguments)
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []
    assert len(modules) < MOST_MODULES
    assert [name for name in modules if name.startswith("skerry.cli.")] == [
        "skerry.cli.invocation",
        "skerry.cli.lazy",
        "skerry.cli.main",
    ]


def test_help_names_every_command_in_one_line_each() -> None:
    shown, _ = imported_by("--help")
    for entries in SECTIONS.values():
        for name, entry in entries.items():
            assert f"\n  {name} " in shown
            assert entry.help.split()[0] in shown


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_help_says_of_a_command_is_what_the_command_says(name: str) -> None:
    entry = next(entries[name] for entries in SECTIONS.values() if name in entries)
    command = getattr(import_module(entry.module), name)
    assert isinstance(command, click.Command)
    assert command.name == name


def commands_below(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            found += commands_below(child, f"{path} {name}")
    return found


def test_every_command_shows_an_example() -> None:
    with click.Context(cli) as context:
        for name in OWN:
            command = cli.get_command(context, name)
            assert command is not None
            for path, found in commands_below(command, f"skerry {name}"):
                text = found.get_help(click.Context(found, info_name=path))
                assert "Example" in text, path
                assert "skerry " in text.split("Example")[1], path


def test_completion_of_names_imports_no_command() -> None:
    code = (
        "import os, sys; from skerry.cli.main import run\n"
        "try:\n    run([])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('skerry.cli.')))"
    )
    environment = {
        "_SKERRY_COMPLETE": "bash_complete",
        "COMP_WORDS": "skerry re",
        "COMP_CWORD": "1",
        "PATH": "/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert "plain,release" in done.stdout
    assert "skerry.cli.release" not in done.stdout
