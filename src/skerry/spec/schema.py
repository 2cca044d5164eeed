"""JSON Schema of what people write, made from the types, so that editors complete and validate.

The same definitions find every problem of a document at once (`skerry.spec.parsing`).
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec

from skerry.spec.documents import KINDS

Schema = dict[str, Any]
"""A JSON Schema, or part of one: JSON whose shape is not ours."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> Schema:
    """Return the published schema: one document of any kind, the kind deciding which definition holds."""
    chosen_by_kind = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"$ref": f"#/$defs/{kind}"},
        }
        for kind in KINDS
    ]
    return {
        "$schema": DIALECT,
        "title": "Skerry document",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": chosen_by_kind,
        "$defs": definitions(),
    }


def kind_schema(kind: str) -> Schema:
    """Return the schema of one kind of document."""
    return {"$schema": DIALECT, "$ref": f"#/$defs/{kind}", "$defs": definitions()}


@cache
def definitions() -> Schema:
    """Return the definitions of all types by name; do not change what you get."""
    _, definitions = msgspec.json.schema_components(tuple(KINDS.values()), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        # A docstring carries the indentation of its source.
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return definitions
