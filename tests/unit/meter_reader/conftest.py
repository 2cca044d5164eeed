"""The meter-reader example as its tests need it: built once for all of them, without the bundle.

Nothing here imports the example's libraries, so that a test module can skip itself where they are not installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.meter_reader.building import EXAMPLE, build

# The tests import the example as its own build and its application do.
sys.path[:0] = [str(EXAMPLE), str(EXAMPLE / "app")]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("meter-reader") / "build"
    build(out)
    return out


@pytest.fixture(scope="session")
def figures(built: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((built / "report.json").read_text(encoding="utf-8"))
    models: dict[str, Any] = report["models"]
    return models


@pytest.fixture(scope="session")
def truth(built: Path) -> list[dict[str, Any]]:
    listing = json.loads((built / "counters" / "counters.json").read_text(encoding="utf-8"))
    counters: list[dict[str, Any]] = listing["counters"]
    return counters


@pytest.fixture
def counter_png(built: Path) -> bytes:
    return (built / "counters" / "counter-000.png").read_bytes()
