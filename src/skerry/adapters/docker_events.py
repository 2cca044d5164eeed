"""An engine's stream of events, read in a thread of its own.

Rules:
- Events only say "look again": names differ between engines (Docker `destroy`, Podman `remove`), so all
  count but those of commands beside containers and the like, of which health checks make many.
- A stream that was silent and one that was cut look alike to the reader's user only until `ended` is told.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Literal

from skerry.adapters.docker_names import OWNER_LABEL
from skerry.adapters.engine_api import EngineApi, EngineStream
from skerry.kit.errors import SkerryError

Told = Literal["opened", "changed", "ended"]

_LINE_LIMIT_BYTES = 256 << 10
_OPEN_LIMIT_S = 30.0
_UNIMPORTANT = (
    "exec", "health_status", "attach", "top", "resize", "archive", "copy", "export", "commit", "mount", "unmount",
)  # fmt: skip


class EventReader(threading.Thread):
    """Reads until the stream ends or `cut` is called, and tells what it sees; one reader for one stream."""

    def __init__(self, api: EngineApi, owner: str, told: Callable[[Told], None]) -> None:
        super().__init__(name="skerry-engine-events", daemon=True)
        self._api = api
        self._told = told
        self._filters = json.dumps({"label": [f"{OWNER_LABEL}={owner}"], "type": ["container"]})
        self._turn = threading.Lock()
        self._stream: EngineStream | None = None
        self._is_cut = False

    def run(self) -> None:
        """Read; called by the thread."""
        try:
            with self._api.request(
                "GET", "/events", query={"filters": self._filters}, timeout_s=_OPEN_LIMIT_S
            ) as stream:
                if stream.status == 200 and self._take(stream):
                    self._told("opened")
                    for line in stream.lines(_LINE_LIMIT_BYTES):
                        if is_important(line):
                            self._told("changed")
        except (SkerryError, ValueError):
            # Away, cut, or a stream closed under the reader: all the same to who waits for it.
            pass
        finally:
            self._told("ended")

    def cut(self) -> None:
        """End the reading at once; any thread may call it, and again."""
        with self._turn:
            self._is_cut = True
            if self._stream is not None:
                self._stream.shut()

    def _take(self, stream: EngineStream) -> bool:
        with self._turn:
            self._stream = stream
            return not self._is_cut


def is_important(line: bytes) -> bool:
    """Tell whether an event may change what is known of a container; what cannot be read may."""
    try:
        said = json.loads(line)
        action = str(said.get("Action") or said.get("status") or "")
    except (ValueError, AttributeError):
        return bool(line.strip())
    return not action.startswith(_UNIMPORTANT)
