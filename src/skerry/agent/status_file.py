"""How things stand at this host, as a file that `skerry agent status` reads; written when something changed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from skerry.agent.loops.sync import Syncer
from skerry.kit.durable import write_file
from skerry.kit.errors import SkerryError
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed


class StatusFile:
    """The file of one host. It is for people there only, so a full disk stops nobody."""

    def __init__(self, file: Path, *, host: str, site: str) -> None:
        self._file = file
        self._host = host
        self._site = site
        self._written = b""

    def write(self, syncer: Syncer, observed: Observed, facts: HostFacts) -> None:
        """Write how things stand now, if that is news."""
        status = msgspec.json.encode(
            {
                "host": self._host,
                "site": self._site,
                "last_contact": syncer.last_contact,
                "time": syncer.time,
                "upstreams": syncer.upstreams() or [],
                "observed": observed,
                "facts": facts,
            }
        )
        if status != self._written:
            self._written = status
            with contextlib.suppress(SkerryError):
                write_file(self._file, status, sync=False)
