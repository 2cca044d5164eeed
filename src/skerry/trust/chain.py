"""Chains of entries: each names the digest of the one before, so that none can be altered, left out or put in unseen.

- The digest of an entry is the SHA-256 of its canonical JSON, which holds its number and the digest before it.
- Whoever holds a chain can write it anew as a whole. That, and the loss of its newest entries, is seen by who kept a
  head of it elsewhere: an anchor.
- The oldest entries may be forgotten: the oldest that is kept still names the digest before it, and an entry of the
  chain itself says up to where that was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.spec.audit import TRIMMED, AuditEntry
from skerry.spec.report import Event

FlawCode = Literal["gap", "altered", "cut", "truncated", "rewritten", "head", "out-of-reach"]

MAX_FLAWS = 100


class ChainHead(msgspec.Struct, frozen=True):
    """The newest entry of a chain: its number and digest; 0 and empty of a chain without any."""

    number: int = 0
    digest: str = ""


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a chain, and at which entry."""

    code: FlawCode
    number: int
    message: str


class Break(msgspec.Struct, frozen=True):
    """Where a host's events do not follow on one another: the kind of event that tells of it, and what it says."""

    kind: Literal["chain.gap", "chain.altered", "chain.restarted", "chain.forked"]
    message: str


def digest_entry(entry: msgspec.Struct) -> str:
    """Return the digest that the entry after this one names."""
    return digest_of(encode_canonical(entry))


def trimmed_subject(head: ChainHead) -> str:
    """Return what an entry says of entries that were forgotten: the newest of them, and its digest."""
    return f"{head.number} {head.digest}"


def link_events(head: ChainHead, events: Iterable[Event]) -> tuple[list[Event], ChainHead]:
    """Return events as they follow on the newest one of a host, and which one is the newest then."""
    linked: list[Event] = []
    for event in events:
        one = msgspec.structs.replace(event, number=head.number + 1, previous=head.digest)
        linked.append(one)
        head = ChainHead(one.number, digest_entry(one))
    return linked, head


def follow_events(head: ChainHead, events: Iterable[Event]) -> tuple[ChainHead, tuple[Break, ...]]:
    """Return the newest of a host's events after these have come, and where they do not follow on one another.

    Events without a number are of no chain, and passed over.
    """
    breaks: list[Break] = []
    for event in events:
        if not event.number:
            continue
        if event.number > head.number + 1:
            missing = f"events {head.number + 1} to {event.number - 1} of this host have not come"
            breaks.append(Break("chain.gap", missing))
        elif event.number == head.number + 1:
            if event.previous != head.digest:
                message = (
                    f"event {event.number} does not follow on event {head.number} as it came: one was altered"
                )
                breaks.append(Break("chain.altered", message))
        elif event.number == 1 and not event.previous:
            message = (
                f"the host counts its events from 1 again, after {head.number}: it has lost its database"
            )
            breaks.append(Break("chain.restarted", message))
        else:
            message = f"event {event.number} came after event {head.number}: there is another copy of this host's data"
            breaks.append(Break("chain.forked", message))
        head = ChainHead(event.number, digest_entry(event))
    return head, tuple(breaks)


class AuditCheck:
    """Checks an audit entry by entry, oldest first. It keeps nothing but where it is and what is wrong.

    `told` is the head that the hub told of before it handed out the entries, `anchors` are heads that were kept.
    """

    def __init__(self, told: ChainHead, anchors: Iterable[ChainHead] = ()) -> None:
        self._told = told
        self.base = ChainHead()
        self.head = ChainHead()
        self.entries = 0
        self._flaws: list[Flaw] = []
        self._anchors = {anchor.number: anchor.digest for anchor in anchors if anchor.number > 0}
        self._met: set[int] = set()
        self._forgotten = False

    def add(self, entries: Sequence[AuditEntry]) -> None:
        """Go on with the entries that follow on those before."""
        for entry in entries:
            if not self.entries:
                self.base = self.head = ChainHead(entry.number - 1, entry.previous)
                self._meet(self.base)
            if entry.number != self.head.number + 1:
                between = f"{self.head.number} and {entry.number}"
                self._tell("gap", entry.number, f"entries are missing between {between}")
            elif entry.previous != self.head.digest:
                message = f"entry {entry.number} does not follow on entry {self.head.number}: one of them was altered"
                self._tell("altered", entry.number, message)
            self.entries += 1
            self.head = ChainHead(entry.number, digest_entry(entry))
            self._meet(self.head)
            if entry.action == TRIMMED and entry.subject == trimmed_subject(self.base):
                self._forgotten = True

    def conclude(self) -> tuple[Flaw, ...]:
        """Return all that is wrong, once the last entry was added."""
        newest = self.head.number
        if self.base.number and not self._forgotten:
            message = f"the entries up to {self.base.number} are gone, and none says that they were forgotten"
            self._tell("cut", self.base.number + 1, message)
        if self._told.number > newest:
            message = f"the newest entry is {newest}, and the hub told of entry {self._told.number}"
            self._tell("truncated", self._told.number, message)
        for number in sorted(self._anchors.keys() - self._met):
            if number > newest:
                message = (
                    f"the newest entry is {newest}, the anchor is entry {number}: newer ones were cut off"
                )
                self._tell("truncated", number, message)
            elif number < self.base.number:
                message = (
                    f"the anchor is entry {number}, and the entries up to {self.base.number} were forgotten"
                )
                self._tell("out-of-reach", number, message)
        return tuple(self._flaws)

    def _meet(self, head: ChainHead) -> None:
        if head.number == self._told.number and head.digest != self._told.digest:
            message = f"entry {head.number} is not the one that the hub told of: it was altered"
            self._tell("head", head.number, message)
        known = self._anchors.get(head.number)
        if known is None:
            return
        self._met.add(head.number)
        if known != head.digest:
            message = f"entry {head.number} or one before it is not what it was when the anchor was kept"
            self._tell("rewritten", head.number, message)

    def _tell(self, code: FlawCode, number: int, message: str) -> None:
        if len(self._flaws) < MAX_FLAWS:
            self._flaws.append(Flaw(code=code, number=number, message=message))
