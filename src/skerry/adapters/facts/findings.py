"""What detectors find: facts that are safe to report, kinds of accelerators, and problems.

Rules: every text is one bounded line of printable characters, every list bounded and without doubles. An empty text
is not added; an empty list of devices or accelerators is, where it was looked for: none is not the same as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

from skerry.spec.facts import Fact, FactValue, HostFacts
from skerry.spec.hardware import Accelerator, DeviceClass

TEXT_LIMIT = 256
LIST_LIMIT = 128
PROBLEMS_LIMIT = 16
NUMBER_LIMIT = 1 << 53  # what every JSON reader keeps exact

_rooms: dict[str, DeviceClass] = {
    "nvidia-gpu": "gpu",
    "amd-gpu": "gpu",
    "intel-gpu": "gpu",
    "jetson": "gpu",
    "coral-pcie": "tpu",
    "coral-usb": "tpu",
}


class Findings:
    """Collects facts of one detection."""

    def __init__(self) -> None:
        self.facts: HostFacts = {}
        self.gpus = 0
        self._gpu_source = ""
        self._looked_at = ""
        self._problems: list[str] = []
        self._kinds: dict[Accelerator, tuple[list[str], str]] = {}
        self._devices: dict[DeviceClass, tuple[list[str], str]] = {}

    def add(self, name: str, value: FactValue | Iterable[str] | None, source: str) -> None:
        """Add a fact, unless its value is empty or out of bounds."""
        held = tidy_value(value)
        if held is not None:
            self.facts[name] = Fact(value=held, source=tidy_text(source))

    def add_gpu(self, kind: Accelerator, properties: dict[str, FactValue | None], source: str) -> None:
        """Add the next GPU, with `device` among its properties if it has a node."""
        number = self.gpus
        self.gpus += 1
        self._gpu_source = self._gpu_source or source
        for name, value in properties.items():
            self.add(f"gpu.{number}.{name}", value, source)
        device = properties.get("device")
        self.add_accelerator(kind, [device] if isinstance(device, str) and device else [], source)

    def add_accelerator(self, kind: Accelerator, devices: Iterable[str], source: str) -> None:
        """Add a kind of accelerator that can be used, with its device nodes."""
        nodes = list(devices)
        self._kinds.setdefault(kind, ([], source))[0].extend(nodes)
        self.add_devices(_rooms.get(kind, "npu"), nodes, source)

    def add_devices(self, room: DeviceClass, devices: Iterable[str], source: str) -> None:
        """Add devices of a class; that there are none is told, too."""
        nodes, first = self._devices.get(room, ([], source))
        more = list(devices)
        self._devices[room] = [*nodes, *more], first if nodes else source

    def look_for(self, rooms: Iterable[DeviceClass], source: str) -> None:
        """Say that devices of these classes would have been found."""
        for room in rooms:
            self.add_devices(room, (), source)
        self._looked_at = source

    def add_problem(self, text: str) -> None:
        """Remember what could not be found out."""
        if len(self._problems) < PROBLEMS_LIMIT and text not in self._problems:
            self._problems.append(text)

    def finish(self) -> HostFacts:
        """Return all facts, with those that sum up others."""
        for kind, (nodes, source) in sorted(self._kinds.items()):
            self.add(f"accelerator.{kind}.devices", nodes, source)
        sources = ", ".join(dict.fromkeys(source for _, source in self._kinds.values())) or self._looked_at
        if sources:
            kinds: tuple[str, ...] = tuple(sorted(self._kinds))
            self.facts["accelerators"] = Fact(value=kinds, source=tidy_text(sources))
            self.add("gpu.count", self.gpus, self._gpu_source or self._looked_at)
        for room, (nodes, source) in self._devices.items():
            self.facts[f"devices.{room}"] = Fact(value=_texts(nodes), source=tidy_text(source))
        self.add("problems", self._problems, "detectors")
        return dict(sorted(self.facts.items()))


def tidy_value(value: FactValue | Iterable[str] | None) -> FactValue | None:
    """Return a value within bounds, or None when nothing of it is left."""
    match value:
        case None:
            return None
        case bool():
            return value
        case int():
            return value if -NUMBER_LIMIT < value < NUMBER_LIMIT else None
        case str():
            return tidy_text(value) or None
        case _:
            return _texts(value) or None


def _texts(items: Iterable[str]) -> tuple[str, ...]:
    texts = dict.fromkeys(tidy_text(item) for item in items)
    return tuple(text for text in texts if text)[:LIST_LIMIT]


def tidy_text(text: str) -> str:
    """Return one line of printable characters, at most `TEXT_LIMIT` of them."""
    # What was no UTF-8 has become U+FFFD: of a serial number or a name nothing is to be guessed.
    kept = "".join(character if character.isprintable() else " " for character in text[: 4 * TEXT_LIMIT])
    return " ".join(kept.split())[:TEXT_LIMIT]
