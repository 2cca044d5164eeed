"""The hosts of a site among themselves: what this one says and hears of placed applications, and whose turn it is.

No I/O and no clock: bytes and monotonic seconds go in, bytes, duties and the next instant come out.

- Heartbeats go to hosts that share a placed application with this one, and where it shares blobs, has names or answers
  for names to all of its site, one signed datagram for each.
- A change of what this host says goes out at once, and so does the answer to a claim or to a new session.
- A host whose turn ends says that it runs the application until it has looked: a start may be under way.
- Before the agent has told how its applications stand, nothing is sent and nothing decided: what runs, runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from skerry.agent.acquaintance import Acquaintance, SentLog
from skerry.agent.name_words import split_words
from skerry.kit.errors import Untrusted
from skerry.matching.names import HostWords
from skerry.reconcile.duty import (
    BEAT_MOST_S,
    LOOK_AGAIN_S,
    Duty,
    DutyState,
    HeardView,
    Mine,
    begin_duty,
    decide_duty,
    timing_of,
)
from skerry.spec.desired import DesiredState, SitePlacement
from skerry.spec.names import NamesPart, NameWord
from skerry.trust.heartbeat import (
    Heartbeat,
    SharingDoor,
    Verifier,
    Word,
    key_tag,
    sign_heartbeat,
    verify_heartbeat,
)
from skerry.trust.keys import SigningKey, public_key

PROMPT_GAP_S = 0.05
VERIFIED_PER_S = 200.0
CALM_PER_S = 8.0
MAX_FOUND = 4

Hearing = Literal["heard", "silent", "unknown"]


class AppStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a placed application stands on this host.

    `able`: it could run here, a release of it is laid out and not refused. `alive`: anything of it runs, is
    being started, or has not ended yet.
    """

    able: bool = False
    alive: bool = False


class Neighbourhood:
    """One host's side of the conversation. `version` rises whenever a duty or a neighbour's hearing changes."""

    def __init__(self, *, host: str, site: str, key: SigningKey, session: str, shares: bool = False) -> None:
        """`shares`: this host talks with all of its site, because they share blobs."""
        self._shares = shares
        self._door: SharingDoor | None = None
        self._host, self._site, self._key, self._session = host, site, key, session
        self._retired: SigningKey | None = None
        self._sent = SentLog()
        self._desired: DesiredState | None = None
        self._statuses: Mapping[str, AppStatus] | None = None
        self._known: dict[str, Acquaintance] = {}
        self._verifiers: dict[bytes, Verifier] = {}
        self._states: dict[str, DutyState] = {}
        self._said: dict[str, tuple[object, ...]] = {}
        self._names: tuple[NamesPart, ...] = ()
        self._listens = False
        self._claims = 0
        self._unseen: set[str] = set()
        self._decide_at = float("-inf")
        self._views: Mapping[str, Hearing] = {}
        self._began: float | None = None
        self._budget = (VERIFIED_PER_S, float("-inf"))
        self.address = ""
        self.version = 0
        self.duties: dict[str, Duty] = {}
        self.dropped: dict[str, int] = {}

    # ── what the agent says ──────────────────────────────────────────────────────────────────────────

    def follow(self, desired: DesiredState | None, now: float) -> None:
        """Take what is desired: whom to talk with, about what."""
        self._desired = desired
        stated = desired.neighbours if desired else {}
        for host in [host for host, known in self._known.items() if stated.get(host) != known.stated]:
            moved = stated.get(host)
            if moved is not None and moved.sign_key == self._known[host].stated.sign_key:
                self._known[host].stated = moved
            else:
                del self._known[host]
        self._verifiers = {}
        for host, neighbour in stated.items():
            try:
                key = public_key(neighbour.sign_key)
            except Untrusted:
                continue  # a host that cannot be verified is not heard
            if host != self._host:
                self._known.setdefault(host, Acquaintance(host, neighbour))
                self._verifiers[key_tag(key.keyid)] = Verifier(host, key)
        self.decide(now)

    def take_key(self, key: SigningKey) -> None:
        """Sign with another key, and with the one before as well: each neighbour knows the one its own state names."""
        self._key, self._retired = key, self._key

    def tell(self, statuses: Mapping[str, AppStatus], now: float) -> None:
        """Say how the placed applications stand here; those not named can not run and are not alive.

        Call it with what is seen once everything that earlier duties had caused is done.
        """
        if statuses != self._statuses or self._unseen:
            self._statuses = dict(statuses)
            self._unseen.clear()
            self.decide(now, seen=True)

    def share(self, door: SharingDoor | None) -> None:
        """Say from now on where this host shares blobs."""
        self._door = door
        for known in self._known.values():
            known.due = float("-inf")

    def find(self, tag: bytes, address: str) -> None:
        """Try an address that somebody announced for the neighbour with that key; nothing of it is believed."""
        verifier = self._verifiers.get(tag)
        known = self._known.get(verifier.host) if verifier is not None else None
        if known is not None and address not in known.addresses():
            known.found = (address, *known.found)[:MAX_FOUND]
            known.due = float("-inf")

    def say(self, words: Sequence[NameWord], *, listens: bool) -> bool:
        """Say from now on what names are here; tell whether that is news.

        With names, or where it `listens` for those of others, this host talks with all of its site.
        """
        parts = split_words(words)
        if parts == self._names and listens == self._listens:
            return False
        self._names, self._listens = parts, listens
        for known in self._peers():
            known.due = float("-inf")
        return True

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────

    def receive(self, datagram: bytes, now: float) -> str:
        """Take a datagram and return what became of it: `next`, `first`, `unproven`, or why it was dropped."""
        if not self._afford(now):
            return self._drop("heartbeat.too_many")
        try:
            heartbeat = verify_heartbeat(datagram, self._verifiers, site=self._site, host=self._host)
        except Untrusted as error:
            return self._drop(error.code)
        known = self._known[heartbeat.host]
        claims = {name: view.claim for name, view in known.words.items()}
        freshness = known.take(heartbeat, session=self._session, sent=self._sent, now=now)
        if freshness == "replayed":
            return self._drop("heartbeat.replayed")
        claimed = any(claims.get(name) != view.claim for name, view in known.words.items())
        if freshness != "next" or claimed:
            self._hasten(known, now)
        if freshness != "unproven":
            self.decide(now)
        return freshness

    # ── what goes out ────────────────────────────────────────────────────────────────────────────────

    def outgoing(self, now: float) -> list[tuple[str, bytes]]:
        """Return what is to be sent now, as (address, datagram)."""
        if now >= self._decide_at:
            self.decide(now)
        sending: list[tuple[str, bytes]] = []
        for known in self._peers():
            if now < known.due:
                continue
            applications = self._shared(known)
            beats = [timing_of(self._placements()[name].takeover_s).beat_s for name in applications]
            known.due, known.sent_at = now + min(beats, default=self._calm_beat_s()), now
            said = known.saying.due(self._names)
            for number, part in enumerate(said or (None,)):
                for datagram in self._datagrams(known, applications if number == 0 else [], now, part):
                    sending += [(address, datagram) for address in known.addresses()]
        return sending

    def next_due_s(self, now: float) -> float:
        """Return in how many seconds to call `outgoing` again at the latest."""
        times = [known.due for known in self._peers()]
        return max(0.0, min([now + LOOK_AGAIN_S, self._decide_at, *times]) - now)

    @property
    def needed(self) -> bool:
        """Whether there is anybody to talk with."""
        return bool(self._peers())

    def doors(self, now: float) -> dict[str, tuple[str, SharingDoor | None]]:
        """Return where the neighbours that are heard share, as (host of its address, door); None: it does not."""
        return {
            known.host: (known.address.rpartition(":")[0], known.door)
            for known in self._peers()
            if known.address and self._hearing(known, now) == "heard"
        }

    def names(self, now: float) -> list[HostWords]:
        """Return what the neighbours said of names, each with its address and whether it is heard now."""
        return [
            HostWords(
                host=known.host,
                address=(known.address or known.stated.address).rpartition(":")[0].strip("[]"),
                heard=self._began is not None and self._hearing(known, now) == "heard",
                words=known.names.words,
            )
            for known in self._known.values()
        ]

    def knows_names(self, now: float) -> bool:
        """Tell whether every neighbour has said all of its names to this run of the agent, or had the time to."""
        if self._began is None:
            return False
        return now - self._began > self._calm_beat_s() * 4 or all(k.names.whole for k in self._known.values())

    @property
    def views(self) -> Mapping[str, Hearing]:
        """Whom of those this host talks with it hears."""
        return self._views

    def decide(self, now: float, *, seen: bool = False) -> None:
        """Decide all duties anew; what this host says then goes out at once if it has changed.

        `seen`: the statuses are of this moment.
        """
        self._decide_at = now + LOOK_AGAIN_S
        if self._statuses is None or self._desired is None:
            self.duties, self._views = {}, {}
            return
        self._began = now if self._began is None else self._began
        duties: dict[str, Duty] = {}
        for name in self._concerned():
            duties[name] = self._decide_one(name, now)
            if not seen and name in self.duties and self.duties[name].active > duties[name].active:
                self._unseen.add(name)
                duties[name] = self._decide_one(name, now)
        self._decide_at = now + min([LOOK_AGAIN_S, *(duty.wake_in_s for duty in duties.values())])
        before, self.duties = self.duties, duties
        views: dict[str, Hearing] = {known.host: self._hearing(known, now) for known in self._peers()}
        if views != self._views or _shown(duties) != _shown(before):
            self.version += 1
        self._views = views
        self._states = {name: duty.state for name, duty in duties.items()}
        said: dict[str, tuple[object, ...]] = {
            name: (duty.says, duty.rank, duty.state.claim) for name, duty in duties.items()
        }
        if said != self._said:
            self._said = said
            for known in self._peers():
                self._hasten(known, now)

    def _decide_one(self, name: str, now: float) -> Duty:
        assert self._statuses is not None
        assert self._desired is not None
        placement = self._desired.placements[name]
        status = self._statuses.get(name, AppStatus())
        alive = status.alive or name in self._unseen
        silent_s = timing_of(placement.takeover_s).silent_s
        hearing: dict[str, HeardView] = {}
        for host, known in self._known.items():
            if name in known.words:
                hearing[host] = known.words[name]
                if host not in placement.hosts and known.words[name].heard_at < now - silent_s:
                    del known.words[name]  # it is not placed there any more and says nothing of it
        mine = Mine(host=self._host, generation=self._desired.generation, able=status.able, alive=alive)
        state = self._states.get(name) or begin_duty(alive=alive, now=now, claim=self._claims)
        duty = decide_duty(placement, mine, hearing, state, now=now)
        self._claims = max(self._claims, duty.state.claim)
        return duty

    def _hearing(self, known: Acquaintance, now: float) -> Hearing:
        assert self._began is not None
        shared = [timing_of(self._placements()[name].takeover_s).silent_s for name in self._shared(known)]
        silent_s = max(shared, default=self._calm_beat_s() * 4)
        if known.heard_at is None:
            return "unknown" if now - self._began <= silent_s else "silent"
        return "heard" if now - known.heard_at <= silent_s else "silent"

    def _datagrams(
        self, known: Acquaintance, applications: list[str], now: float, names: NamesPart | None
    ) -> Iterable[bytes]:
        """Yield signed heartbeats, as few as hold all applications and these names."""
        session, counter = known.echo()
        heartbeat = Heartbeat(
            site=self._site,
            host=self._host,
            to=known.host,
            session=self._session,
            counter=self._sent.next(now),
            generation=self._desired.generation if self._desired else 0,
            address=self.address,
            heard_session=session,
            heard_counter=counter,
            words={name: self._word(known, name) for name in applications},
            door=self._door,
            names=names,
        )
        datagram = sign_heartbeat(heartbeat, self._key)
        if datagram is not None:
            yield datagram
            older = sign_heartbeat(heartbeat, self._retired) if self._retired is not None else None
            if older is not None:
                yield older
        elif names is not None and applications:
            yield from self._datagrams(known, applications, now, None)
            yield from self._datagrams(known, [], now, names)
        elif len(applications) > 1:
            half = len(applications) // 2
            yield from self._datagrams(known, applications[:half], now, None)
            yield from self._datagrams(known, applications[half:], now, None)

    def _word(self, known: Acquaintance, name: str) -> Word:
        duty, heard = self.duties[name], known.words.get(name)
        return Word(duty.says, duty.rank, duty.state.claim, heard.claim if heard else 0)

    def _placements(self) -> Mapping[str, SitePlacement]:
        return self._desired.placements if self._desired else {}

    def _concerned(self) -> list[str]:
        """Return the placed applications that this host has a part in: it is listed, assigned, or runs them still."""
        assert self._desired is not None
        assigned = {each.application for each in self._desired.hosts.get(self._host, ())}
        if self._host not in self._desired.hosts:
            return []  # nothing is said about this host: absence is no instruction
        alive = {name for name, status in (self._statuses or {}).items() if status.alive}
        return sorted(
            name
            for name, placement in self._desired.placements.items()
            if self._host in placement.hosts or name in assigned | alive
        )

    def _shared(self, known: Acquaintance) -> list[str]:
        return [
            name
            for name in self.duties
            if known.host in self._placements()[name].hosts or name in known.words
        ]

    def _peers(self) -> list[Acquaintance]:
        if self._statuses is None:
            return []
        to_all = self._shares or self._listens or any(part.words for part in self._names)
        return [known for known in self._known.values() if to_all or self._shared(known)]

    def _calm_beat_s(self) -> float:
        """Return how often to say that there is nothing to say: seldom where there are many to say it to."""
        return max(BEAT_MOST_S, len(self._known) / CALM_PER_S)

    def _hasten(self, known: Acquaintance, now: float) -> None:
        known.due = min(known.due, max(now, known.sent_at + PROMPT_GAP_S))

    def _afford(self, now: float) -> bool:
        """Tell whether one more signature may be checked: whoever floods this host gets a share of it, not all."""
        left, at = self._budget
        left = min(VERIFIED_PER_S, left + (now - at) * VERIFIED_PER_S)
        self._budget = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def _drop(self, code: str) -> str:
        self.dropped[code] = self.dropped.get(code, 0) + 1
        return code


def _shown(duties: Mapping[str, Duty]) -> dict[str, tuple[bool, str]]:
    return {name: (duty.active, duty.why) for name, duty in duties.items()}
