"""References in texts of configurations: `${...}`, and `$${` for a `${` that is none.

Known to the hub: `${site.name}`, `${site.label.LABEL}`, `${site.VARIABLE}`, `${host.name}`, `${host.fact.FACT}`.
Known to the host alone, where the component runs: `${secret.NAME}` (the path of its file), `${port.NAME}`,
`${model.NAME}`, `${binding.NAME.FIELD}`, `${config}`, `${data}`. What a reference stands for is put in as text, and
not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

_reference_re = re.compile(r"\$(\$\{|\{([^}]*)\})")
_site_re = re.compile(r"^site\.(name|label\.[A-Za-z0-9][A-Za-z0-9_./-]*|[a-z][a-z0-9_]*)$")
_host_re = re.compile(r"^host\.(name|fact\.[A-Za-z0-9][A-Za-z0-9_./:-]*)$")
_local_re = re.compile(
    r"^((secret|port|model)\.[a-z0-9][a-z0-9-]*|binding\.[a-z0-9-]+\.[A-Za-z0-9_.-]+|config|data)$"
)

KNOWN = (
    "${site.name}, ${site.label.LABEL}, ${site.VARIABLE}, ${host.name}, ${host.fact.FACT}, ${secret.NAME},"
    " ${port.NAME}, ${model.NAME}, ${binding.NAME.FIELD}, ${config}, ${data}"
)


def is_reference(name: str) -> bool:
    """Tell whether this is what a reference may name."""
    return is_hubs(name) or bool(_local_re.match(name))


def is_hubs(name: str) -> bool:
    """Tell whether the hub knows what a reference stands for."""
    return bool(_site_re.match(name) or _host_re.match(name))


def find_references(text: str) -> Iterator[str]:
    """Yield the names of the references in a text."""
    for match in _reference_re.finditer(text):
        if match[2] is not None:
            yield match[2]


def fill_text(text: str, value_of: Callable[[str], str | None], *, unescape: bool) -> str:
    """Return a text with the references filled that have a value; `unescape` makes `$${` a `${`."""
    if "$" not in text:
        return text

    def filled(match: re.Match[str]) -> str:
        if match[2] is None:
            return "${" if unescape else match[0]
        value = value_of(match[2])
        return match[0] if value is None else value

    return _reference_re.sub(filled, text)


def walk_texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a tree of values with its path: keys joined by dots, places of lists in brackets."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, held in cast("Mapping[str, Any]", value).items():
            yield from walk_texts(held, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, held in enumerate(cast("Sequence[Any]", value)):
            yield from walk_texts(held, f"{path}[{index}]")


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a tree of values with every text changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_texts(held, change) for key, held in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [map_texts(held, change) for held in cast("Sequence[Any]", value)]
    return value


def value_at(values: Any, path: str) -> Any:
    """Return the value at keys joined by dots, all of them for an empty path, None where there is none."""
    found: Any = values
    for key in path.split(".") if path else ():
        if not isinstance(found, dict):
            return None
        found = cast("dict[str, Any]", found).get(key)
    return found
