"""Puts together what measures a host."""

from __future__ import annotations

from skerry.adapters.otlp_door import OtlpDoor
from skerry.adapters.proc_readings import ProcReadings
from skerry.adapters.sqlite_telemetry_buffer import SqliteTelemetryBuffer
from skerry.agent.pushing import Pushing
from skerry.agent.recording import Recorder
from skerry.agent.services.telemetry import Telemetry, Uplink
from skerry.agent.wiring.services import Ground
from skerry.carrier.limiting import Held, Limiter


def open_telemetry(ground: Ground, limiter: Limiter) -> Telemetry:
    """Return the service that measures the host.

    Raises:
        Unavailable: its buffer cannot be opened (`disk.full`, `database.*`).
    """
    syncer = ground.syncer

    def held(size: int) -> str:
        answer = limiter.ask(size)
        if isinstance(answer, Held):
            return answer.why
        limiter.give_back(answer.size)  # what is sent is counted as it goes
        return "" if answer.size >= size else "the link's budget is used up"

    def release_named(digest: str) -> str:
        fact = ground.releases.fact(digest)
        return fact.name if fact else ""

    recorder = Recorder(SqliteTelemetryBuffer.open(ground.data / "telemetry.db"), syncer.now)
    uplink = Uplink(tell=syncer.tell_telemetry, failing=lambda: syncer.failing, held=held)
    telemetry = Telemetry(recorder, ProcReadings(ground.data), ground.clock, uplink)
    telemetry.clock_offset_s = lambda: syncer.time.offset_s
    telemetry.release_named = release_named
    telemetry.pushing = Pushing(OtlpDoor(), recorder, ground.store, syncer.now)
    return telemetry
