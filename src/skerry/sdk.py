"""What an application says about its model's answers: a few lines of code, the standard library alone.

    predictions = Predictions()
    predictions.record("part-17", label="scratch", score=0.93, features={"width": 12.5, "line": "north"})
    predictions.label("part-17", "scratch")  # when somebody has looked, days later perhaps

Rules: a call never waits, never raises and never grows without bound: where nobody listens, or too slowly, what is
recorded is dropped and counted. Nothing is done where no host gave an address (`SKERRY_TELEMETRY_URL`). This file needs
nothing of Skerry: it may be copied into an application. Any other language can do the same: docs/internals/quality.md.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Union

VARIABLE = "SKERRY_TELEMETRY_URL"
MAX_QUEUED = 10_000
MAX_AT_ONCE = 1000
MAX_FEATURES = 32
MAX_ID, MAX_MODEL, MAX_TEXT, MAX_NAME = 128, 63, 256, 63
MAX_AGE_S = 86_400.0
SEND_EVERY_S = 1.0
TRY_AGAIN_S = 10.0
TIMEOUT_S = 5.0
LARGEST = 1e300
Value = Union[float, int, str, bool]  # noqa: UP007 (copied into applications of older Pythons)


class Predictions:
    """Hands predictions and labels to the host, in a thread that begins with the first of them.

    `dropped` counts what could not be kept, `refused` what the host would not take, `sent` what it has.
    """

    def __init__(self, url: str | None = None, *, model: str = "", most: int = MAX_QUEUED) -> None:
        self._url = (os.environ.get(VARIABLE, "") if url is None else url).rstrip("/")
        self._model = model[:MAX_MODEL]
        self._most = most
        self._turn = threading.Lock()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._queue: deque[tuple[str, float, dict[str, Any]]] = deque()
        self._thread: threading.Thread | None = None
        self.dropped = self.refused = self.sent = 0

    def record(
        self,
        prediction_id: str = "",
        *,
        label: str = "",
        score: float | None = None,
        features: Mapping[str, Value] | None = None,
        model: str = "",
    ) -> None:
        """Say what the model answered: its class, how sure it is (0 to 1 for calibration), and what it was given.

        Only a prediction with an id can get a label later. `model` is needed where a component mounts several.
        """
        said: dict[str, Any] = {}
        if prediction_id:
            said["id"] = str(prediction_id)[:MAX_ID]
        if label != "":
            said["label"] = _text(label)
        if score is not None and (number := _number(score)) is not None:
            said["score"] = number
        if model or self._model:
            said["model"] = str(model or self._model)[:MAX_MODEL]
        if features:
            said["features"] = _features(features)
        self._put("predictions", said)

    def label(self, prediction_id: str, truth: str) -> None:
        """Say what was true of a prediction, whenever that is known; of several the first one counts."""
        if prediction_id and truth != "":
            self._put("labels", {"id": str(prediction_id)[:MAX_ID], "truth": _text(truth)})

    def flush(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait until all is sent, for so long at the most, and tell whether it is. What goes on running needs none."""
        end = time.monotonic() + timeout_s
        self._news.set()
        while time.monotonic() < end:
            with self._turn:
                if not self._queue:
                    return True
            self._news.set()
            time.sleep(0.01)
        return not self._queue

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send what is left, for so long at the most, and end the thread."""
        if self._thread is not None and self._thread.is_alive():
            self.flush(timeout_s)
            self._closing.set()
            self._news.set()

    def _put(self, what: str, said: dict[str, Any]) -> None:
        if not self._url:
            return
        with self._turn:
            if len(self._queue) >= self._most or self._closing.is_set():
                self.dropped += 1
                return
            self._queue.append((what, time.monotonic(), said))
            full = len(self._queue) >= MAX_AT_ONCE
            if self._thread is None or not self._thread.is_alive():  # none yet, or this process was forked
                self._thread = threading.Thread(target=self._run, name="skerry-predictions", daemon=True)
                self._thread.start()
                atexit.register(self.close, 1.0)
        if full:
            self._news.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait(SEND_EVERY_S)
            self._news.clear()
            while self._queue and not self._closing.is_set():
                # The same under one name until it is taken: what came twice counts once.
                with self._turn:
                    taken = [self._queue[place] for place in range(min(len(self._queue), MAX_AT_ONCE))]
                if not self._send(os.urandom(16).hex(), taken):
                    return
                with self._turn:
                    for _ in taken:
                        self._queue.popleft()

    def _send(self, batch: str, taken: list[tuple[str, float, dict[str, Any]]]) -> bool:
        """Send until the host has it or will never take it; tell whether there is to be more."""
        while not self._closing.is_set():
            try:
                status = self._post(batch, taken)
            except (OSError, ValueError):
                status = 0
            if 200 <= status < 300:
                self.sent += len(taken)
                return True
            if 400 <= status < 500 and status not in (408, 429):
                self.refused += len(taken)
                return True
            self._closing.wait(TRY_AGAIN_S)
        return False

    def _post(self, batch: str, taken: list[tuple[str, float, dict[str, Any]]]) -> int:
        now = time.monotonic()
        body: dict[str, Any] = {"batch": batch, "predictions": [], "labels": []}
        for what, at, said in taken:
            age = {"age_s": min(round(max(now - at, 0.0), 3), MAX_AGE_S)} if what == "predictions" else {}
            body[what].append({**said, **age})
        return _post(f"{self._url}/v1/predictions", body)


def _post(url: str, body: dict[str, Any]) -> int:
    # Only here: an application that is asked for nothing pays for no HTTP.
    import json
    import urllib.error
    import urllib.request

    # The host's address is this machine's own: no proxy is asked, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(  # noqa: S310 (the host's own address)
        url,
        data=json.dumps(body, allow_nan=False).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            answer.read(1024)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()[:MAX_TEXT]


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(number, -LARGEST), LARGEST) if math.isfinite(number) else None


def _features(features: Mapping[str, Value]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, value in list(features.items())[:MAX_FEATURES]:
        text = "".join(
            c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in str(name)[:MAX_NAME]
        )
        if not text or not (text[0].isalpha() or text[0] == "_"):
            text = f"_{text}"[:MAX_NAME]
        if isinstance(value, (str, bool)):
            found[text] = _text(value)
        elif (number := _number(value)) is not None:
            found[text] = number
    return found
