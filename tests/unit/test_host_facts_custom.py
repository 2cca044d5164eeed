"""Custom facts: what drop-ins may say, and all that they may do wrong without harm."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.facts import read_facts
from skerry.adapters.facts.custom import Wrong, detect_custom, parse_custom
from skerry.adapters.facts.findings import Findings
from skerry.spec.facts import FactValue
from skerry.testing.waiting import eventually_sync


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "facts.d"
    found.mkdir(mode=0o755)
    return found


@pytest.fixture
def drop_in(folder: Path) -> Callable[..., Path]:
    def write(name: str, text: str, mode: int = 0o755) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def asked(folder: Path, limit_s: float = 5.0) -> tuple[dict[str, FactValue], tuple[str, ...]]:
    found = Findings()
    detect_custom(found, folder, limit_s=limit_s)
    facts = {name: fact.value for name, fact in found.finish().items()}
    problems = facts.pop("problems", ())
    assert isinstance(problems, tuple)
    return facts, problems


def test_programs_and_files_state_facts_of_all_types(drop_in: Callable[..., Path], folder: Path) -> None:
    drop_in(
        "10-line.sh",
        '#!/bin/sh\necho "# the hall"\necho hall=3\necho line=left\necho lit=true\necho empty=\n',
    )
    drop_in(
        "20-plc.py",
        '#!/bin/sh\necho \'{"plc": "S7-1500", "inputs": ["a", "b"], "slots": 4, "safe": false}\'\n',
    )
    drop_in("30-site.json", '{"asset": "press-1", "hall": 4}', 0o644)
    facts, problems = asked(folder)
    assert facts == {
        "custom.hall": 4,  # the later name wins
        "custom.line": "left",
        "custom.lit": True,
        "custom.plc": "S7-1500",
        "custom.inputs": ("a", "b"),
        "custom.slots": 4,
        "custom.safe": False,
        "custom.asset": "press-1",
    }
    assert problems == ()


def test_custom_facts_are_part_of_the_hosts_and_name_their_file(
    tmp_path: Path, drop_in: Callable[..., Path]
) -> None:
    drop_in("site.json", '{"hall": 3}', 0o600)
    fact = read_facts(data=tmp_path)["custom.hall"]
    assert (fact.value, fact.source) == (3, "facts.d/site.json")


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    (
        ("#!/bin/sh\necho a=1\nexit 3\n", 0o755, "x.sh: ended with status 3"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, "x.sh: killed by signal 9"),
        ("#!/no/such/interpreter\n", 0o755, "x.sh: cannot be run: No such file or directory"),
        ("no program at all", 0o755, "x.sh: cannot be run: Exec format error"),
        ("#!/bin/sh\nhead -c 70000 /dev/zero\n", 0o755, "x.sh: wrote more than 64 KiB"),
        ("#!/bin/sh\nyes\n", 0o755, "x.sh: wrote more than 64 KiB"),
        ("#!/bin/sh\necho 'no facts here'\n", 0o755, "x.sh: 'no facts here' is not name=value"),
        ("#!/bin/sh\necho 'bad name=1'\n", 0o755, "x.sh: 'bad name' is no name of a fact"),
        ('#!/bin/sh\necho \'{"a": {"b": 1}}\'\n', 0o755, "x.sh: 'a' is no text"),
        ("#!/bin/sh\necho '{\"a\": 1.5}'\n", 0o755, "x.sh: 'a' is no text"),
        ("#!/bin/sh\necho '{'\n", 0o755, "x.sh: no JSON"),
        ("#!/bin/sh\necho a=1\n", 0o757, "x.sh: everybody may write it"),
        ("a=1\n", 0o644, "x.sh: is neither executable nor a .json file"),
    ),
)
def test_what_is_wrong_with_a_drop_in_is_told_and_hinders_no_other(
    drop_in: Callable[..., Path], folder: Path, text: str, mode: int, problem: str
) -> None:
    drop_in("x.sh", text, mode)
    drop_in("y.json", '{"hall": 3}', 0o644)
    facts, problems = asked(folder)
    assert facts == {"custom.hall": 3}
    assert len(problems) == 1 and problems[0].startswith(problem)


def test_a_program_that_hangs_is_ended_with_all_it_started(
    drop_in: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    drop_in("slow.sh", f"#!/bin/sh\nsleep 1000 &\necho $! > {note}\necho a=1\nwait\n")
    started = time.monotonic()
    facts, problems = asked(folder, limit_s=0.5)
    assert time.monotonic() - started < 5
    assert facts == {} and problems == ("slow.sh: took longer than 0.5 s",)
    assert is_gone(int(note.read_text()))


def test_a_program_whose_child_keeps_the_pipe_is_not_waited_for(
    drop_in: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    drop_in("daemon.sh", f"#!/bin/sh\nsleep 1000 &\necho $! > {note}\necho a=1\n")
    facts, problems = asked(folder)
    assert facts == {"custom.a": 1} and problems == ()
    assert is_gone(int(note.read_text()))


def is_gone(pid: int) -> bool:
    def gone() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"  # whoever adopted it has yet to look

    return eventually_sync(gone, what=f"the end of {pid}")


def test_programs_get_no_secrets_of_the_agent_no_input_and_a_bare_environment(
    drop_in: Callable[..., Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    drop_in("env.sh", "#!/bin/sh\necho secret=[$SECRET]\necho where=$(pwd)\ncat | wc -c | sed s/^/input=/\n")
    facts, _ = asked(folder)
    assert facts == {"custom.secret": "[]", "custom.where": str(folder), "custom.input": 0}


def test_nothing_of_a_directory_that_everybody_may_write_is_run(
    drop_in: Callable[..., Path], folder: Path
) -> None:
    drop_in("x.sh", "#!/bin/sh\necho a=1\n")
    folder.chmod(0o777)
    facts, problems = asked(folder)
    assert facts == {}
    assert "everybody may write this directory" in problems[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_program_of_another_user_is_refused(drop_in: Callable[..., Path], folder: Path) -> None:
    os.chown(drop_in("x.sh", "#!/bin/sh\necho a=1\n"), 12345, -1)
    assert asked(folder) == ({}, ("x.sh: belongs neither to root nor to the agent's user",))


def test_programs_run_some_at_a_time_and_only_so_many(drop_in: Callable[..., Path], folder: Path) -> None:
    for number in range(40):
        drop_in(f"{number:02}.sh", f"#!/bin/sh\necho n{number}=1\n")
    facts, problems = asked(folder)
    assert len(facts) == 32
    assert problems == ("facts.d: more than 32 drop-ins: 32.sh and later are not used",)


def test_values_are_cleaned_of_what_could_steer_a_terminal(
    drop_in: Callable[..., Path], folder: Path
) -> None:
    drop_in("x.json", '{"a": "red\\u001b[31m\\nnext", "b": "' + "x" * 5000 + '"}', 0o644)
    facts, _ = asked(folder)
    assert facts["custom.a"] == "red [31m next"
    assert len(str(facts["custom.b"])) == 256


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='{}[]":,=ab1.\n\\', max_size=60).map(str.encode)))
def test_any_output_is_facts_or_wrong(output: bytes) -> None:
    with contextlib.suppress(Wrong):
        assert all(isinstance(value, str | int | tuple) for value in parse_custom(output).values())
