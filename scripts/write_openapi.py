"""Write docs/reference/openapi.json: the operator API as the hub serves it. A test compares the two."""

from __future__ import annotations

import json
from pathlib import Path

from skerry.hub.api.app import operations
from skerry.hub.api.openapi import document_of

GOLDEN = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"


def openapi_text() -> str:
    """Return the document, with sorted keys, as the golden file holds it."""
    schema = document_of(operations())
    # The version changes with every release and says nothing about the interface.
    schema["info"]["version"] = "v1"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(openapi_text())
