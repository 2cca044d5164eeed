"""What is wrong with a document, in words: each schema error becomes problems that say what is expected.

A regular expression is never shown where the type has a description, and an unknown field names the known
one that it resembles.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from jsonschema_rs import ValidationError, ValidationErrorKind

from skerry.spec.problems import Problem
from skerry.spec.schema import Schema
from skerry.spec.yaml_tree import PathPart, Place, format_path

_type_names = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}
_limits = {
    "minLength": "at least {0} characters",
    "maxLength": "at most {0} characters",
    "minItems": "at least {0} entries",
    "maxItems": "at most {0} entries",
    "maxProperties": "at most {0} entries",
    "minimum": "{0} or more",
    "maximum": "{0} or less",
    "exclusiveMinimum": "more than {0}",
    "exclusiveMaximum": "less than {0}",
}


def problems_of(error: ValidationError, schema: Schema, place: Place | None) -> Iterator[Problem]:
    """Yield the problems behind one schema error; `place` None knows no lines."""
    kind, path = error.kind, tuple(error.instance_path)
    rules = _rules_of(error, schema)
    if isinstance(kind, ValidationErrorKind.AnyOf):
        yield from _any_of(error, kind, schema, place)
    elif isinstance(kind, ValidationErrorKind.AdditionalProperties):
        known = list(rules.get("properties", {}))
        for key in kind.unexpected:
            yield _located(place, (*path, key), f"unknown field {key[:80]}", closest(key, known))
    elif isinstance(kind, ValidationErrorKind.Required):
        wanted = str(rules.get("properties", {}).get(kind.property, {}).get("description", ""))
        yield _located(place, (*path, kind.property), "is missing", wanted)
    elif isinstance(kind, ValidationErrorKind.PropertyNames):
        key, expected = str(kind.error.instance), _expected(_rules_of(kind.error, schema))
        yield _located(
            place, (*path, key), f"not a name that can stand here: {key[:80]!r}", f"expected {expected}"
        )
    else:
        written = place.find(format_path(path)).text if place else ""
        message, hint = _value_wording(error, rules, written)
        yield _located(place, path, message, hint)


def closest(word: str, known: Sequence[str]) -> str:
    """Return a hint that names the known word `word` resembles, or else all of them."""
    if not known:
        return ""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def shown(value: object) -> str:
    """Return a value in few words, as people wrote it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value[:79]}…"' if len(value) > 80 else f'"{value}"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return f"the number {value}"


def _value_wording(error: ValidationError, rules: Schema, written: str) -> tuple[str, str]:
    """Return message and hint for an error of one value."""
    kind, value = error.kind, error.instance
    match kind:
        case ValidationErrorKind.Type():
            expected = " or ".join(_type_names.get(name, name) for name in kind.types)
            return f"expected {expected}, got {shown(value)}", _type_hint(kind.types, value, rules, written)
        case ValidationErrorKind.Pattern():
            return f"expected {_expected(rules)}, got {shown(value)}", _near_miss(value, rules)
        case ValidationErrorKind.Enum():
            options = [str(option) for option in kind.options]
            message = (
                f"expected {'one of ' if len(options) > 1 else ''}{', '.join(options)}, got {shown(value)}"
            )
            return message, closest(str(value), options) if len(options) > 1 else ""
        case _:
            limit = _limits.get(kind.name)
            if limit is None:
                return error.message[:400], ""
            return f"expected {limit.format(kind.value)}, got {_extent(value)}", str(
                rules.get("description", "")
            )


def _any_of(
    error: ValidationError, kind: ValidationErrorKind.AnyOf, schema: Schema, place: Place | None
) -> Iterator[Problem]:
    """A field that may be left empty is a choice with null: speak of the other side alone.

    Of several sides, the one is meant whose type the value has.
    """
    branches = [branch for branch in kind.context if not _is_null_branch(branch)]
    if len(branches) > 1:
        meant = [branch for branch in branches if not any(map(_is_other_type, branch))]
        branches = meant if len(meant) == 1 else branches
    if len(branches) == 1:
        for inner in branches[0]:
            yield from problems_of(inner, schema, place)
    else:
        yield _located(place, tuple(error.instance_path), f"does not fit: {shown(error.instance)}", "")


def _is_other_type(error: ValidationError) -> bool:
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Enum):
        return not any(isinstance(error.instance, type(option)) for option in kind.options)
    return isinstance(kind, ValidationErrorKind.Type)


def _is_null_branch(branch: Iterable[ValidationError]) -> bool:
    return all(isinstance(e.kind, ValidationErrorKind.Type) and e.kind.types == ["null"] for e in branch)


def _rules_of(error: ValidationError, schema: Schema) -> Schema:
    """Return the part of the schema that the failed keyword belongs to."""
    node: Any = schema
    for step in error.schema_path[:-1]:
        node = node[step]
    return cast("Schema", node) if isinstance(node, dict) else {}


def _expected(rules: Schema) -> str:
    return str(rules.get("description") or f"text that matches {rules.get('pattern', '')}")


def _type_hint(types: Sequence[str], value: object, rules: Schema, written: str) -> str:
    """Numbers and switches where text belongs are mostly YAML's doing: `1.10` is 1.1, `no` is false."""
    if "string" in types and isinstance(value, (bool, int, float)):
        text = written or shown(value).removeprefix("the number ")
        pattern = rules.get("pattern")
        if pattern is None or re.search(pattern, text):
            return f'quote it: "{text}"'
    if "description" in rules and "object" not in types:
        return f"expected {rules['description']}"
    if "array" in types and isinstance(value, str):
        return f"write [{value[:40]}]"
    return ""


def _near_miss(value: object, rules: Schema) -> str:
    """Return a value that would do and is close to the one written, or nothing."""
    candidate = re.sub(r"[\s_]+", "-", str(value).strip()).lower()
    if len(candidate) <= 64 and re.search(str(rules.get("pattern", "")), candidate):
        return f"such as {candidate}"
    return ""


def _extent(value: object) -> str:
    if isinstance(value, str):
        return f"{len(value)} characters"
    if isinstance(value, (list, dict)):
        return f"{len(cast('list[object]', value))} entries"
    return str(value)


def _located(place: Place | None, path: tuple[PathPart, ...], message: str, hint: str) -> Problem:
    text = format_path(path)
    return Problem(text, message, hint, line=place.find(text).line if place else 0)
