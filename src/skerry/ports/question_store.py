"""QuestionStore: what hosts were asked and answered, a part of what the hub remembers (`skerry.ports.hub_store`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit


class QuestionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A question: its `body` as JSON, and who shall answer, each host with its site."""

    id: str
    kind: str
    hosts: Mapping[str, str]
    body: bytes
    follow: bool
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    ended: bool = False


class AnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a host's answer, as it came; `id` rises with the order in which parts came."""

    id: int = 0
    question: str
    host: str
    run: str
    number: int
    last: bool
    matched: int
    more: bool
    since: datetime | None
    problem: str
    received_at: datetime
    content: bytes = b""


class StoredCrash(msgspec.Struct, frozen=True, kw_only=True):
    """What a host told unasked; `content` is a packed CrashRecord."""

    host: str
    id: str
    site: str
    application: str
    at: datetime
    received_at: datetime
    content: bytes


class QuestionStore(Protocol):
    """The methods of `HubStore` about questions."""

    def add_question(self, record: QuestionRecord, audit: Audit) -> None:
        """Store a question."""
        ...

    def question(self, name: str) -> QuestionRecord | None:
        """Return a question."""
        ...

    def questions(self, since: datetime) -> Sequence[QuestionRecord]:
        """Return the questions that expire, or were asked, after an instant, the oldest first; 1000 at most."""
        ...

    def end_question(self, name: str, audit: Audit) -> None:
        """Let nobody answer a question any more."""
        ...

    def put_answer(self, record: AnswerRecord, *, most_bytes: int) -> bool:
        """Store a part unless it is there; tell whether it is new.

        Parts of another run take the place of those of a run without its last part, and are ignored after one with it.
        A part beyond `most_bytes` of all of a host's is stored without its content, with `more`.
        """
        ...

    def answers(self, question: str, *, after: int, limit: int) -> Sequence[AnswerRecord]:
        """Return parts of answers in the order in which they came, after one of them."""
        ...

    def answer_heads(self, question: str) -> Sequence[AnswerRecord]:
        """Return all parts of the answers without their content, in the order in which they came."""
        ...

    def put_crash(self, record: StoredCrash, *, keep: int) -> None:
        """Store what a host told unasked, unless it is there; of each host the newest `keep` stay."""
        ...

    def crashes(self, since: datetime, *, application: str = "", limit: int = 1000) -> Sequence[StoredCrash]:
        """Return what was told unasked of something that happened after an instant, the newest first."""
        ...

    def trim_questions(self, before: datetime, crashes_before: datetime) -> None:
        """Forget questions that expired before an instant, with their answers, and what was told unasked before one."""
        ...
