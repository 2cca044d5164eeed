"""Networks of ours in an engine: made when a container needs one, removed with its last container.

Rules:
- Making and removing take turns, so that none is removed between its making and its first container.
- Only networks with our owner's label are touched, and the engine refuses to remove one that is in use.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from skerry.adapters.docker_names import NETWORK_LABEL, OWNER_LABEL
from skerry.adapters.engine_api import NOTHING, EngineApi, label_filter, part
from skerry.kit.errors import Unavailable


class EngineNetworks:
    """The networks of one owner. Any thread may use it."""

    def __init__(self, api: EngineApi, owner: str) -> None:
        self._api = api
        self._owner = owner
        self._turn = threading.RLock()

    @contextmanager
    def there(self, name: str) -> Generator[None]:
        """Make sure that a network is there, until its container has been made; an empty name is none.

        Raises:
            Unavailable: it cannot be made.
        """
        if not name:
            yield
            return
        with self._turn:
            self._make(name)
            yield

    def _make(self, name: str) -> None:
        if self._api.call("GET", f"/networks/{part(name)}").is_good:
            return
        body = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Labels": {OWNER_LABEL: self._owner},
        }
        answer = self._api.call("POST", "/networks/create", body=body)
        # Two at once: Docker says 409, Podman 500.
        if not answer.is_good and answer.status != 409 and "already" not in answer.message:
            raise Unavailable("runtime.network_failed", f"cannot make the network {name}: {answer.message}")

    def gateway(self, name: str) -> str:
        """Return this host's address in a network; empty while there is no such network, or it has none.

        Raises:
            Unavailable: the engine does not answer.
        """
        answer = self._api.call("GET", f"/networks/{part(name)}") if name else None
        if answer is None or not answer.is_good:
            return ""
        configured: list[dict[str, Any]] = (answer.json().get("IPAM") or NOTHING).get("Config") or []
        return next((str(one["Gateway"]) for one in configured if one.get("Gateway")), "")

    def tidy(self) -> None:
        """Remove our networks that no container of ours is made for.

        Raises:
            Unavailable: the engine does not answer.
        """
        ours = {"filters": label_filter(f"{OWNER_LABEL}={self._owner}")}
        with self._turn:
            networks = self._api.call("GET", "/networks", query=ours)
            if not networks.is_good or not networks.json():
                return
            containers = self._api.call("GET", "/containers/json", query={"all": "1", **ours})
            if not containers.is_good:
                return
            needed = {(found.get("Labels") or NOTHING).get(NETWORK_LABEL) for found in containers.json()}
            for network in networks.json():
                # The filter is the engine's, and this is the one call that must not hit another's.
                is_ours = (network.get("Labels") or NOTHING).get(OWNER_LABEL) == self._owner
                if is_ours and network["Name"] not in needed:
                    self._api.call("DELETE", f"/networks/{part(str(network['Name']))}")
