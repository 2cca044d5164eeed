"""Takes predictions and labels from applications: keeps what labels have to find, and counts what is new.

Rules: what was taken is on the disk before it is counted, so nothing is counted twice, whatever is sent again; a crash
in between loses counts, never adds any. Predictions count in the minute in which they were made. What is kept is
bounded in time and number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from skerry.agent.pushing import Source
from skerry.agent.recording import Recorder
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected
from skerry.ports.prediction_store import Named, PredictionStore
from skerry.spec.predictions import PredictionBody, PredictionsBody
from skerry.spec.quality import Reference
from skerry.telemetry.quality import (
    PREDICTIONS,
    ClassRoom,
    Joined,
    Origin,
    Prediction,
    Quantities,
    count_joined,
    count_predictions,
)

RETAIN_S = 30 * 86_400
MOST_PREDICTIONS = 200_000
MAX_ROOMS = 256

Of = TypeVar("Of", Prediction, Joined)


class Running(msgspec.Struct, frozen=True):
    """What a component works with now: the release whose models it has, their variants, and their references."""

    release: str
    models: Mapping[str, str] = {}
    references: Mapping[str, Reference] = {}


class Predicting:
    """`take` and `trim` are called in threads. `counted` hears of what was counted."""

    def __init__(
        self,
        store: PredictionStore,
        recorder: Recorder,
        now: Callable[[], datetime],
        counted: Callable[[Quantities], None],
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._now = now
        self._counted = counted
        self._turn = threading.Lock()
        self._rooms: dict[Origin, ClassRoom] = {}
        self.running: Mapping[Source, Running] = {}

    def take(self, source: Source, body: bytes) -> None:
        """Keep and count what an application says.

        Raises:
            Rejected: it is malformed; nothing of it is kept (`quality.malformed`).
            Unavailable: it cannot be kept now; the sender may send it again.
        """
        try:
            said = msgspec.json.decode(body, type=PredictionsBody)
        except UNREADABLE as error:
            raise Rejected("quality.malformed", f"no body of predictions: {str(error)[:200]}") from error
        running = self.running.get(source) or Running(source.release)
        now = self._now().timestamp()
        accepted = self._store.accept(
            said.batch,
            source.app,
            predictions=[Named(one.id, _prediction(one, source, running, now)) for one in said.predictions],
            labels={one.id: one.truth for one in reversed(said.labels)},
            at=int(now),
        )
        with self._turn:
            self._count(
                (
                    count_predictions(of, self._room(origin))
                    for origin, of in _by_origin(accepted.predictions)
                ),
                now,
            )
            self._count(
                (count_joined(of, self._room(origin)) for origin, of in _by_origin(accepted.joined)), now
            )

    def trim(self) -> int:
        """Forget what is older than 30 days, and the oldest of too many; return how many went before their time.

        Raises:
            Unavailable: the disk cannot be written.
        """
        return self._store.trim(before=int(self._now().timestamp()) - RETAIN_S, most=MOST_PREDICTIONS)

    def _count(self, found: Iterable[Quantities], now: float) -> None:
        for quantities in found:
            for minute, values in quantities.items():
                self._recorder.record(values, "quality", at=min(minute, int(now)))
            self._counted(quantities)
        refused = sum(room.refused for room in self._rooms.values())
        if refused:
            self._recorder.refuse(refused, PREDICTIONS)
            for room in self._rooms.values():
                room.refused = 0

    def _room(self, origin: Origin) -> ClassRoom:
        room = self._rooms.get(origin)
        if room is None:
            while len(self._rooms) >= MAX_ROOMS:
                del self._rooms[next(iter(self._rooms))]
            source = Source(origin.app, origin.component, origin.release)
            known = next((one for key, one in self.running.items() if _is_of(key, one, source)), None)
            reference = known.references.get(origin.model) if known else None
            stated = {name: of.classes for name, of in reference.features.items()} if reference else {}
            room = self._rooms[origin] = ClassRoom(stated)
        return room


def _is_of(source: Source, running: Running, origin: Source) -> bool:
    return (source.app, source.component, running.release) == (origin.app, origin.component, origin.release)


def _prediction(body: PredictionBody, source: Source, running: Running, now: float) -> Prediction:
    # A model that the component does not mount is nobody's: it is counted without a name.
    alone = next(iter(running.models)) if len(running.models) == 1 else ""
    model = body.model if body.model in running.models else ("" if body.model else alone)
    origin = Origin(source.app, source.component, running.release, model, running.models.get(model, ""))
    return Prediction(
        origin=origin,
        at=int(now - body.age_s),
        label=body.label,
        score=body.score,
        features=body.features,
    )


def _by_origin(things: Iterable[Of]) -> list[tuple[Origin, list[Of]]]:
    found: dict[Origin, list[Of]] = {}
    for one in things:
        found.setdefault(one.origin, []).append(one)
    return list(found.items())
