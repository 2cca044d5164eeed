"""Processes that run for ever carry no libraries that only colour what people read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.cli.leaving_out import DECORATION, left_out

PROBE = """
import json, sys
from skerry.cli.main import run
run(sys.argv[1:])
found = sorted(name for name, module in sys.modules.items() if module is not None)
import rich.console, pygments
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    (
        (("agent", "run"), "skerry.agent.wiring.running"),
        (("hub", "serve", "--listen", "nowhere"), "skerry.hub.wiring.serving"),
    ),
)
def test_agent_and_hub_leave_out_decoration(arguments: tuple[str, ...], loaded: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments, "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert loaded in modules
    assert [name for name in modules if name.split(".")[0] in DECORATION] == []


def test_what_was_left_out_is_found_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with left_out("colorsys"), pytest.raises(ModuleNotFoundError):
        __import__("colorsys")
    assert __import__("colorsys").rgb_to_hsv


def test_what_was_there_before_stays() -> None:
    with left_out("json"):
        assert __import__("json") is json
