"""Reads the bodies that handlers decode by themselves: those that hold bytes as they were signed."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from skerry.hub.api.operators import ApiRequest
from skerry.kit.canonical import UNREADABLE
from skerry.spec.problems import DocumentRejected, Problem

T = TypeVar("T")


async def read_body(request: ApiRequest, kind: type[T]) -> T:
    """Return a request's body.

    Raises:
        DocumentRejected: it is not a `kind`.
    """
    return decode_body(await request.body(), kind)


def decode_body(body: bytes, kind: type[T]) -> T:
    """Return what bytes hold.

    Raises:
        DocumentRejected: they hold no `kind`.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        name = kind.__name__
        raise DocumentRejected([Problem("", f"not a {name}: {str(error)[:300]}")]) from error
