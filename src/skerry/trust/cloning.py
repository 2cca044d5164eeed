"""Whether two machines use one host's identity, as when a disk image was copied: decided by the sessions of reports.

A session is one run of an agent. A host runs one agent at a time, so its sessions follow one another and none comes
back. The hub names to each session the newest stretch of reports that it knows; a report names what it heard.

- A session that reports again, after another one, and has heard of that other, was alive after it began.
- One such return may be a machine put back to a snapshot with its memory. Two sessions of which each was alive after
  the other one began cannot be: there are two machines.
- A report that was under way for long, is sent again, or is from before a restore has heard of nothing newer than its
  own session. It proves nothing, whatever its number.
"""

from __future__ import annotations

import msgspec

KEPT_STRETCHES = 16


class Stretch(msgspec.Struct, frozen=True):
    """Reports of one session without another's between them; `number` is the sequence of the first.

    When the session had been there before, `after` is the number of the newest stretch that it had heard of; else 0.
    """

    session: str
    number: int
    after: int = 0

    @property
    def name(self) -> str:
        """What the hub calls this stretch, and reports name again."""
        return f"{self.session}.{self.number}"


class Lineage(msgspec.Struct, frozen=True):
    """The newest stretches of a host's reports, oldest first."""

    stretches: tuple[Stretch, ...] = ()

    @property
    def newest(self) -> Stretch | None:
        """The stretch that is going on."""
        return self.stretches[-1] if self.stretches else None


class Forked(msgspec.Struct, frozen=True):
    """Two sessions that were both alive after the other one: there are two machines."""

    session: str
    other: str

    @property
    def why(self) -> str:
        """Say it to a person, with the mark that each machine shows in `skerry agent status`."""
        marks = sorted({machine_mark(self.session), machine_mark(self.other)})
        machines = f"machines {' and '.join(marks)}" if len(marks) == 2 else f"both marked {marks[0]}"
        return f"two agents report with the keys of this host by turns, {machines}: a disk was copied"


def decide_lineage(lineage: Lineage, session: str, sequence: int, heard: str) -> Lineage | Forked:
    """Return the lineage after a new report of `session` that had heard of the stretch named `heard`; or the proof.

    An empty session is that of an agent that names none; it changes nothing.
    """
    newest = lineage.newest
    if not session or (newest is not None and newest.session == session):
        return lineage
    own = [place for place, stretch in enumerate(lineage.stretches) if stretch.session == session]
    after = 0
    if own:
        names = [stretch.name for stretch in lineage.stretches]
        outlived = lineage.stretches[own[-1] + 1 : names.index(heard) + 1] if heard in names else ()
        if not outlived:
            return lineage  # late: from a time in which the newer stretches were not there
        began = lineage.stretches[own[0]].number
        for stretch in outlived:
            if stretch.session != session and stretch.after >= began:
                return Forked(session=session, other=stretch.session)
        after = outlived[-1].number
    return Lineage((*lineage.stretches, Stretch(session, sequence, after))[-KEPT_STRETCHES:])


def machine_mark(session: str) -> str:
    """Return the part of a session's name that tells machines apart."""
    return session.partition("-")[0]
