"""Custom facts: what programs and files in a drop-in directory state, as `custom.NAME`.

Rules: a program runs without a shell, with a bare environment and within `LIMIT_S`; what it writes is bounded before
it is read; what it or others of its kind get wrong is a problem, and hinders nobody. What everybody may write is not
run, and a program must belong to the agent's user or to root. Files are taken in the order of their names; the later
one wins.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import msgspec

from skerry.adapters.facts.child import run_child
from skerry.adapters.facts.findings import Findings, tidy_value
from skerry.kit.canonical import UNREADABLE
from skerry.spec.facts import FactValue

FOLDER = "facts.d"
LIMIT_S = 5.0
OUTPUT_LIMIT_BYTES = 1 << 16
AT_ONCE = 4
FILES_LIMIT = 32
FACTS_LIMIT = 256

_name_re = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Wrong(Exception):
    """A drop-in that cannot be used, in one line."""


def detect_custom(found: Findings, folder: Path, *, limit_s: float = LIMIT_S) -> None:
    """Run and read all drop-ins, some at a time."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return  # there need not be one
    if folder.stat().st_mode & stat.S_IWOTH:
        found.add_problem(f"{FOLDER}: everybody may write this directory: nothing in it is run")
        return
    if len(names) > FILES_LIMIT:
        found.add_problem(
            f"{FOLDER}: more than {FILES_LIMIT} drop-ins: {names[FILES_LIMIT]} and later are not used"
        )
        names = names[:FILES_LIMIT]
    if not names:
        return
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="facts") as pool:
        told = list(pool.map(_ask, [folder / name for name in names], [limit_s] * len(names)))
    count = 0
    for name, answer in zip(names, told, strict=True):
        if isinstance(answer, str):
            found.add_problem(f"{name}: {answer}")
            continue
        for fact, value in answer.items():
            count += 1
            if count <= FACTS_LIMIT:
                found.add(f"custom.{fact}", value, f"{FOLDER}/{name}")
    if count > FACTS_LIMIT:
        found.add_problem(f"{FOLDER}: more than {FACTS_LIMIT} facts: the rest is left out")


def _ask(path: Path, limit_s: float) -> dict[str, FactValue] | str:
    """Return what one drop-in states, or what is wrong with it."""
    try:
        return parse_custom(_read(path, limit_s), lines=path.suffix != ".json" or os.access(path, os.X_OK))
    except Wrong as wrong:
        return str(wrong)
    except OSError as error:
        return error.strerror or "cannot be read"


def _read(path: Path, limit_s: float) -> bytes:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise Wrong("is no file")
    if state.st_mode & stat.S_IWOTH:
        raise Wrong("everybody may write it: chmod o-w")
    if state.st_mode & 0o111:
        if state.st_uid not in (0, os.geteuid()):
            raise Wrong("belongs neither to root nor to the agent's user")
        outcome = run_child(
            [str(path)],
            environment=_environment,
            limit_s=limit_s,
            limit_bytes=OUTPUT_LIMIT_BYTES,
            folder=path.parent,
        )
        if outcome.failure:
            raise Wrong(outcome.failure)
        return outcome.output
    if path.suffix != ".json":
        raise Wrong("is neither executable nor a .json file")
    with path.open("rb") as file:
        data = file.read(OUTPUT_LIMIT_BYTES + 1)
    if len(data) > OUTPUT_LIMIT_BYTES:
        raise Wrong(f"is larger than {OUTPUT_LIMIT_BYTES >> 10} KiB")
    return data


def parse_custom(data: bytes, *, lines: bool = True) -> dict[str, FactValue]:
    """Return the facts in a JSON object, or in `name=value` lines where those may be; `Wrong` says what is wrong."""
    pairs = _parse_lines(data) if lines and not data.lstrip().startswith(b"{") else _parse_json(data)
    found: dict[str, FactValue] = {}
    for name, value in pairs:
        if not _name_re.fullmatch(name):
            raise Wrong(f"{name[:64]!r} is no name of a fact")
        found[name] = value
    return found


def _parse_json(data: bytes) -> Iterator[tuple[str, FactValue]]:
    try:
        document: Any = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise Wrong(f"no JSON: {str(error)[:80]}") from error
    if not isinstance(document, dict):
        raise Wrong("no JSON object")
    for name, value in cast(dict[str, Any], document).items():
        kept: FactValue | None = None
        if isinstance(value, str | int) or (
            isinstance(value, list) and all(isinstance(item, str) for item in cast(list[Any], value))  # type: ignore[redundant-cast]
        ):
            kept = tidy_value(cast(FactValue, value))
        if kept is None:
            raise Wrong(
                f"{name[:64]!r} is no text, whole number, true, false or list of texts, or an empty one"
            )
        yield name, kept


def _parse_lines(data: bytes) -> Iterator[tuple[str, FactValue]]:
    for line in data.decode(errors="replace").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise Wrong(f"{text[:64]!r} is not name=value")
        yield name.strip(), parse_word(value.strip().strip('"'))


def parse_word(text: str) -> FactValue:
    """Return a number or a truth value for what looks like one, else the text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,14})", text):
        return int(text)
    return text
