"""What the operator API says of configurations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from skerry.spec.configuration import ConfigurationTarget, Values
from skerry.spec.metadata import Part


class ConfigurationView(Part, frozen=True, kw_only=True):
    """A configuration as it is now.

    `behind` are the sites that run the application with it as it was at an earlier rollout, or without it: a rollout
    brings it to them.
    """

    name: str
    application: str
    of: ConfigurationTarget
    target: str
    order: int = 0
    values: Values = {}
    changed_at: datetime
    changed_by: str
    behind: tuple[str, ...] = ()


class ConfiguredValue(Part, frozen=True, kw_only=True):
    """A value that is no map: its path, what it is, and which layer it is from."""

    path: str
    value: Any
    source: str


class LayerView(Part, frozen=True, kw_only=True):
    """A layer: `defaults`, or a configuration and whom it is for."""

    source: str
    of: str = ""


class RenderedConfiguration(Part, frozen=True, kw_only=True):
    """What the configuration of an application comes to at a site, and on one of its hosts.

    `issued` are the values it was issued, None where it has none; `problems` say why the values shown would not be.
    """

    application: str
    site: str
    host: str = ""
    release: str
    revision: str = ""
    values: Values = {}
    layers: tuple[LayerView, ...] = ()
    origins: tuple[ConfiguredValue, ...] = ()
    problems: tuple[str, ...] = ()
    issued_release: str = ""
    issued: Values | None = None


class ConfigurationEffect(Part, frozen=True, kw_only=True):
    """What a value would be at a site, or on one of its hosts, once a rollout brings it; None where there is none."""

    application: str
    site: str
    host: str = ""
    path: str
    before: Any = None
    after: Any = None
