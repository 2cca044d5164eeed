"""YAML text, or JSON values, to typed documents: with all problems at once, or not at all.

Each problem says where it is (file, line, path), what is expected and what to do. Three checks follow each
other: the schema made from the types (all errors of a document), the types themselves, and what types cannot
state (`check_document`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, cast

import jsonschema_rs
import msgspec

from skerry.spec.application import Application
from skerry.spec.configuration_schema import check_application_schema
from skerry.spec.documents import KINDS, AnyDocument, check_document
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.schema import kind_schema
from skerry.spec.wording import closest, problems_of, shown
from skerry.spec.yaml_tree import MAX_DEPTH, MAX_TEXT_BYTES, Place, read_trees

MAX_PROBLEMS = 200
"""More than these are counted, not listed: nobody reads them, and the first ones explain the rest."""


class Parsed(msgspec.Struct, frozen=True):
    """A document that is right: typed, as plain JSON values, and where it was written."""

    document: AnyDocument
    raw: dict[str, Any]
    line: int
    file: str
    place: Place

    def problem_at(self, path: str, message: str, hint: str = "") -> Problem:
        """Return a problem of this document, with the file and line of `path`."""
        return Problem(path, message, hint, self.file, self.place.find(path).line)


def decode_text(content: bytes, *, file: str = "") -> str:
    """Return the text of a file.

    Raises:
        DocumentRejected: it is too large or not UTF-8.
    """
    if len(content) > MAX_TEXT_BYTES:
        message = f"{len(content)} bytes are more than the {MAX_TEXT_BYTES} a text may have"
        raise DocumentRejected([Problem("", message, "split it into several files", file)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentRejected(
            [Problem("", "not UTF-8 text", "save the file as UTF-8", file, line)]
        ) from None


def parse_documents(text: str, *, file: str = "") -> list[Parsed]:
    """Return all documents of a YAML (or JSON) text; empty ones are left out.

    Raises:
        DocumentRejected: with every problem of every document in it.
    """
    parsed: list[Parsed] = []
    problems: list[Problem] = []
    for tree in read_trees(text, file=file):
        document, found = _parse_value(tree.value, tree.place)
        # What could not be built stands there as nothing; saying so twice would only confuse.
        told = {problem.path for problem in tree.problems}
        found = [msgspec.structs.replace(problem, file=file) for problem in found if problem.path not in told]
        found = sorted([*tree.problems, *found], key=lambda problem: problem.line)
        problems.extend(found)
        if document is not None and not found:
            parsed.append(Parsed(document, tree.value, tree.place.line, file, tree.place))
    if problems:
        raise _rejected(problems)
    return parsed


def parse_raw(value: dict[str, Any]) -> AnyDocument:
    """Return the document of JSON values, as an API receives them; its problems name no lines.

    Raises:
        DocumentRejected: with every problem of it.
    """
    if _is_deep(value):
        raise DocumentRejected([Problem("", f"nested deeper than {MAX_DEPTH} levels", "flatten it")])
    document, problems = _parse_value(value, None)
    if document is None or problems:
        raise _rejected(problems)
    return document


def _parse_value(value: Any, place: Place | None) -> tuple[AnyDocument | None, list[Problem]]:
    line = place.line if place else 0
    if not isinstance(value, dict):
        message = f"expected a document, got {shown(value)}"
        return None, [Problem("", message, "a document begins with apiVersion: and kind:", line=line)]
    kind: object = cast("dict[str, object]", value).get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        if place:
            line = place.find("kind").line
        message = f"unknown kind {shown(kind)}" if "kind" in value else "is missing"
        return None, [Problem("kind", message, closest(str(kind), list(KINDS)), line=line)]
    try:
        errors = list(_validator(kind).iter_errors(value))
    except ValueError as error:
        return None, [Problem("", f"cannot be read: {error}", line=line)]
    problems = [problem for error in errors for problem in problems_of(error, kind_schema(kind), place)]
    if problems:
        return None, problems
    try:
        document = msgspec.convert(value, type=KINDS[kind])
    except msgspec.ValidationError as error:
        return None, [_type_problem(error, place)]
    found = check_document(document)
    if isinstance(document, Application):
        found += check_application_schema(document.spec)
    if place:
        found = [msgspec.structs.replace(p, line=place.find(p.path).line) for p in found]
    return document, found


@cache
def _validator(kind: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(kind_schema(kind))


def _type_problem(error: msgspec.ValidationError, place: Place | None) -> Problem:
    """The few things in which JSON Schema is laxer than the types, such as 26.0 for a whole number."""
    message, _, where = str(error).partition(" - at `")
    path = re.sub(r"^(key in )?`?\$\.?", "", where).rstrip("`")
    return Problem(path, message.replace("`", ""), line=place.find(path).line if place else 0)


def _is_deep(value: object) -> bool:
    """Tell whether a value is nested deeper than a document may be, without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _parts(parent) if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    return cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)


def _rejected(problems: list[Problem]) -> DocumentRejected:
    left_out = len(problems) - MAX_PROBLEMS
    if left_out > 0:
        problems = [*problems[:MAX_PROBLEMS], Problem("", f"and {left_out} more problems")]
    return DocumentRejected(problems)
