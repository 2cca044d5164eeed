"""What a host knows of one neighbour: where it is, which of its heartbeats was the newest, and what it said."""

from __future__ import annotations

from collections import OrderedDict, deque

from skerry.agent.name_words import Hearing, Saying
from skerry.reconcile.duty import HeardView
from skerry.spec.desired import Neighbour
from skerry.trust.heartbeat import Freshness, Heartbeat, SharingDoor, Word, judge_freshness

LEFT_SESSIONS = 16
UNPROVEN_SESSIONS = 4
PROOF_S = 15.0
SENT_KEPT = 4096
WORDS_KEPT = 256


class SentLog:
    """When this host sent which counter; bounded, the oldest are forgotten."""

    def __init__(self) -> None:
        self.counter = 0
        self._sent: OrderedDict[int, float] = OrderedDict()

    def next(self, now: float) -> int:
        """Return the next counter, sent now."""
        self.counter += 1
        self._sent[self.counter] = now
        while len(self._sent) > SENT_KEPT:
            self._sent.popitem(last=False)
        return self.counter

    def when(self, counter: int) -> float | None:
        """Return when a counter was sent, None when it never was or is forgotten."""
        return self._sent.get(counter)


class Acquaintance:
    """A neighbour. Believes only heartbeats that were verified before."""

    def __init__(self, host: str, stated: Neighbour) -> None:
        self.host = host
        self.stated = stated
        self.address = ""
        self.found: tuple[str, ...] = ()
        self.door: SharingDoor | None = None
        self.session = ""
        self.counter = 0
        self.heard_at: float | None = None
        self.words: dict[str, HeardView] = {}
        self.due = float("-inf")
        self.sent_at = float("-inf")
        self.saying = Saying()
        self.names = Hearing()
        self._left: deque[str] = deque(maxlen=LEFT_SESSIONS)
        self._unproven: OrderedDict[str, int] = OrderedDict()

    def addresses(self) -> tuple[str, ...]:
        """Return where to send: what it says itself, what the hub says, and until it is heard what was found."""
        places = (self.address, self.stated.address, *(() if self.address else self.found))
        return tuple(dict.fromkeys(place for place in places if place))

    def echo(self) -> tuple[str, int]:
        """Return the session and counter to repeat to it: its newest, or once, of a session that must prove itself.

        Only once, because it may be a recording: it must not hide from the neighbour that it is heard.
        """
        if self._unproven and self.session:
            return self._unproven.popitem(last=True)
        return next(reversed(self._unproven.items()), (self.session, self.counter))

    def take(self, heartbeat: Heartbeat, *, session: str, sent: SentLog, now: float) -> Freshness:
        """Take what a heartbeat says if it is news; `session` is this host's own."""
        heard_us = heartbeat.heard_session == session
        knows_at = sent.when(heartbeat.heard_counter) if heard_us else None
        freshness = judge_freshness(
            heartbeat,
            session=self.session,
            counter=self.counter,
            left=self._left,
            proven=knows_at is not None and now - knows_at <= PROOF_S,
        )
        if freshness == "unproven":
            self._note_unproven(heartbeat)
        elif freshness == "first":
            self._begin_session(heartbeat.session)
        if freshness in ("next", "first"):
            self.counter, self.heard_at = heartbeat.counter, now
            self.address = heartbeat.address or self.address
            self.door = heartbeat.door
            if heartbeat.names is not None:
                self.names.take(heartbeat.names)
            for application, word in heartbeat.words.items():
                self._note_word(application, word, heartbeat, knows_at=knows_at, now=now)
        return freshness

    def _note_word(
        self, application: str, word: Word, heartbeat: Heartbeat, *, knows_at: float | None, now: float
    ) -> None:
        """Take a word; what the neighbour once knew of this host it knows for as long as its session lasts."""
        before = self.words.pop(application, None)
        known = [at for at in (knows_at, before.knows_at if before else None) if at is not None]
        self.words[application] = HeardView(
            heard_at=now,
            says=word.says,
            rank=word.rank,
            generation=heartbeat.generation,
            claim=word.claim,
            knows=max(word.knows if knows_at is not None else 0, before.knows if before else 0),
            knows_at=max(known, default=None),
        )
        while len(self.words) > WORDS_KEPT:
            del self.words[next(iter(self.words))]

    def _begin_session(self, session: str) -> None:
        if self.session:
            self._left.append(self.session)
        self.session = session
        self._unproven.clear()
        self.words.clear()

    def _note_unproven(self, heartbeat: Heartbeat) -> None:
        newest = max(self._unproven.pop(heartbeat.session, 0), heartbeat.counter)
        self._unproven[heartbeat.session] = newest
        while len(self._unproven) > UNPROVEN_SESSIONS:
            self._unproven.popitem(last=False)
