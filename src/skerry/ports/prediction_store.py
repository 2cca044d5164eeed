"""PredictionStore: predictions on a host's disk, for the labels that come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from skerry.ports.kept_documents import KeptDocuments
from skerry.telemetry.quality import Joined, Prediction


class Named(NamedTuple):
    """A prediction and its id; one without an id is counted, and not kept."""

    id: str
    prediction: Prediction


class Accepted(NamedTuple):
    """What is to be counted: predictions that are new, and predictions whose label is."""

    predictions: Sequence[Prediction] = ()
    joined: Sequence[Joined] = ()


class PredictionStore(KeptDocuments, Protocol):
    """Durable after each call; a power cut leaves the state before or after it. Usable from any thread.

    Ids are those of one application. A prediction counts once, and so does its label: the first of each id.
    """

    def accept(
        self,
        batch: str,
        app: str,
        *,
        predictions: Sequence[Named],
        labels: Mapping[str, str],
        at: int,
    ) -> Accepted:
        """Keep predictions and labels and return what is new; nothing when this batch (if it has a name) came before.

        A label without its prediction waits for it.

        Raises:
            Unavailable: no room (`disk.full`).
        """
        ...

    def trim(self, *, before: int, most: int) -> int:
        """Forget what is older than an instant, and the oldest beyond `most` predictions; return how many of these.

        Raises:
            Unavailable: the disk cannot be written.
        """
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
