"""Puts together what keeps and tells a host's logs."""

from __future__ import annotations

from skerry.adapters.re2_patterns import Re2Patterns
from skerry.adapters.sqlite_log_ring import SqliteLogRing
from skerry.agent.answering import AnswerLink, AnswerParts
from skerry.agent.log_keeping import LogKeeper
from skerry.agent.own_log import OwnLog
from skerry.agent.services.logs import HostLogs
from skerry.agent.wiring.services import Ground
from skerry.agent.wiring.telemetry import hold_by, name_releases
from skerry.carrier.limiting import Limiter


def open_logs(ground: Ground, limiter: Limiter, own: OwnLog | None) -> HostLogs:
    """Return the service that keeps logs.

    Raises:
        Unavailable: its ring cannot be opened (`disk.full`, `database.*`).
    """
    syncer, clock = ground.syncer, ground.clock
    ring = SqliteLogRing.open(ground.data / "logs.db", syncer.now)
    keeper = LogKeeper(ring, ground.runtime, now=syncer.now, monotonic=clock.monotonic, own=own)
    link = AnswerLink(tell=syncer.tell_answer, failing=lambda: syncer.failing, held=hold_by(limiter))
    parts = AnswerParts(keeper=keeper, patterns=Re2Patterns(), clock=clock, now=syncer.now, link=link)
    logs = HostLogs(ground.identity.place.host, parts, ring)
    logs.release_named = name_releases(ground)
    return logs
