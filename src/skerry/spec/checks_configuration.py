"""Checks of configurations: bounds of the values, references that there are, and how components take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from skerry.kit.canonical import encode_canonical
from skerry.kit.quantities import parse_duration
from skerry.spec.application import ApplicationSpec, Component
from skerry.spec.binding import BindingNeed
from skerry.spec.checks_bindings import binding_references
from skerry.spec.checks_files import check_unique
from skerry.spec.configuration import (
    MAX_KEY_LENGTH,
    MAX_VALUES_BYTES,
    MAX_VALUES_DEPTH,
    Configuration,
    Values,
)
from skerry.spec.problems import Problem
from skerry.spec.references import KNOWN, find_references, is_hubs, is_reference, walk_texts


def check_configuration(document: Configuration) -> Iterator[Problem]:
    """Yield what is wrong with a configuration by itself."""
    of = document.spec.of
    named = [name for name in ("version", "selector", "site") if getattr(of, name)]
    if len(named) > 1:
        yield Problem("spec.of", f"says {' and '.join(named)}", "write one of version, selector, site")
    if of.host and not of.site:
        yield Problem("spec.of.host", "a host of which site?", "write site as well")
    yield from check_values_shape("spec.values", document.spec.values)


def check_application_config(spec: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with the defaults of an application and with what its components take of them."""
    if spec.config is not None:
        yield from check_values_shape("spec.config.defaults", spec.config.defaults)
    for index, component in enumerate(spec.components):
        use, path = component.config, f"spec.components[{index}].config"
        if use is None:
            continue
        if spec.config is None:
            yield Problem(path, "the application has no configuration", "write spec.config, which may be {}")
        files = [file.path for file in use.files]
        yield from check_unique(f"{path}.files", "path", files)
        for file in files:
            if any(other.startswith(f"{file}/") for other in files):
                yield Problem(f"{path}.files", f"{file} is a file and a directory")
        yield from _check_env(path, component)
        yield from _check_change(path, component)


def check_values_shape(path: str, values: Values) -> Iterator[Problem]:
    """Yield what no tree of values may be: too large, too deep, or with references that nothing stands for."""
    if _is_deep(values):
        yield Problem(path, f"nested deeper than {MAX_VALUES_DEPTH} levels", "flatten it")
        return
    size = len(encode_canonical(values))
    if size > MAX_VALUES_BYTES:
        yield Problem(path, f"{size} bytes are more than the {MAX_VALUES_BYTES} that values may have")
    for key in _keys(values):
        if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
            yield Problem(path, f"not a key: {key[:80]!r}", f"1 to {MAX_KEY_LENGTH} printable characters")
    for where, text in walk_texts(values):
        if "\0" in text:
            yield Problem(f"{path}.{where}", "contains a NUL character")
        for name in find_references(text):
            if not is_reference(name):
                yield Problem(f"{path}.{where}", f"unknown reference ${{{name}}}", f"known here: {KNOWN}")


def unknown_locals(
    component: Component, values: Any, needs: Iterable[BindingNeed]
) -> Iterator[tuple[str, str]]:
    """Yield (path, reference) of ports, models, secrets and bindings that values name and the component has not."""
    known = {"config", "data"}
    known |= {f"port.{port.name}" for port in component.ports}
    known |= {f"model.{mount.name}" for mount in component.models}
    known |= {f"secret.{use.name}" for use in component.secrets if use.path}
    known |= set(binding_references(needs, component.name))
    for path, text in walk_texts(values):
        for name in find_references(text):
            if name not in known and not is_hubs(name):
                yield path, name


def _check_env(path: str, component: Component) -> Iterator[Problem]:
    assert component.config is not None
    secret = {use.env for use in component.secrets}
    for name in component.config.env:
        if name in component.env or name in secret:
            hint = "leave one of them out"
            yield Problem(f"{path}.env.{name}", "the component sets this variable as well", hint)


def _check_change(path: str, component: Component) -> Iterator[Problem]:
    assert component.config is not None
    change = component.config.on_change
    ways = [name for name in ("signal", "http", "none") if getattr(change, name)]
    if len(ways) > 1:
        yield Problem(f"{path}.on_change", f"says {' and '.join(ways)}", "write one of signal, http, none")
    ports: Sequence[str] = [port.name for port in component.ports]
    if change.http and change.http.port not in ports:
        hint = f"ports here: {', '.join(ports)}" if ports else "the component has no ports"
        yield Problem(f"{path}.on_change.http.port", f"no port named {change.http.port}", hint)
    if parse_duration(change.timeout) <= 0:
        yield Problem(f"{path}.on_change.timeout", "must be longer than 0")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, held in cast("dict[str, Any]", value).items():
            yield key
            yield from _keys(held)
    elif isinstance(value, list):
        for held in cast("Sequence[Any]", value):
            yield from _keys(held)


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_VALUES_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    held = (
        cast("Mapping[str, Any]", value).values() if isinstance(value, dict) else cast("Sequence[Any]", value)
    )
    return [child for child in held if isinstance(child, dict | list)]
