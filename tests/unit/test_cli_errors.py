"""How commands fail: what is wrong, what to do, and an exit code that says which kind of failure it was."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.cli.failures import error_text, unexpected
from skerry.cli.main import run
from skerry.kit.errors import FAMILIES, Bug
from tests.unit.cli_session import log_in, logged_in_hub
from tests.unit.hub_double import HubDouble


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


def test_without_a_login_it_says_how_to_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKERRY_CONFIG", str(tmp_path / "none.json"))
    assert run(["get", "sites"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: no login in ")
    assert "hint: log in first: skerry login URL" in shown.err


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_each_family_has_its_exit_code_and_keeps_message_and_hint(
    family: str, hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = FAMILIES[family]
    hub.refuse(
        "GET /sites", kind.http_status, title=family, code="x.y", detail="what is wrong", hint="do this"
    )
    assert run(["get", "sites"]) == kind.exit_code
    assert capsys.readouterr().err == "error: what is wrong\nhint: do this\n"


def test_errors_are_json_when_json_was_asked_for(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hub.refuse(
        "GET /sites/x", 404, title="missing", code="site.missing", detail="no site x", facts={"site": "x"}
    )
    assert run(["get", "sites", "x", "-o", "json"]) == 4
    told = json.loads(capsys.readouterr().err)
    assert (told["error"], told["family"], told["exit_code"]) == ("site.missing", "missing", 4)
    assert told["facts"] == {"site": "x"}
    assert not told["retryable"]


def test_facts_named_like_parts_of_an_error_do_no_harm(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuse("GET /sites", 409, title="conflict", code="a.b", facts={"code": "x", "hint": "y", "self": 1})
    assert run(["get", "sites"]) == 5


def test_a_hub_that_is_away_is_unavailable_with_a_hint(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.url = "https://127.0.0.1:9"
    log_in(tmp_path / "private" / "config.json", hub)
    assert run(["get", "sites"]) == 69
    error = capsys.readouterr().err
    assert error.startswith("error: cannot reach https://127.0.0.1:9: ")
    assert "hint: is the hub running" in error


def test_an_answer_that_is_no_hubs_is_not_taken_for_one(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/sites"] = [{"unlike": "a site"}]
    assert run(["get", "sites"]) == 70
    assert "compare `skerry --version` on both" in capsys.readouterr().err


def test_every_problem_of_every_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.yaml").write_text("kind: Site\nmetadata: {nmae: a}\n")
    (folder / "b.yml").write_text("kind: Site\nmetadata:\n  name: B\n")
    (folder / "c.json").write_text("{")
    (folder / "notes.txt").write_text("not a document")
    assert run(["apply", "-f", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "4 problems in the documents" in error
    assert f"{folder}/a.yaml:2: metadata.nmae: unknown field nmae\n      did you mean name?" in error
    assert f"{folder}/b.yml:3: metadata.name: " in error
    assert f"{folder}/c.json:2: not YAML" in error


def test_parts_of_a_release_are_sent_to_release_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(
        "kind: Application\nmetadata: {name: a}\nspec: {version: '1', components: [{name: c, command: [x]}]}\n"
    )
    assert run(["apply", "-f", str(path)]) == 2
    assert "skerry release push" in capsys.readouterr().err


def test_one_document_in_two_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("kind: Site\nmetadata: {name: same}\n")
    assert run(["diff", "-f", str(tmp_path)]) == 2
    assert f"it is at {tmp_path}/a.yaml:1 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    (
        ("lgin",),
        ("get", "nothing"),
        ("get", "sites", "--site", "x"),
        ("delete",),
        ("delete", "token", "x"),
        ("token", "create", "ci", "--role", "king"),
        ("site", "create", "a", "--label", "no-value"),
        ("site", "token", "a", "--ttl", "soon"),
        ("apply",),
    ),
)
def test_wrong_usage_has_exit_code_two_and_points_at_help(
    arguments: tuple[str, ...], hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "--help" in error or "-h" in error


def test_a_misspelt_command_is_told_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lgin"]) == 2
    assert "login" in capsys.readouterr().err


def test_a_bug_says_so_in_one_line_and_shows_its_traceback_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SKERRY_DEBUG", raising=False)
    # A standard input without bytes is something no code expects: it stands for every bug.
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(["apply", "-f", "-"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("error: this is a bug in skerry: AttributeError")
    assert "skerry --debug" in error
    assert "Traceback" not in error
    assert run(["--debug", "apply", "-f", "-"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_library_is_no_bug_but_an_install_to_complete() -> None:
    found = unexpected(ModuleNotFoundError("No module named 'rich'", name="rich"))
    assert (found.family, "skerry[hub]" in found.hint) == ("rejected", True)
    assert unexpected(ModuleNotFoundError("x", name="skerry.nowhere")).family == "bug"


def test_a_bug_of_the_hub_points_at_the_hubs_log() -> None:
    assert "the hub's log" in error_text(Bug("hub.oops", "it broke"))


def test_what_an_error_says_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in error_text(Bug("x", "a\x1b[2Jb", hint="\x1b[31m"))


def test_an_interruption_ends_with_130(hub: HubDouble) -> None:
    hub.views["/sites"] = []
    process = subprocess.Popen(
        [sys.executable, "-c", "from skerry.cli.main import main; main()", "get", "sites", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "no sites\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error
