"""`skerry init --from-compose` writes what was converted, and the reference shows the table that converts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from skerry.cli.init import init
from skerry.cli.invocation import Invocation
from skerry.cli.main import run
from skerry.client.compose.keys import render_tables
from tests.unit.compose_files import DETECTOR, SHOP, service

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "compose.md"


def call(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(init, list(arguments), input=stdin, obj=Invocation())
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_writes_what_it_converted_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(SHOP)
    (tmp_path / ".env").write_text("UNUSED=1\n")
    target = tmp_path / "release.yaml"
    arguments = ["init", "--from-compose", str(tmp_path / "compose.yaml"), "--to", str(target)]
    assert run([*arguments, "--dry-run"]) == 0
    assert not target.exists()
    assert run([*arguments, "--version", "2.0.0"]) == 0
    first = target.read_text()
    assert "version: 2.0.0" in first
    assert run(arguments) != 0
    assert target.read_text() == first
    assert run([*arguments, "--force"]) == 0
    assert "version: 0.1.0" in target.read_text()


def test_the_command_reads_variables_beside_the_file_and_of_the_shell_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(service("user: ${WHO}"))
    monkeypatch.setenv("WHO", "shell")
    assert run(["init", "--from-compose", str(file)]) == 2
    assert "user: shell" in call("--from-compose", str(file), "--use-environment")[1]
    (tmp_path / ".env").write_text("WHO=beside\n")
    assert "user: beside" in call("--from-compose", str(file))[1]
    (tmp_path / "other").write_text("WHO=other\n")
    assert "user: other" in call("--from-compose", str(file), "--env-file", str(tmp_path / "other"))[1]


def test_json_holds_document_notes_and_problems() -> None:
    code, shown = call("--from-compose", "-", "-o", "json", stdin=SHOP)
    told = json.loads(shown)
    assert code == 0 and told["problems"] == [] and told["document"]["kind"] == "Application"
    assert {"path", "text", "component", "line"} == set(told["notes"][0])
    code, shown = call("--from-compose", "-", "-o", "json", stdin=DETECTOR)
    told = json.loads(shown)
    assert code == 2 and told["document"] == {} and len(told["problems"]) == 6


def test_the_reference_shows_the_table_that_the_converter_uses() -> None:
    assert REFERENCE.read_text(encoding="utf-8").endswith(render_tables())
