"""What a component is told of its application's configuration: contents of files, variables, and marks of both.

Rules: the same values give the same bytes; a reference that has no value here keeps the component from being started,
with its name, and no file is written with a hole in it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of, short
from skerry.spec.application import Component, ConfigUse
from skerry.spec.configuration import Values
from skerry.spec.references import fill_text, find_references, map_texts, value_at, walk_texts

_not_env_re = re.compile(r"[^A-Za-z0-9]+")


class Told(msgspec.Struct, frozen=True):
    """Contents of files by path, and variables."""

    files: Mapping[str, bytes] = {}
    env: Mapping[str, str] = {}


class Unknown(msgspec.Struct, frozen=True):
    """References that have no value on this host."""

    names: tuple[str, ...]


def tell_component(component: Component, values: Values, local: Mapping[str, str]) -> Told | Unknown:
    """Return what a component is told, with references filled by `local`, the values of this host by name."""
    use = component.config
    if use is None:
        return Told()
    texts = (text for part in _parts(use, values) for _, text in walk_texts(part))
    names = {name for text in texts for name in find_references(text)}
    if unknown := sorted(names - local.keys()):
        return Unknown(tuple(unknown))

    def filled(value: Any) -> Any:
        return map_texts(value, lambda text: fill_text(text, local.get, unescape=True))

    files = {file.path: _content(filled(value_at(values, file.of)), file.format) for file in use.files}
    env = {name: filled(value_at(values, path)) for name, path in use.env.items()}
    return Told(files, {name: _text(value) for name, value in env.items() if value is not None})


def started_with(component: Component, values: Values) -> str:
    """Return a mark of what a component only learns when it is started; another one asks for a restart."""
    use = component.config
    if use is None:
        return ""
    told: list[Any] = [[name, value_at(values, path)] for name, path in sorted(use.env.items())]
    if _restarts(use):
        told.append([value_at(values, file.of) for file in use.files])
    return short(digest_of(encode_canonical(told)))


def files_with(component: Component, values: Values) -> str:
    """Return a mark of the contents of a component's files."""
    use = component.config
    if use is None:
        return ""
    return short(digest_of(encode_canonical([value_at(values, file.of) for file in use.files])))


def _restarts(use: ConfigUse) -> bool:
    change = use.on_change
    return not (change.signal or change.http or change.none)


def _parts(use: ConfigUse, values: Values) -> Iterator[Any]:
    for path in (*(file.of for file in use.files), *use.env.values()):
        yield value_at(values, path)


def _content(value: Any, form: str) -> bytes:
    if form == "env":
        return "".join(f"{name}={shlex.quote(text)}\n" for name, text in _lines(value, "")).encode()
    return (
        json.dumps({} if value is None else value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    ).encode()


def _lines(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield `NAME` and text of each value that is no map: keys in capitals, joined by `_`."""
    if isinstance(value, dict):
        for key, held in sorted(cast("dict[str, Any]", value).items()):
            own = _not_env_re.sub("_", key).upper()
            yield from _lines(held, f"{name}_{own}" if name else own)
    elif name and value is not None:
        yield (f"_{name}" if name[0].isdigit() else name), _text(value)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float():
            return repr(value)
        case _:
            return json.dumps(value, sort_keys=True, ensure_ascii=False)
