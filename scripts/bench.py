"""Run benchmarks: one JSON object per figure on stdout, progress on stderr, tables into docs/benchmarks.md.

A group of benchmarks is a module `tests/bench/bench_<name>.py`; see `tests/bench/figure.py`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
sys.path.insert(0, str(ROOT))

from tests.bench.figure import Figure  # noqa: E402 - the tests are importable only from here on


def main(arguments: list[str]) -> int:
    """Run the named groups, or all."""
    groups = {
        file.stem.removeprefix("bench_"): file for file in sorted((ROOT / "tests/bench").glob("bench_*.py"))
    }
    unknown = [name for name in arguments if name not in groups]
    if unknown:
        say(f"bench: no group {', '.join(unknown)}; there are: {', '.join(groups) or 'none yet'}")
        return 2
    for name in arguments or groups:
        run_group(name)
    return 0


def run_group(name: str) -> None:
    """Run one group, print its figures as they come, and rewrite its table."""
    module = importlib.import_module(f"tests.bench.bench_{name}")
    say(f"bench: {name}")
    begun = time.monotonic()
    measured: list[Figure] = []
    figures: Iterable[Figure] = module.figures()
    for figure in figures:
        measured.append(figure)
        print(json.dumps(figure._asdict()), flush=True)
        peer = f" ({figure.peer})" if figure.peer else ""
        say(f"  {figure.name}: {show_value(figure.value)} {figure.unit}{peer}")
    say(f"bench: {name} took {time.monotonic() - begun:.0f} s")
    PAGE.write_text(replace_section(PAGE.read_text(), name, render_section(name, module, measured)))


def render_section(name: str, module: ModuleType, figures: list[Figure]) -> str:
    """Return a group's text and table as Markdown."""
    summary = (inspect.getdoc(module) or "").partition("\n")[0]
    made = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {cpu_model()}, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}. Again: `make bench NAME={name}`."
    )
    rows = ["| figure | value | unit | compare |", "|---|---:|---|---|"]
    rows += [f"| {f.name} | {show_value(f.value)} | {f.unit} | {f.peer} |" for f in figures]
    return "\n\n".join(part for part in (f"## {name}", summary, made, "\n".join(rows)) if part)


def replace_section(page: str, name: str, section: str) -> str:
    """Return the page with the section between a group's markers replaced, or appended when it is new."""
    begin, end = f"<!-- bench:{name}:begin -->", f"<!-- bench:{name}:end -->"
    block = f"{begin}\n{section}\n{end}"
    before, found, rest = page.partition(begin)
    if not found:
        return f"{page.rstrip()}\n\n{block}\n"
    _, closed, after = rest.partition(end)
    if not closed:
        raise SystemExit(f"bench: {PAGE.name} has no line {end}")
    return before + block + after


def show_value(value: float) -> str:
    """Return a value for people: three significant digits, thousands separated."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cpu_model() -> str:
    """Return the processor's name and how many of its threads this process may use."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "Model"))
    ]
    count = len(os.sched_getaffinity(0))
    return f"{count} x {names[0] if names else platform.processor() or 'unknown processor'}"


def say(text: str) -> None:
    """Print progress on stderr: stdout is for programs."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
