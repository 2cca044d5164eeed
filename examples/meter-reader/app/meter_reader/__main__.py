"""Starts the application: `python3 meter-reader.pyz`, or `python -m meter_reader` beside the package.

The exit code is 0 after SIGTERM or SIGINT, 2 where the surroundings do not fit. SIGHUP takes the model that the model
directory holds by then, and so does `POST /reload`, which keeps the one in use when the new one is refused.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import sys
from importlib.resources import files
from types import FrameType
from typing import TYPE_CHECKING

from meter_reader.settings import Settings, SettingsError, parse_settings

if TYPE_CHECKING:
    from meter_reader.model import DigitModel, ModelRefusedError

# Requests in flight may finish this long after SIGTERM; shorter than the grace the release asks of the host.
DRAIN_S = 3
MAX_CONNECTIONS = 64


def main() -> int:
    """Serve until told to stop; the exit code for the process."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    # Must be set before numpy is imported: its linear algebra would start threads that nothing here uses.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if misfit := _misfit():
        print(f"meter-reader: {misfit}", file=sys.stderr)
        return 2
    try:
        settings = parse_settings(os.environ)
    except SettingsError as error:
        print(f"meter-reader: {error}", file=sys.stderr)
        return 2
    # A hangup before there is a model means nothing: the first one is still to be loaded.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The server gives a stop signal on to the handler from before, once it has drained. This one makes it a
    # clean exit.
    signal.signal(signal.SIGTERM, exit_cleanly)
    signal.signal(signal.SIGINT, exit_cleanly)
    _serve(settings)
    return 0


def _serve(settings: Settings) -> None:
    # Imported late, so that the checks above can speak before compiled libraries are loaded.
    import uvicorn

    from meter_reader.bus import BusReader, parse_bus_settings
    from meter_reader.web import MeterReader

    reader = MeterReader(_load(settings), lambda: _load(settings))

    def reload(_signum: int, _frame: FrameType | None) -> None:
        reader.use(_load(settings))

    signal.signal(signal.SIGHUP, reload)
    if bus := parse_bus_settings(os.environ):
        BusReader(bus, reader.read_picture).open()
    uvicorn.run(
        reader,
        host=settings.host,
        port=settings.port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=DRAIN_S,
    )


def _load(settings: Settings) -> DigitModel | ModelRefusedError:
    """The model in the model directory, or why it cannot be used; it takes some hundredths of a second."""
    from meter_reader.model import ModelRefusedError, load_model

    log = logging.getLogger("meter_reader")
    try:
        # Resolved once: the directory may be a link that goes over to another model between two files.
        model = load_model(settings.model_dir.resolve())
    except ModelRefusedError as refused:
        log.error("model refused: %s", refused)  # noqa: TRY400 - the reason is enough
        return refused
    log.info("model %s (%s) passed its self-check", model.description.version, model.description.variant)
    return model


def _misfit() -> str:
    """Why this interpreter cannot run the bundle's compiled libraries; empty where nothing is in the way."""
    note = files("meter_reader") / "built-for.json"
    if not note.is_file():
        return ""
    wanted = json.loads(note.read_text(encoding="utf-8"))
    here = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "machine": platform.machine()}
    if here == wanted:
        return ""
    told = [f"Python {each['python']} on {each['machine']}" for each in (wanted, here)]
    return f"built for {told[0]}, this is {told[1]}"


def exit_cleanly(_signum: int, _frame: FrameType | None) -> None:
    """End the process with exit code 0."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
