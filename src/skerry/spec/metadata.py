"""What all documents have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from skerry.kit.digests import DIGEST_PATTERN
from skerry.kit.ids import NAME_PATTERN, VERSION_PATTERN
from skerry.kit.quantities import CPU_PATTERN, DURATION_PATTERN, SIZE_PATTERN

API_VERSION = "skerry/v1"

Name = Annotated[
    str, Meta(pattern=NAME_PATTERN, description="lower-case letters, digits and hyphens, 63 at most")
]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN, description="letters, digits and . + _ -, 64 at most")]
Size = Annotated[str, Meta(pattern=SIZE_PATTERN, max_length=32, description="a size such as 512MiB")]
Duration = Annotated[
    str, Meta(pattern=DURATION_PATTERN, max_length=32, description="a duration such as 500ms or 1h30m")
]
Cpu = Annotated[
    str, Meta(pattern=CPU_PATTERN, max_length=32, description="processors, such as 2, 0.5 or 250m")
]
DigestText = Annotated[str, Meta(pattern=DIGEST_PATTERN, description="sha256: and 64 hexadecimal digits")]
RelativePath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@ -]*(/[A-Za-z0-9_][A-Za-z0-9_.+@ -]*)*$",
        max_length=255,
        description="a relative path without . and .. parts",
    ),
]
Labels = Mapping[str, str]


class Document(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="kind",
):
    """Root of the kinds; `kind` tells them apart."""

    api_version: str = msgspec.field(name="apiVersion", default_factory=lambda: API_VERSION)
    metadata: Metadata


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Name and labels of a document."""

    name: Name
    labels: Annotated[dict[str, str], Meta(max_length=64)] = {}
    description: Annotated[str, Meta(max_length=1024)] = ""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Root of the types inside a document: frozen, unknown fields refused."""
