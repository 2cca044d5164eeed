"""Questions (hub -> host), which travel in a site's DesiredState, and the parts of their answers (host -> hub)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from skerry.spec.metadata import Name, Part
from skerry.spec.report import MAX_NUMBER, Instant

ANSWER_TYPE = "application/vnd.skerry.answer+msgpack"
MAX_PART_BYTES = 256 << 10
MAX_PARTS = 1000
MAX_OPEN_AT_SITE = 8
MAX_HOSTS = 500
LOGS = "logs"
CRASH = "crash"

QuestionId = Annotated[str, Meta(pattern=r"^q-[0-9a-f]{12}$")]


class Question(Part, frozen=True, kw_only=True):
    """Something that hosts of a site shall answer until it expires.

    `body` is as its `kind` says; a host answers a kind that it does not know with a problem, so that a newer hub may
    ask older hosts. The kind `logs` has a LogQuestion.
    """

    id: QuestionId
    kind: Annotated[str, Meta(pattern=r"^[a-z-]{1,32}$")]
    hosts: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_HOSTS)]
    expires_at: Instant
    body: dict[str, Any] = {}


class AnswerPart(Part, frozen=True, kw_only=True, tag_field="type", tag="answer"):
    """A part of a host's answer. Receiving one twice changes nothing. It travels as MessagePack.

    `sequence` is that of the Report that it goes with this time. `run` names the time that the host worked the answer
    out: parts of a later run take the place of those of an earlier one that did not get to its end. `number` counts
    from 1; `last` ends the answer. `content` is as the `kind` says. `matched` is how many lines there were to answer
    with; `more` says that older ones were left out; `since` is how far back the host has any. A `problem` says why
    there is no answer. What a host tells unasked has no `question`: the kind `crash`.
    """

    host: str
    site: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    question: QuestionId | Literal[""] = ""
    kind: Annotated[str, Meta(max_length=32)]
    run: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}$")]
    number: Annotated[int, Meta(ge=1, le=MAX_PARTS)]
    last: bool = False
    content: Annotated[bytes, Meta(max_length=MAX_PART_BYTES)] = b""
    matched: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    more: bool = False
    since: Instant | None = None
    problem: Annotated[str, Meta(max_length=512)] = ""
