"""Who dials this relay, as its RelayState names them: hosts, and relays below; and what the hub said of each host."""

from __future__ import annotations

import base64
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from securesystemslib.signer import Key

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, SkerryError, Unauthenticated, Untrusted
from skerry.spec.carrier import HubTime, JsonEnvelope
from skerry.spec.carrying import HostAnswer
from skerry.spec.relay import RelayState
from skerry.trust.keys import key_id, public_key

OVERTAKEN = 64
T = TypeVar("T", bound=msgspec.Struct)
_NO_TIME = HubTime(host="", sequence=0, now=datetime(1970, 1, 1, tzinfo=UTC))

MAX_PASSED = 1000
HEARD_WITHIN_S = 3600.0
"""Whoever was not heard for so long does not dial this relay any more, as far as it knows."""
PROBLEM_S = 30.0
"""For so long a host is told at once what the hub refused it for; then the hub is asked again."""


class Guest(msgspec.Struct, kw_only=True, eq=False):
    """A host that is known here.

    `held` is the newest sequence on this relay's disk, `acknowledged` what the hub has, `telling` the newest taken
    report that tells something. `came_by` is the relay below that it last came by; empty when it dials this one.
    `waiting` counts its requests that wait here, `there` says that it waits at a relay below. `begun_again` counts how
    often it was asked to hand over everything anew.
    `tell_all`, `newest` and `time` are what the hub said and the host has not heard; `heard_at` is monotonic.
    """

    key: str
    name: str
    site: str
    public: str
    held: int = 0
    acknowledged: int = 0
    telling: int = 0
    newest: str = ""
    tell_all: bool = False
    time: JsonEnvelope | None = None
    time_of: int = 0
    problem: str = ""
    detail: str = ""
    problem_until: float = 0.0
    came_by: str = ""
    heard_at: float | None = None
    waiting: int = 0
    there: bool = False
    begun_again: int = 0
    verifier: Key | None = None

    def verify_with(self) -> Key:
        """Return the key that its reports are signed with."""
        if self.verifier is None:
            self.verifier = public_key(self.public)
        return self.verifier

    def refuse(self, now: float) -> None:
        """Raise what the hub refused this host for a moment ago."""
        if self.problem and now < self.problem_until:
            raise problem_error(self.problem, self.detail)

    def take(self, answer: HostAnswer, now: float) -> bool:
        """Note what the hub said; tell whether the host should hear of it now."""
        told = self.acknowledged < self.telling <= answer.acknowledged
        self.acknowledged = max(self.acknowledged, answer.acknowledged)
        self.newest = answer.newest
        self.tell_all = self.tell_all or answer.tell_all
        self.time, self.time_of = answer.time, _sequence_of(answer.time)
        self.problem, self.detail, self.problem_until = answer.problem, answer.detail, now + PROBLEM_S
        return told or answer.tell_all or bool(answer.newest or answer.time or answer.problem)

    def hear(self, sequence: int, *, held: int | None = None) -> HostAnswer:
        """Return what the host, or the relay below, hears now with its report `sequence`; it is told once."""
        answer = HostAnswer(
            key=self.key,
            acknowledged=self.acknowledged,
            held=self.held if held is None else held,
            newest=self.newest,
            tell_all=self.tell_all,
            time=self.time if self.time_of == sequence or self.came_by else None,
            problem=self.problem,
            detail=self.detail,
        )
        self.newest, self.tell_all, self.time, self.problem = "", False, None, ""
        return answer

    def has_news(self, sequence: int) -> bool:
        """Tell whether there is something that a host waits for with its report `sequence`."""
        return self.tell_all or bool(self.newest) or (self.time is not None and self.time_of == sequence)


class Below(msgspec.Struct, kw_only=True, eq=False):
    """A relay below. `report` is its newest to hand up, if there is one.

    `told` are hosts of it that the hub said something to; `urgent` says that some of that is worth waking it for.
    """

    name: str
    key: Key
    sequence: int = 0
    recent: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=OVERTAKEN))
    report: JsonEnvelope | None = None
    has_view: bool = False
    told: set[str] = msgspec.field(default_factory=set[str])
    urgent: bool = False
    heard_at: float | None = None
    direct: bool = False
    time_asked_at: float = float("-inf")

    def is_new(self, sequence: int) -> bool:
        """Note the number of a report; tell whether it was not heard before. Some may overtake each other."""
        if sequence <= self.sequence - OVERTAKEN or sequence in self.recent:
            return False
        self.recent.append(sequence)
        self.sequence = max(self.sequence, sequence)
        return True


class Guests:
    """All that a RelayState names, by the keys they sign with."""

    def __init__(self, held: dict[str, int]) -> None:
        """`held` is by host key what is on disk already."""
        self._held = held
        self._hosts: dict[str, Guest] = {}
        self._names: set[str] = set()
        self._relays: dict[str, Below] = {}
        self._passed: OrderedDict[str, float] = OrderedDict()

    def follow(self, state: RelayState) -> None:
        """Know whom a newer state names, and nobody else."""
        hosts: dict[str, Guest] = {}
        before = {(guest.site, guest.name, guest.public): guest for guest in self._hosts.values()}
        for site, keys in state.sites.items():
            for name, public in keys.items():
                guest = before.get((site, name, public)) or self._guest(site, name, public)
                if guest is not None:
                    hosts[guest.key] = guest
        self._hosts = hosts
        self._names = {guest.name for guest in hosts.values()}
        for guest in hosts.values():
            if (heard_at := self._passed.pop(guest.name, None)) is not None:
                guest.heard_at = heard_at
        relays: dict[str, Below] = {}
        known = {(below.name, below.key.keyid): below for below in self._relays.values()}
        for name, public in state.relays.items():
            try:
                key = public_key(public)
            except Untrusted:
                continue
            relays[key.keyid] = known.get((name, key.keyid)) or Below(name=name, key=key)
        self._relays = relays

    def host(self, key: str) -> Guest | None:
        """Return the host that signs with a key."""
        return self._hosts.get(key)

    def relay(self, key: str) -> Below | None:
        """Return the relay below that signs with a key."""
        return self._relays.get(key)

    def relay_named(self, name: str) -> Below | None:
        """Return a relay below by its name."""
        return next((below for below in self._relays.values() if below.name == name), None)

    def hosts(self) -> Iterable[Guest]:
        """Return all hosts."""
        return self._hosts.values()

    def relays(self) -> Iterator[Below]:
        """Return all relays below."""
        yield from self._relays.values()

    def note_passed(self, name: str, now: float) -> bool:
        """Note that the hub took what a host said here that is not known here; tell whether that is news."""
        if name in self._names:
            return False
        new = name not in self._passed
        self._passed[name] = now
        self._passed.move_to_end(name)
        while len(self._passed) > MAX_PASSED:
            self._passed.popitem(last=False)
        return new

    def callers(self, now: float) -> dict[str, int]:
        """Return the hosts that dial this relay, by name, and for how many seconds they were not heard."""
        heard = {name: int(now - at) for name, at in self._passed.items()}
        heard.update(
            (guest.name, int(now - guest.heard_at))
            for guest in self._hosts.values()
            if guest.heard_at is not None and not guest.came_by
        )
        return {name: age_s for name, age_s in heard.items() if age_s < HEARD_WITHIN_S}

    def callers_below(self, now: float) -> dict[str, int]:
        """Return the same of the relays that dial this one."""
        heard = {
            one.name: int(now - one.heard_at)
            for one in self._relays.values()
            if one.heard_at is not None and one.direct
        }
        return {name: age_s for name, age_s in heard.items() if age_s < HEARD_WITHIN_S}

    def has_host(self, name: str) -> bool:
        """Tell whether a host of that name is known."""
        return name in self._names

    def _guest(self, site: str, name: str, public: str) -> Guest | None:
        try:
            key = key_id(public)
        except Untrusted:
            return None
        return Guest(key=key, name=name, site=site, public=public, held=self._held.pop(key, 0))


def problem_error(code: str, detail: str) -> SkerryError:
    """Return the error that the hub would have raised to a host that dials it."""
    if code == "host.unknown":
        return Unauthenticated(code, detail, hint="join again with a new token")
    if code.partition(".")[0] in ("envelope", "document", "report", "key"):
        return Untrusted(code, detail)
    return Denied(code, detail)


def is_passing(code: str) -> bool:
    """Tell whether a problem is one of the upstream's own, that has nothing to do with the host."""
    return code.partition(".")[0] in ("disk", "database", "relay", "link", "rate", "internal", "hub")


def _sequence_of(time: JsonEnvelope | None) -> int:
    """Return which report a HubTime envelope answers. Believe nothing: the host verifies it."""
    return (unverified(time, HubTime) or _NO_TIME).sequence if time is not None else 0


def unverified(envelope: JsonEnvelope, kind: type[T]) -> T | None:
    """Return what an envelope says, whoever signed it; None when it is no such document."""
    try:
        return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=kind)
    except (*UNREADABLE, KeyError, TypeError, ValueError):
        return None
