"""How a release on trial is given copies of real requests, and when its answers count as the live release's.

What a client gets is always the live release's answer; the other one is compared and thrown away.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Part, Size

ShadowShare = Annotated[
    str,
    Meta(
        pattern=r"^(100|[1-9]?[0-9])(\.[0-9]{1,2})?%$",
        description="a share of the requests, such as 10%",
    ),
]
Tolerance = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?%?$",
        description="how far numbers may lie apart: a number such as 0.001, or a share of the larger such as 1%",
    ),
]
JsonPath = Annotated[
    str,
    Meta(
        pattern=r"^\$(\.[A-Za-z_][A-Za-z0-9_-]{0,127}|\[([0-9]{1,6}|\*)\]){0,16}$",
        max_length=512,
        description="a path such as $.outputs[0].score or $.items[*].name",
    ),
]
CopiedMethod = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
ShadowPath = Annotated[
    str,
    Meta(
        pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$",
        max_length=1024,
        description="a path that begins with /, without ? and %",
    ),
]

SAFE_METHODS: tuple[CopiedMethod, ...] = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing: RFC 9110, 9.2.1."""


class Shadow(Part, frozen=True, kw_only=True):
    """Which requests of a route are copied to a release on trial, and how the answers are compared.

    `share` of the requests with one of `methods`, to one of `paths` or below (all of the route's when there are none),
    is copied. Whoever names a method beyond the safe ones says that the application may be asked the same thing twice.
    `compare`: `exact` is the same status and bytes; `json` the same JSON, where numbers may lie `tolerance` apart, of
    `fields` alone where there are any; `top-1` the same largest entry of the list or object at `label`, or the same
    text there. Except for `exact`, of answers that are no 2xx the status alone counts. A copy whose body or answers are
    longer than `max_body` is not compared, one that takes longer than `timeout` counts as failed.
    """

    share: ShadowShare = "10%"
    methods: Annotated[tuple[CopiedMethod, ...], Meta(min_length=1, max_length=8)] = ("GET", "HEAD")
    paths: Annotated[tuple[ShadowPath, ...], Meta(max_length=16)] = ()
    compare: Literal["exact", "json", "top-1"] = "exact"
    tolerance: Tolerance = "0"
    fields: Annotated[tuple[JsonPath, ...], Meta(max_length=32)] = ()
    label: JsonPath | None = None
    timeout: Duration = "10s"
    max_body: Size = "1MiB"


def share_of(shadow: Shadow) -> float:
    """Return the share of requests that is copied, from 0 to 1."""
    return float(shadow.share.removesuffix("%")) / 100
