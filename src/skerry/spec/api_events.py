"""What happened at hosts and at the hub, as one log, over the operator API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part

MAX_ENTRIES = 1000


class LogRequest(Part, frozen=True, kw_only=True):
    """Which entries are wanted; what is empty wants all. `kind` takes `release` for all of `release.*` as well.

    With nothing else, the newest. With `since_s`, what arrived in that time, from the oldest on; with `after`, what
    follows on the cursor of a page; then an answer without entries is waited for up to `wait_s`.
    """

    site: Annotated[str, Meta(max_length=64)] = ""
    host: Annotated[str, Meta(max_length=64)] = ""
    application: Annotated[str, Meta(max_length=64)] = ""
    kind: Annotated[str, Meta(max_length=128)] = ""
    since_s: Annotated[int, Meta(ge=0, le=10 * 366 * 86400)] = 0
    after: Annotated[str, Meta(max_length=64)] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_ENTRIES)] = 100
    wait_s: Annotated[int, Meta(ge=0, le=25)] = 0


class LogEntry(Part, frozen=True, kw_only=True):
    """Something that happened, `at` its own time, and when the hub learnt of it (`arrived_at`).

    Of a host's event, `number` is its place in the host's chain; 0 where the hub tells of the host. Of what the hub
    did, `who` did it to `subject`, and `kind` is the action.
    """

    source: Literal["host", "hub"]
    at: datetime
    arrived_at: datetime
    kind: str
    message: str = ""
    site: str = ""
    host: str = ""
    application: str = ""
    component: str = ""
    who: str = ""
    subject: str = ""
    outcome: str = ""
    decision: str = ""
    number: int = 0


class LogPage(Part, frozen=True, kw_only=True):
    """Entries in the order of their own time, and from where to go on.

    `more` says that there is more at once. `hub` is false for who may not see what operators did.
    """

    entries: Annotated[tuple[LogEntry, ...], Meta(max_length=MAX_ENTRIES)] = ()
    cursor: str
    more: bool = False
    hub: bool = False
