"""Checks of the secrets that a component uses."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.kit.quantities import parse_duration
from skerry.spec.application import Component, OnSecretChange, SecretUse
from skerry.spec.checks_files import check_unique
from skerry.spec.problems import Problem

PREVIOUS = ".previous"


def check_secrets(path: str, component: Component) -> Iterator[Problem]:
    """Yield what is wrong with the secrets of a component."""
    files = [use.path for use in component.secrets if use.path]
    yield from check_unique(f"{path}.secrets", "path", [*files, *(f"{file}{PREVIOUS}" for file in files)])
    for file in files:
        if any(other.startswith(f"{file}/") for other in files):
            yield Problem(f"{path}.secrets", f"{file} is a file and a directory")
    names = [use.env for use in component.secrets if use.env]
    yield from check_unique(f"{path}.secrets", "env", names)
    for name in names:
        if name in component.env:
            yield Problem(
                f"{path}.env.{name}", "is the variable of a secret as well", "leave one of them out"
            )
    for index, use in enumerate(component.secrets):
        yield from _check_use(f"{path}.secrets[{index}]", use, component)


def _check_use(path: str, use: SecretUse, component: Component) -> Iterator[Problem]:
    if (use.path is None) == (use.env is None):
        count = 0 if use.path is None else 2
        yield Problem(path, f"{count} places for the value", "write exactly one of path, env")
    if use.env and component.image:
        hint = "write path: the engine would write the value to its disk, and show it to whoever asks it"
        yield Problem(f"{path}.env", "a container is given no secret in its environment", hint)
    yield from check_on_change(f"{path}.on_change", use.on_change, component)
    if use.env and (use.on_change.signal or use.on_change.http):
        hint = "write restart: true, or leave it out"
        yield Problem(f"{path}.on_change", "a variable is what it was when the component was started", hint)
    if use.env and parse_duration(use.overlap) > 0:
        yield Problem(f"{path}.overlap", "a variable has no value beside it", "leave it out, or write path")


def check_on_change(path: str, change: OnSecretChange, component: Component) -> Iterator[Problem]:
    """Yield what is wrong with how a component is told of something new."""
    ways = [way for way in (change.signal, change.http, change.restart or None) if way is not None]
    if len(ways) > 1:
        yield Problem(path, f"{len(ways)} ways to tell", "write one of signal, http, restart")
    ports = [port.name for port in component.ports]
    if change.http and change.http.port not in ports:
        hint = f"ports here: {', '.join(ports)}" if ports else "the component has no ports"
        yield Problem(f"{path}.http.port", f"no port named {change.http.port}", hint)
    if parse_duration(change.timeout) <= 0:
        yield Problem(f"{path}.timeout", "must be longer than 0")
