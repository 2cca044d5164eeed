"""What an engine is and can do; asked rarely, because Podman takes half a second to say its version."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, cast

from skerry.adapters.engine_api import EngineApi
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import Engine

_FRESH_S = 300.0
_CDI_SINCE_PODMAN = (4, 1)
_DNS_SINCE_PODMAN = (4, 5)  # from then on its own DNS asks the ones that a container is told of
Ability = Literal["processes", "containers", "networks", "devices", "cdi", "pids", "dns"]


class EngineFacts:
    """Knows its engine. Any thread may use it."""

    def __init__(self, api: EngineApi) -> None:
        self._api = api
        self._known: tuple[float, Engine] | None = None

    def engine(self) -> Engine:
        """Return what the engine is; it is asked anew every few minutes, and pinged each time.

        Raises:
            Unavailable: it does not answer.
        """
        known = self._known
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            if not self._api.call("GET", "/_ping").is_good:
                raise Unavailable("runtime.engine_failed", "the container engine is not well")
            return known[1]
        return self._ask()

    def known(self) -> Engine:
        """Return the same without a call when it has been asked before."""
        return self._known[1] if self._known is not None else self._ask()

    def _ask(self) -> Engine:
        version, info = self._get("/version"), self._get("/info")
        components = [str(part.get("Name", "")) for part in version.get("Components") or ()]
        name = "podman" if any(part.startswith("Podman") for part in components) else "docker"
        text = str(version.get("Version", ""))
        abilities: set[Ability] = {"containers", "networks", "devices"}
        is_rootless = self._is_rootless(name, info)
        # Without root the first version of control groups keeps no limits, whatever the engine says.
        if info.get("PidsLimit") and not (is_rootless and str(info.get("CgroupVersion")) == "1"):
            abilities.add("pids")
        if _takes_cdi(name, text, info):
            abilities.add("cdi")
        if name == "docker" or version_of(text) >= _DNS_SINCE_PODMAN:
            abilities.add("dns")
        engine = Engine(name=name, version=text, rootless=is_rootless, can=frozenset(abilities))
        self._known = (time.monotonic(), engine)
        return engine

    def _is_rootless(self, name: str, info: Mapping[str, Any]) -> bool:
        if name == "podman":
            return bool(info.get("Rootless"))
        return any("rootless" in str(option) for option in info.get("SecurityOptions") or ())

    def _get(self, path: str) -> Mapping[str, Any]:
        answer = self._api.call("GET", path)
        said = answer.json() if answer.is_good else None
        if not isinstance(said, dict):
            raise Unavailable("runtime.engine_failed", f"the engine does not say {path}: {answer.message}")
        return cast("Mapping[str, Any]", said)


def _takes_cdi(name: str, version: str, info: Mapping[str, Any]) -> bool:
    if name == "podman":
        return version_of(version) >= _CDI_SINCE_PODMAN
    # Docker names the directories only when the feature is on.
    return bool(info.get("CDISpecDirs"))


def version_of(text: str) -> tuple[int, int]:
    """Return major and minor of a version's text; zeros for what is none."""
    words = text.split(".")[:2]
    if len(words) == 2 and all(word.isdigit() for word in words):
        return int(words[0]), int(words[1])
    return 0, 0
