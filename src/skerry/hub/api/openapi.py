"""Puts right what the framework writes into the OpenAPI document and the hub does not mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from litestar.openapi.spec import OpenAPI, Schema


def relax_unions(document: OpenAPI) -> None:
    """Let unions be `anyOf`: a whole number is both an integer and a number, which `oneOf` forbids."""
    for schema in list(_schemas(document)):
        if schema.one_of:
            schema.any_of, schema.one_of = schema.one_of, None


def _schemas(found: object) -> Iterator[Schema]:
    if isinstance(found, Schema):
        yield found
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        for field in dataclasses.fields(found):
            yield from _schemas(getattr(found, field.name))
    elif isinstance(found, Mapping):
        for value in cast(Mapping[object, object], found).values():
            yield from _schemas(value)
    elif isinstance(found, Sequence) and not isinstance(found, str | bytes):
        for value in cast(Sequence[object], found):
            yield from _schemas(value)
