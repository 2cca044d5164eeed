"""Host facts, read from the kernel's files below a root directory, so that tests can show it another machine.

Rules: no detector needs root; a fact that cannot be read is left out; a detector that fails is told among the
problems and hinders no other; every fact names its source. `skerry.spec.fact_names` is the table of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

from skerry.adapters.facts.accelerators import detect_accelerators
from skerry.adapters.facts.asking import Ask, ChildAnswers, ask_nobody
from skerry.adapters.facts.cdi import detect_cdi
from skerry.adapters.facts.custom import FOLDER, detect_custom
from skerry.adapters.facts.devices import detect_buses, detect_cameras, detect_serial, detect_usb
from skerry.adapters.facts.disk import detect_disk
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.gpus import detect_gpus
from skerry.adapters.facts.processor import detect_memory, detect_processor
from skerry.adapters.facts.runtimes import detect_runtimes
from skerry.adapters.facts.stating import override_facts
from skerry.adapters.facts.system import detect_machine, detect_system
from skerry.adapters.facts.tree import Tree
from skerry.adapters.facts.uplink import detect_metered
from skerry.adapters.facts.watching import Watcher
from skerry.spec.facts import HostFacts

__all__ = ["HostDetector", "override_facts", "read_facts"]


class HostDetector:
    """All detectors of one machine, and what they remember from one detection to the next.

    `data` is the agent's data directory: its disk is told, and `facts.d` below it is read. `ask` answers what only
    libraries know; without it child processes do, and of another machine than this one nobody.
    """

    def __init__(self, root: Path = Path("/"), *, data: Path | None = None, ask: Ask | None = None) -> None:
        self._tree = Tree(root)
        self._data = data
        self._ask = ask or (ChildAnswers() if self._tree.is_real else ask_nobody)
        self._watcher = Watcher(self._tree, data)

    def detect(self) -> HostFacts:
        """Return all facts. Takes some milliseconds, and seconds where child processes have to be asked."""
        tree, found = self._tree, Findings()
        detectors: dict[str, Callable[[], None]] = {
            "processor": lambda: detect_processor(tree, found),
            "memory": lambda: detect_memory(tree, found),
            "system": lambda: detect_system(tree, found),
            "machine": lambda: detect_machine(tree, found),
            "gpus": lambda: detect_gpus(tree, found, self._ask),
            "accelerators": lambda: detect_accelerators(tree, found, self._ask),
            "cameras": lambda: detect_cameras(tree, found),
            "serial": lambda: detect_serial(tree, found),
            "usb": lambda: detect_usb(tree, found),
            "buses": lambda: detect_buses(tree, found),
            "metered": lambda: detect_metered(tree, found),
            "cdi": lambda: detect_cdi(tree, found),
            "runtimes": lambda: detect_runtimes(tree, found, self._ask, None if tree.is_real else ()),
        }
        if (data := self._data) is not None:
            detectors["disk"] = lambda: detect_disk(tree, found, data)
            detectors["custom"] = lambda: detect_custom(found, data / FOLDER)
        for name, detector in detectors.items():
            try:
                detector()
            except Exception as error:
                # What hardware and firmware present has no end; the other facts still stand.
                found.add_problem(f"detector {name} failed: {type(error).__name__}: {str(error)[:80]}")
        return found.finish()

    def look(self) -> Hashable:
        """Return a value that differs when it is worth detecting again; costs less than a millisecond."""
        return self._watcher.look()


def read_facts(root: Path = Path("/"), *, data: Path | None = None, ask: Ask | None = None) -> HostFacts:
    """Return what this machine is; a fact that cannot be read is left out."""
    return HostDetector(root, data=data, ask=ask).detect()
