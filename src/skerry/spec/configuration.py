"""`Configuration`: values of an application for some sites or hosts; and how components take what they come to.

Values are JSON: maps merge, anything else replaces, null removes (RFC 7396). Texts in them may hold references, see
`skerry.spec.references`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from skerry.spec.metadata import DigestText, Document, Name, Part, Version

Values = dict[str, Any]
"""A tree of JSON values, bounded by `MAX_VALUES_BYTES` and `MAX_VALUES_DEPTH`."""

MAX_VALUES_BYTES = 64 << 10
MAX_SCHEMA_BYTES = 128 << 10
MAX_VALUES_DEPTH = 16
MAX_KEY_LENGTH = 256
MAX_SITE_BYTES = 4 << 20
"""How much all configurations of a site may be together, as they travel."""

KeyPath = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?$",
        max_length=256,
        description="keys joined by dots, such as camera.threshold; empty for everything",
    ),
]


class ApplicationConfig(Part, frozen=True, kw_only=True):
    """What an application can be told: values that hold where nobody says otherwise, and what all must keep to.

    `schema` is a JSON Schema (draft 2020-12) without references to elsewhere; the values of every host are held
    against it before they are issued.
    """

    defaults: Values = {}
    schema: dict[str, Any] | None = None


class ConfigurationTarget(Part, frozen=True, kw_only=True):
    """Whom values are for: all, a `version` of the application, the sites of a `selector`, a `site`, or its `host`."""

    version: Version | None = None
    selector: Annotated[str, Meta(max_length=1024)] = ""
    site: Name | None = None
    host: Name | None = None


class ConfigurationSpec(Part, frozen=True, kw_only=True):
    """Values of an application over its defaults.

    They are laid over each other in this order: for everybody, for a version, for a selector, for a site, for a host;
    among those of one kind by `order`, then by name. The later one wins. A rollout of the application brings them.
    """

    application: Name
    of: ConfigurationTarget = ConfigurationTarget()
    order: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    values: Values = {}


class Configuration(Document, frozen=True, kw_only=True, tag="Configuration"):
    """Values of an application as people write them."""

    spec: ConfigurationSpec


class Configured(Part, frozen=True, kw_only=True):
    """What the configuration of an application came to for a host, as it travels and is kept there.

    `revision` is that of the configurations it was made of. References to what only the host knows are still in the
    values; `facts` are the host's facts that were filled in.
    """

    revision: Annotated[str, Meta(max_length=64)] = ""
    values: Values = {}
    facts: dict[str, str] = {}


ConfiguredBy = dict[DigestText, Configured]
"""Configurations by the digest of their canonical JSON."""

FileFormat = Literal["json", "env"]
