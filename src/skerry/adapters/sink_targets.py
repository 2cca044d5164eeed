"""Makes the places of sinks, and reads their secrets from files of one directory."""

from __future__ import annotations

from pathlib import Path

from skerry.adapters.mqtt_sink import MqttSink
from skerry.adapters.webhook_sink import WebhookSink
from skerry.kit.errors import Bug
from skerry.ports.clock import Clock
from skerry.ports.sink import SinkTarget
from skerry.spec.sink import Sink


class SinkTargets:
    """Places whose secrets are in `folder`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def make(self, sink: Sink) -> SinkTarget:
        """Return the place of a sink; nothing is opened yet."""
        name, spec = sink.metadata.name, sink.spec
        if spec.webhook is not None:
            return WebhookSink(name, spec.webhook, self._folder, self._clock)
        if spec.mqtt is not None:
            return MqttSink(name, spec.mqtt, self._folder, self._clock)
        raise Bug("sink.nowhere", f"sink {name} names no place")
