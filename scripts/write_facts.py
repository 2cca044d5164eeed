"""Write the table in docs/reference/facts.md from the code's own table. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from skerry.spec.fact_names import FACT_NAMES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "facts.md"
HEAD = "| fact | type | what | source | example |\n|---|---|---|---|---|\n"


def page_text() -> str:
    """Return the page with the table as it ought to be; all else on it stays."""
    before, head, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    after = "\n".join(line for line in rest.split("\n") if not line.startswith("|"))
    rows = "".join(
        f"| `{entry.name}` | {entry.kind} | {entry.meaning} | {entry.source} | `{entry.example}` |\n"
        for entry in FACT_NAMES
    )
    return before + head + rows + after


if __name__ == "__main__":
    PAGE.write_text(page_text(), encoding="utf-8")
