"""What the hosts of one site ask and tell each other about blobs, over their own network."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import DigestText, Part

MAX_ASKED = 500
"""Blobs in one question."""

HoldingState = Literal["whole", "above", "wanted"]
Bytes = Annotated[int, Meta(ge=0, le=1 << 53)]


class SharingQuestion(Part, frozen=True, kw_only=True):
    """The blobs that a host wants, and how many bytes of each it held when it began to want it.

    It is an announcement as well: who is asked knows from then on that they are wanted there.
    """

    wants: Annotated[dict[DigestText, Bytes], Meta(max_length=MAX_ASKED)]


class Holding(Part, frozen=True, kw_only=True):
    """How a blob stands on a host: there `whole`, coming there from `above`, or `wanted` there.

    Of one that is coming, `held_bytes` are there now; of a wanted one, when that host began to want it.
    """

    state: HoldingState
    held_bytes: Bytes = 0


class SharingAnswer(Part, frozen=True, kw_only=True):
    """What the one who was asked has of the blobs; those it has nothing to do with are left out."""

    holdings: Annotated[dict[str, Holding], Meta(max_length=MAX_ASKED)] = {}
