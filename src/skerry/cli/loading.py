"""Documents from files, folders and standard input, with all their problems at once."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.documents import kind_of
from skerry.spec.parsing import Parsed, decode_text, parse_documents
from skerry.spec.problems import DocumentRejected, Problem

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


def load_documents(names: Sequence[str]) -> list[Parsed]:
    """Return all documents of these files, folders (with all below them) and `-`, standard input.

    Raises:
        DocumentRejected: with every problem of every file.
        Rejected: a file cannot be read, or there is nothing in them.
    """
    parsed: list[Parsed] = []
    problems: list[Problem] = []
    for file, content in _contents(names):
        try:
            parsed += parse_documents(decode_text(content, file=file), file=file)
        except DocumentRejected as error:
            problems += error.problems
    problems += _twice(parsed)
    if problems:
        raise DocumentRejected(problems)
    if not parsed:
        raise Rejected("documents.none", f"no documents in {', '.join(names)}")
    return parsed


@contextmanager
def located(parsed: Sequence[Parsed]) -> Generator[None]:
    """Say of problems that the hub finds in these documents in which file and line they are."""
    there = {f"{kind_of(p.document)} {p.document.metadata.name}": p for p in parsed}
    try:
        yield
    except DocumentRejected as error:
        raise DocumentRejected([_located(problem, there) for problem in error.problems]) from None


def _located(problem: Problem, there: Mapping[str, Parsed]) -> Problem:
    document, _, path = problem.path.partition(": ")
    written = there.get(document)
    if written is None or problem.file:
        return problem
    found = written.problem_at(path, problem.message, problem.hint)
    return msgspec.structs.replace(found, path=problem.path)


def refuse_release_parts(parsed: Sequence[Parsed]) -> None:
    """Raise DocumentRejected for Applications and Models: they come to the hub as releases."""
    hint = "push it as a release: skerry release push FILE"
    problems = [
        p.problem_at("kind", f"{kind_of(p.document)} {p.document.metadata.name} is part of a release", hint)
        for p in parsed
        if kind_of(p.document) in ("Application", "Model")
    ]
    if problems:
        raise DocumentRejected(problems)


def _contents(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            yield "stdin", sys.stdin.buffer.read()
            continue
        for path in _files(Path(name)):
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                raise Rejected("documents.unreadable", f"{path}: {error.strerror}") from None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in _SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise Rejected("documents.none", f"no *.yaml, *.yml or *.json below {path}")
    return found


def _twice(parsed: Sequence[Parsed]) -> Iterator[Problem]:
    """Two documents of one name in one run: which of them would win must not depend on the order of files."""
    first: dict[tuple[str, str, str], Parsed] = {}
    for p in parsed:
        # Applications and Models exist in many versions at once.
        version = getattr(p.document.spec, "version", "")
        key = (kind_of(p.document), p.document.metadata.name, version)
        if key in first:
            where = f"{first[key].file}:{first[key].line}"
            yield p.problem_at(
                "metadata.name", f"{key[0]} {key[1]} is there twice", f"it is at {where} already"
            )
        first.setdefault(key, p)
