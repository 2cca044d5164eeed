"""Keeps the host's facts fresh: looks every `LOOK_EVERY_S`, detects when something changed and each minute.

Rules: what is known costs nothing to ask for; detection is done in a thread and never fails its callers; a problem is
logged when it begins and when it ends; what changes all the time, such as free space, is told in steps, so that a
host with no news has none to report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

import structlog

from skerry.kit.errors import as_failure
from skerry.ports.clock import Clock
from skerry.spec.facts import HostFacts

_log = structlog.get_logger()

LOOK_EVERY_S = 2.0
DETECT_EVERY_S = 60.0
FREE_STEP = 0.01
"""Free space is told anew when it has moved by this share of the disk."""


class FactsKeeper:
    """The facts of this host: detected ones, those of other parts of the agent, and stated ones, which win.

    `detect` may take seconds, `look` must not; a change of what `look` returns calls for a detection. `extra`
    gives what other parts know at the moment. `overlay` states facts in place of found ones.
    """

    def __init__(
        self,
        detect: Callable[[], HostFacts],
        look: Callable[[], Hashable],
        clock: Clock,
        *,
        extra: Callable[[], HostFacts] = dict,
        overlay: Callable[[HostFacts], HostFacts] = dict,
    ) -> None:
        self._detect = detect
        self._look = look
        self._clock = clock
        self._extra = extra
        self._overlay = overlay
        self._detected: HostFacts = {}
        self._added: HostFacts = {}
        self._facts: HostFacts | None = None
        self._seen: Hashable = None
        self._due = 0.0
        self._failing = ""
        self._problems: frozenset[str] = frozenset()
        self.on_change: Callable[[], None] = lambda: None

    def __call__(self) -> HostFacts:
        """Return the facts as last found; before the first detection only extra and stated ones."""
        return self._overlay(self._extra()) if self._facts is None else self._facts

    async def refresh(self) -> None:
        """Detect now. An error keeps what was known."""
        self._due = self._clock.monotonic() + DETECT_EVERY_S
        try:
            # What comes while we detect is seen as a change at the next look.
            self._seen = self._look()
            found = await asyncio.to_thread(self._detect)
        except Exception as caught:
            error = as_failure(caught)
            if self._failing != error.code:
                _log.error("facts.failing", code=error.code, reason=str(error), exc_info=error.__cause__)
            self._failing = error.code
        else:
            if self._failing:
                _log.info("facts.restored")
            self._failing = ""
            self._detected = _steady(self._detected, found)
            self._log_problems()
        self.merge()

    async def run_forever(self) -> None:
        """Keep the facts fresh."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self.step()

    async def step(self) -> None:
        """Look once, and detect if there is a reason to."""
        try:
            changed = self._look() != self._seen
        except Exception:
            changed = False  # a detection will tell what is wrong
        if changed or self._clock.monotonic() >= self._due:
            await self.refresh()
        elif self._extra() != self._added:
            self.merge()

    def merge(self) -> None:
        """Take in what other parts of the agent know now; costs nothing when that is nothing new."""
        self._added = self._extra()
        facts = self._overlay({**self._detected, **self._added})
        if facts != self._facts:
            self._facts = facts
            self.on_change()

    def _log_problems(self) -> None:
        fact = self._detected.get("problems")
        problems = frozenset(fact.value if fact and isinstance(fact.value, tuple) else ())
        for problem in sorted(problems - self._problems):
            _log.warning("facts.problem", reason=problem)
        for problem in sorted(self._problems - problems):
            _log.info("facts.problem_over", reason=problem)
        self._problems = problems


def _steady(old: HostFacts, new: HostFacts) -> HostFacts:
    """Return the new facts, with the old free space where it has not moved by much."""
    name = "disk.free_bytes"
    before, after, total = old.get(name), new.get(name), new.get("disk.total_bytes")
    if before is None or after is None or total is None:
        return new
    if not (isinstance(before.value, int) and isinstance(after.value, int) and isinstance(total.value, int)):
        return new
    if abs(after.value - before.value) < total.value * FREE_STEP:
        return {**new, name: before}
    return new
