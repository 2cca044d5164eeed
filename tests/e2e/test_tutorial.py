"""The tutorial does what it says: its commands are taken from the page and run, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.testing.processes import processes_of
from tests.e2e.tutorials import ROOT, Reader, commands

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "tutorials" / "first-site.md"
FAILS = ("skerry rollout watch meter-reader-1-2-0",)


def test_the_tutorial_works_line_by_line(tmp_path: Path) -> None:
    lines = list(commands(PAGE))
    assert len(lines) > 25
    reader = Reader(tmp_path, fails=FAILS)
    try:
        for line in lines:
            here = reader.endpoint("meter-reader", "reader") if "127.0.0.1:PORT" in line else ""
            reader.follow(line.replace("127.0.0.1:PORT", here))
    finally:
        reader.close()
    assert processes_of(tmp_path) == {}
