"""Puts together what measures a host."""

from __future__ import annotations

from collections.abc import Callable

from skerry.adapters.otlp_door import OtlpDoor
from skerry.adapters.proc_readings import ProcReadings
from skerry.adapters.sqlite_predictions import SqlitePredictions
from skerry.adapters.sqlite_telemetry_buffer import SqliteTelemetryBuffer
from skerry.agent.pushing import Pushing
from skerry.agent.recording import Recorder
from skerry.agent.services.quality import FILE, HostQuality
from skerry.agent.services.telemetry import Telemetry, Uplink
from skerry.agent.wiring.services import Ground
from skerry.carrier.limiting import Held, Limiter


def open_telemetry(ground: Ground, limiter: Limiter) -> tuple[Telemetry, HostQuality]:
    """Return the service that measures the host, and the one that follows what its models answer.

    Raises:
        Unavailable: a buffer cannot be opened (`disk.full`, `database.*`).
    """
    syncer = ground.syncer
    recorder = Recorder(SqliteTelemetryBuffer.open(ground.data / "telemetry.db"), syncer.now)
    uplink = Uplink(tell=syncer.tell_batch, failing=lambda: syncer.failing, held=hold_by(limiter))
    telemetry = Telemetry(recorder, ProcReadings(ground.data), ground.clock, uplink)
    telemetry.clock_offset_s = lambda: syncer.time.offset_s
    telemetry.release_named = name_releases(ground)
    telemetry.pushing = Pushing(OtlpDoor(), recorder, ground.store, syncer.now)
    quality = _quality(ground, recorder)
    telemetry.pushing.predicted = quality.predicting.take
    return telemetry, quality


def hold_by(limiter: Limiter) -> Callable[[int], str]:
    """Return what says why so many bytes may not be sent now; empty when they may."""

    def held(size: int) -> str:
        answer = limiter.ask(size)
        if isinstance(answer, Held):
            return answer.why
        limiter.give_back(answer.size)  # what is sent is counted as it goes
        return "" if answer.size >= size else "the link's budget is used up"

    return held


def name_releases(ground: Ground) -> Callable[[str], str]:
    """Return what names the release of a digest, or gives nothing where it is not known."""

    def name(digest: str) -> str:
        fact = ground.releases.fact(digest)
        return fact.name if fact else ""

    return name


def _quality(ground: Ground, recorder: Recorder) -> HostQuality:
    syncer = ground.syncer
    store = SqlitePredictions.open(ground.data / "predictions.db")
    quality = HostQuality(store, recorder, ground.clock, now=syncer.now, file=ground.data / FILE)
    quality.fact_of, quality.release_of = ground.releases.fact, ground.releases.release
    quality.taken_by = lambda family: ground.live.taken.get(family, "")
    quality.note = lambda kind, message, application: syncer.note(kind, message, application=application)
    return quality
