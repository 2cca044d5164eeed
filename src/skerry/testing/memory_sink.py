"""SinkTarget in memory: what it took, and failures on demand."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.kit.errors import SkerryError
from skerry.ports.sink import SinkTarget
from skerry.spec.api_topics import TopicMessageView
from skerry.spec.sink import Sink


class MemorySink(SinkTarget):
    """Keeps batches; raises `error` instead while it is set."""

    def __init__(self) -> None:
        self.batches: list[tuple[TopicMessageView, ...]] = []
        self.error: SkerryError | None = None
        self.tries = 0

    @property
    def ids(self) -> list[str]:
        """The ids of all that came, in order."""
        return [message.id for batch in self.batches for message in batch]

    async def deliver(self, messages: Sequence[TopicMessageView]) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.batches.append(tuple(messages))

    async def close(self) -> None:
        pass


class MemorySinks:
    """A place for each sink, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, MemorySink] = {}

    def make(self, sink: Sink) -> MemorySink:
        """Return the place of a sink, the same each time."""
        return self.by_name.setdefault(sink.metadata.name, MemorySink())
