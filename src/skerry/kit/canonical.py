"""Canonical JSON: one value, one sequence of bytes.

Keys sorted by code point, no white space, UTF-8, instants as RFC 3339 in UTC. A field that equals its default is
left out where its type says `omit_defaults`, whether it was written or not: two documents that mean the same are
the same, and a field that a later version adds does not change the bytes of what was written before. What is
received is verified as the bytes that arrived and never encoded again to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises for bytes that are none: bytes that are no text raise an error of their own."""


def encode_canonical(value: object) -> bytes:
    """Return the canonical JSON of a struct, mapping, sequence or scalar."""
    return _encoder.encode(_lean(value))


def _lean(value: Any) -> Any:
    """Return the value with structs as mappings, without the fields that equal their defaults."""
    if isinstance(value, msgspec.Struct):
        lean: dict[str, object] = dict(_tag(type(value)))
        for name, attribute, default in _fields(type(value)):
            held: object = getattr(value, attribute)
            # `True == 1`, and they are not the same JSON.
            if held != default or type(held) is not type(default):
                lean[name] = _lean(held)
        return lean
    if isinstance(value, dict):
        return {key: _lean(held) for key, held in cast(dict[Any, Any], value).items()}  # type: ignore[redundant-cast]
    if isinstance(value, list | tuple):
        return [_lean(held) for held in cast(Sequence[Any], value)]
    return value


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, object], ...]:
    """Return (name in JSON, attribute, default) of each field; what has no plain default equals nothing."""
    omits = kind.__struct_config__.omit_defaults
    found: list[tuple[str, str, object]] = []
    for field in msgspec.structs.fields(kind):
        default: object = field.default
        if field.default_factory in (dict, list, set):
            default = cast(type[object], field.default_factory)()
        found.append((field.encode_name, field.name, default if omits else msgspec.NODEFAULT))
    return tuple(found)


@cache
def _tag(kind: type[msgspec.Struct]) -> tuple[tuple[str, object], ...]:
    config = kind.__struct_config__
    return ((config.tag_field, config.tag),) if config.tag_field is not None else ()
