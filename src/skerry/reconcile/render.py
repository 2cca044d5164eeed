"""Fills `${...}` references of a component's command and environment, and names what a component is told.

References: `${bundle}`, `${data}`, `${port.NAME}`, `${model.NAME}`, `${volume.NAME}`, `${device.NAME}`,
`${site.VARIABLE}`, in a self-test's command `${self_test}`, and what services of the host give, such as `${secrets}`.
Every component finds the same values in its environment: `SKERRY_PORT_<NAME>`, `SKERRY_MODEL_<NAME>`, `SKERRY_DATA`,
`SKERRY_BUNDLE`, and the names of site, host, application, component and release, and what services give. A component's
own `env` wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from skerry.spec.application import Component

_reference_re = re.compile(r"\$\{([^}]*)\}")


class Place(msgspec.Struct, frozen=True):
    """Where a component finds itself: directories, ports, names. Without a `path` it keeps what its image says.

    `env` and `values`, by the names of references, are what services give.
    """

    site: str
    host: str
    application: str
    release: str
    data: str
    bundle: str
    models: Mapping[str, str]
    ports: Mapping[str, int]
    variables: Mapping[str, str]
    path: str
    volumes: Mapping[str, str] = {}
    devices: Mapping[str, str] = {}
    self_test: str = ""
    env: Mapping[str, str] = {}
    values: Mapping[str, str] = {}


class Rendered(msgspec.Struct, frozen=True):
    """A component with every reference filled."""

    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]


class Unresolved(msgspec.Struct, frozen=True):
    """References that have no value here, such as a site variable the site does not set."""

    names: tuple[str, ...]


def render_component(component: Component, place: Place) -> Rendered | Unresolved:
    """Return command, arguments and environment with every reference filled, or what could not be filled."""
    values = {"data": place.data, "bundle": place.bundle}
    values.update((f"port.{name}", str(port)) for name, port in place.ports.items())
    values.update((f"model.{name}", path) for name, path in place.models.items())
    values.update((f"volume.{name}", path) for name, path in place.volumes.items())
    values.update((f"device.{name}", device) for name, device in place.devices.items())
    if place.self_test:
        values["self_test"] = place.self_test
    if any(use.path for use in component.secrets):
        # A self-test has none: what names them finds an empty word.
        values["secrets"] = ""
    if component.certificates:
        values["certificates"] = ""
    if component.config is not None and component.config.files:
        values["config"] = ""
    values.update(place.values)
    values.update((f"site.{name}", value) for name, value in place.variables.items())
    unknown: set[str] = set()

    def fill(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                unknown.add(match[1])
            return values.get(match[1], "")

        return _reference_re.sub(value, text)

    own = {"PATH": place.path, "HOME": place.data, "LANG": "C.UTF-8"} if place.path else {}
    env = {
        **own,
        "SKERRY_SITE": place.site,
        "SKERRY_HOST_NAME": place.host,
        "SKERRY_APPLICATION": place.application,
        "SKERRY_COMPONENT": component.name,
        "SKERRY_RELEASE": place.release,
        "SKERRY_DATA": place.data,
        "SKERRY_BUNDLE": place.bundle,
        **place.env,
    }
    env.update((f"SKERRY_PORT_{_env_name(name)}", str(port)) for name, port in place.ports.items())
    env.update((f"SKERRY_MODEL_{_env_name(name)}", path) for name, path in place.models.items())
    env.update((key, fill(value)) for key, value in component.env.items())
    command = tuple(fill(argument) for argument in component.command)
    args = tuple(fill(argument) for argument in component.args)
    return Unresolved(tuple(sorted(unknown))) if unknown else Rendered(command, args, env)


def _env_name(name: str) -> str:
    return name.upper().replace("-", "_")
