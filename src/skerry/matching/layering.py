"""Which values of an application hold at a site and on a host: layers, laid over each other in a fixed order.

The order: the application's defaults, then values for everybody, for its version, for a selector, for the site, for the
host; within one of these by `order`, then by name. Each is laid over what is there as RFC 7396 (JSON Merge Patch) says:
maps merge, anything else replaces, null removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from skerry.kit.errors import Rejected
from skerry.matching.selector import parse_selector
from skerry.spec.application import Application
from skerry.spec.configuration import Configuration, ConfigurationTarget, Values

DEFAULTS = "defaults"


class Layer(msgspec.Struct, frozen=True):
    """Values, and where they come from: `defaults`, or the name of a configuration."""

    source: str
    values: Values
    of: str = ""


class Laid(msgspec.Struct, frozen=True):
    """What layers come to; `origins` says of each value that is no map, by its path, which layer it is from."""

    values: Values
    origins: Mapping[str, str]


class Spot(msgspec.Struct, frozen=True):
    """Whom values are chosen for. Without a `host`, what is for single hosts is left out."""

    site: str
    labels: Mapping[str, str] = {}
    host: str = ""


def choose_layers(
    application: Application, configurations: Iterable[Configuration], spot: Spot
) -> tuple[Layer, ...]:
    """Return the layers that hold, the one that wins last."""
    name, version = application.metadata.name, application.spec.version
    fitting = [
        one
        for one in configurations
        if one.spec.application == name and reaches(one.spec.of, spot, version=version)
    ]
    fitting.sort(key=lambda one: (_rank(one.spec.of), one.spec.order, one.metadata.name))
    defaults = application.spec.config.defaults if application.spec.config else {}
    return (
        Layer(DEFAULTS, defaults),
        *(Layer(one.metadata.name, one.spec.values, target_text(one.spec.of)) for one in fitting),
    )


def lay(layers: Iterable[Layer]) -> Laid:
    """Return what the layers come to, laid over each other from the first to the last."""
    values: Values = {}
    origins: dict[str, str] = {}
    for layer in layers:
        values = merge_values(values, layer.values)
        changed = list(leaves_of(layer.values))
        origins |= {path: layer.source for path, _ in changed}
    leaves = dict(leaves_of(values))
    return Laid(values, {path: origins[path] for path in leaves if path in origins})


def merge_values(base: Any, over: Any) -> Any:
    """Return `over` laid over `base`; neither is changed. RFC 7396, section 2."""
    if not isinstance(over, dict):
        return over
    merged: dict[str, Any] = dict(cast("dict[str, Any]", base)) if isinstance(base, dict) else {}
    for key, value in cast("dict[str, Any]", over).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_values(merged.get(key), value)
    return merged


def target_text(of: ConfigurationTarget) -> str:
    """Return whom values are for, in words."""
    if of.host:
        return f"host {of.host} of site {of.site}"
    if of.site:
        return f"site {of.site}"
    if of.selector:
        return f"sites {of.selector}"
    return f"version {of.version}" if of.version else "all sites"


def reaches(of: ConfigurationTarget, spot: Spot, *, version: str) -> bool:
    """Tell whether values are for somebody. A selector that is none reaches nobody: it is refused at the door."""
    if of.site:
        return of.site == spot.site and of.host in (None, spot.host)
    if of.selector:
        try:
            return parse_selector(of.selector).matches(spot.site, spot.labels)
        except Rejected:
            return False
    return of.version in (None, version)


def _rank(of: ConfigurationTarget) -> int:
    if of.host:
        return 4
    if of.site:
        return 3
    if of.selector:
        return 2
    return 1 if of.version else 0


def leaves_of(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no map, or an empty one, with its path."""
    if isinstance(values, dict) and (values or not path):
        for key, held in cast("dict[str, Any]", values).items():
            yield from leaves_of(held, f"{path}.{key}" if path else key)
    else:
        yield path, values
