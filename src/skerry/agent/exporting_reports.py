"""`skerry agent export-reports`: writes what the hub has not acknowledged, to be carried to it by hand.

Nothing is forgotten by this: the host forgets a report when the hub has acknowledged it, which the next bundle says.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from skerry.agent.carried import carried_folder
from skerry.agent.commands import believed_now, read_status
from skerry.agent.identity import load_identity
from skerry.agent.outbox import Outbox
from skerry.agent.wiring.opening import lock_data, open_guard, open_store, this_machine
from skerry.carrier.bundle_file import read_reports, write_reports
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.kit.locking import is_held
from skerry.kit.owning import acting_as_owner
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed

POLL_S = 0.1


class ExportView(msgspec.Struct, frozen=True, kw_only=True):
    """How many reports were written, and how long the file is."""

    host: str
    site: str
    reports: int
    size_bytes: int


def export_reports(data: Path, target: Path, *, timeout_s: float) -> ExportView:
    """Write all reports that the hub has not acknowledged, and a fresh one; a running agent is asked for them.

    Raises:
        Missing: no host has joined a site in this directory (`agent.not_joined`).
        Unavailable: the agent gave no answer in time (`reports.no_answer`), or the file cannot be written.
    """
    status = read_status(data)
    folder = carried_folder(data)
    made = folder / "reports.out"
    with acting_as_owner(data):
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_held(data / "agent.lock"):
            _ask_agent(folder, timeout_s)
        else:
            _make(data, made, status)
    # As who was asked: the stick may be nobody else's.
    _copy(made, target)
    reports = sum(len(part.reports) for part in read_reports(made))
    made.unlink(missing_ok=True)
    return ExportView(
        host=str(status["host"]),
        site=str(status["site"]),
        reports=reports,
        size_bytes=target.stat().st_size,
    )


def _ask_agent(folder: Path, timeout_s: float) -> None:
    request, made = folder / "reports.request", folder / "reports.out"
    made.unlink(missing_ok=True)
    write_file(request, b"")
    deadline = time.monotonic() + timeout_s
    while not made.exists():
        if time.monotonic() > deadline:
            request.unlink(missing_ok=True)
            raise Unavailable("reports.no_answer", f"the agent gave no answer within {timeout_s:g} s")
        time.sleep(POLL_S)


def _make(data: Path, made: Path, status: dict[str, Any]) -> None:
    """Write them in the place of an agent that does not run; what it last saw is what is told."""
    with lock_data(data), contextlib.closing(open_store(data)) as store:
        identity = load_identity(data, open_guard())
        outbox = Outbox(identity, store, f"{this_machine()}-{secrets.token_hex(8)}")
        observed = msgspec.convert(status.get("observed") or {}, type=Observed)
        envelopes = outbox.everything(
            sent_at=believed_now(status),
            clock=datetime.now(UTC),
            generation=observed.generation,
            observed=observed,
            facts=msgspec.convert(status.get("facts") or {}, type=HostFacts),
        )
        write_reports(made, envelopes)


def _copy(made: Path, target: Path) -> None:
    beside = target.with_name(target.name + ".new")
    try:
        shutil.copyfile(made, beside)
        beside.replace(target)
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot write {target}: {error.strerror}") from error
