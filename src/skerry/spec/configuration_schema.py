"""Holds values against the JSON Schema that an application carries. Hub and CLI alone: a host gets what was held.

Draft 2020-12. A reference leads nowhere but into the schema itself, nothing is fetched, and patterns are of the kind
whose time grows with the text alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.spec.application import ApplicationSpec
from skerry.spec.configuration import MAX_SCHEMA_BYTES
from skerry.spec.problems import Problem
from skerry.spec.wording import problems_of
from skerry.spec.yaml_tree import MAX_DEPTH

_REFERENCES = ("$ref", "$dynamicRef")
MAX_PROBLEMS = 20


def check_schema(path: str, schema: dict[str, Any]) -> Iterator[Problem]:
    """Yield why a schema cannot be used."""
    size = len(encode_canonical(schema))
    if size > MAX_SCHEMA_BYTES:
        yield Problem(path, f"{size} bytes are more than the {MAX_SCHEMA_BYTES} a schema may have")
        return
    found = list(_check_references(path, schema, 0))
    yield from found
    if not found:
        try:
            jsonschema_rs.meta.validate({"$schema": _DIALECT, **schema})
            _validator(encode_canonical(schema))
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            message = str(getattr(error, "message", error)).splitlines()[0][:500]
            yield Problem(path, f"not a JSON Schema: {message}", "write one of draft 2020-12")


def check_application_schema(spec: ApplicationSpec) -> Iterator[Problem]:
    """Yield why the schema that an application carries cannot be used; nothing where it carries none."""
    if spec.config is not None and spec.config.schema is not None:
        yield from check_schema("spec.config.schema", spec.config.schema)


def check_values(values: dict[str, Any], schema: dict[str, Any]) -> list[Problem]:
    """Return what the values break of a schema that `check_schema` has let pass; paths are inside the values."""
    try:
        errors = _validator(encode_canonical(schema)).iter_errors(values)
        found = [problem for error in errors for problem in problems_of(error, schema, None)]
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return [Problem("", f"cannot be held against the schema: {str(error).splitlines()[0][:200]}")]
    found.sort(key=lambda problem: (problem.path, problem.message))
    return found[:MAX_PROBLEMS]


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        msgspec.json.decode(schema), offline=True, pattern_options=jsonschema_rs.RegexOptions()
    )


def _check_references(path: str, value: object, depth: int) -> Iterator[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(path, f"nested deeper than {MAX_DEPTH} levels", "flatten it")
    elif isinstance(value, dict):
        for key, held in value.items():  # pyright: ignore[reportUnknownVariableType]
            if key in _REFERENCES and isinstance(held, str) and not held.startswith("#"):
                yield Problem(
                    f"{path}.{key}", f"leads elsewhere: {held[:80]!r}", "write one that begins with #"
                )
            if key == "$schema" and held != _DIALECT:
                yield Problem(f"{path}.$schema", "another dialect", f"write {_DIALECT}, or leave it out")
            yield from _check_references(f"{path}.{key}", held, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for held in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _check_references(path, held, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
