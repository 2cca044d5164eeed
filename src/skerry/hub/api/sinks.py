"""Sinks: places outside that get messages of sites, and how far each is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from litestar import delete, get
from litestar.params import FromPath

from skerry.hub.api.operators import ApiRequest, TheHub, audit_of
from skerry.hub.services import Hub
from skerry.hub.sinking import view_sink
from skerry.kit.errors import Missing, Rejected
from skerry.matching.selector import parse_selector
from skerry.spec.api_sink import SinkView
from skerry.spec.documents import AnyDocument
from skerry.spec.problems import Problem
from skerry.spec.sink import MAX_SINKS, Sink


@get("/sinks", sync_to_thread=True)
def list_sinks(hub: TheHub) -> list[SinkView]:
    """List sinks, by name."""
    return [view_sink(hub.store, record) for record in hub.store.sinks()]


@get("/sinks/{name:str}", sync_to_thread=True)
def show_sink(name: FromPath[str], hub: TheHub) -> SinkView:
    """Show one sink."""
    for record in hub.store.sinks():
        if record.name == name:
            return view_sink(hub.store, record)
    raise Missing("sink.missing", f"there is no sink {name[:80]}", hint="skerry get sinks lists them")


@delete("/sinks/{name:str}")
async def remove_sink(name: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Forget a sink: nothing more goes there."""
    audit = audit_of(hub, request, "sink.remove", f"sink:{name}")
    await asyncio.to_thread(hub.store.remove_sink, name, audit)
    hub.sinks.wake()


def check_sinks(hub: Hub, documents: Sequence[AnyDocument]) -> Iterator[Problem]:
    """Yield what is wrong with sinks: selectors that cannot be read, and more sinks than there may be."""
    new = {one.metadata.name: one for one in documents if isinstance(one, Sink)}
    for name, sink in new.items():
        try:
            parse_selector(sink.spec.sites)
        except Rejected as error:
            yield Problem(f"Sink {name}: spec.sites", error.message, error.hint)
    if new:
        names = {record.name for record in hub.store.sinks()} | new.keys()
        if len(names) > MAX_SINKS:
            yield Problem(f"Sink {max(new)}", f"a hub has {MAX_SINKS} sinks at most", "delete one first")


HANDLERS = [list_sinks, show_sink, remove_sink]
