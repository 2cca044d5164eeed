"""The OpenAPI document, put right where the framework writes what the hub does not mean.

It is made when it is first asked for: making it takes long against the rest of a hub's start, and few ask.
"""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, Request
from litestar.openapi.plugins import JsonRenderPlugin

Document = dict[str, Any]


class Rendered(JsonRenderPlugin):
    """Serves the document, which is made once."""

    def __init__(self, path: str) -> None:
        super().__init__(path=path)
        self._made = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Document) -> bytes:
        """Return the document as JSON."""
        if not self._made:
            self._made = self.render_json(request, cast(Document, _relaxed(openapi_schema)))
        return self._made


def document_of(app: Litestar) -> Document:
    """Return the document that an app serves."""
    return cast(Document, _relaxed(app.openapi_schema.to_schema()))


def _relaxed(found: object) -> object:
    """Let unions be `anyOf`: a whole number is both an integer and a number, which `oneOf` forbids."""
    if isinstance(found, list):
        return [_relaxed(value) for value in cast(list[object], found)]
    if isinstance(found, dict):
        entries = cast(dict[str, object], found)
        return {_keyword(key, value): _relaxed(value) for key, value in entries.items()}
    return found


def _keyword(key: str, value: object) -> str:
    # A property of that name, unlike the keyword, has no list.
    return "anyOf" if key == "oneOf" and isinstance(value, list) else key
