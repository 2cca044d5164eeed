"""What a gateway is joined to, as the host says it in the file that SKERRY_BINDINGS names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Binding:
    """A binding: its fields as text, its maps as they were written, and where its secrets are."""

    fields: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])

    def text(self, name: str) -> str:
        """Return a field, empty where the site says nothing."""
        return str(self.fields.get(name, ""))

    def points(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the map of nodes or registers."""
        found = self.fields.get(name, {})
        return dict(found) if isinstance(found, dict) else {}

    def secret(self, name: str) -> str:
        """Return a secret as it is now, without the end of its line; empty where there is none."""
        path = self.secrets.get(name, "")
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") if path else ""


def load_binding(path: str, need: str) -> Binding:
    """Return the binding of a need.

    Raises:
        SystemExit: the file cannot be read, or has no such need.
    """
    try:
        with Path(path).open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))["bindings"][need]
        return Binding(found, found.get("secrets", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(
            f"no binding {need} in {path or 'SKERRY_BINDINGS, which is not set'}: {error!r}"
        ) from None
