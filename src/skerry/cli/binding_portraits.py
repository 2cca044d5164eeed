"""Bindings as lines of text: what a site offers, who is joined to it, and whether devices are there; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from skerry.cli.text import age
from skerry.spec.api import HostView, JsonDocument
from skerry.spec.binding import BINDING_TYPES, BindingView


def site_binding_lines(
    offered: Sequence[JsonDocument], hosts: Sequence[HostView], *, at: datetime
) -> Iterator[str]:
    """Yield what a site offers, and what its hosts say of it."""
    if offered:
        yield "Bindings:"
    for binding in offered:
        name = str(binding["name"])
        kind = next((one for one in BINDING_TYPES if one in binding), "binding")
        attached = f", attached to {binding['host']}" if "host" in binding else ""
        labels = ", ".join(f"{key}={value}" for key, value in sorted(binding.get("labels", {}).items()))
        yield f"  {name}: {kind}{' with ' + labels if labels else ''}{attached}"
        for host in hosts:
            if (seen := host.bindings.get(name)) is not None:
                yield f"    {host.name}: {_told(seen, at)}, as of {age(host.observed_at, at)}"


def host_binding_lines(host: HostView, *, at: datetime) -> Iterator[str]:
    """Yield the bindings that are used on a host or attached to it."""
    if host.bindings:
        yield f"Bindings, as of {age(host.observed_at, at)}:"
    for name, seen in sorted(host.bindings.items()):
        yield f"  {name}: {_told(seen, at)}"


def _told(seen: BindingView, at: datetime) -> str:
    used = f"used by {', '.join(seen.used_by)}" if seen.used_by else "used by nothing"
    if seen.state == "unknown":
        return used
    since = f" since {age(seen.since, at)}" if seen.since else ""
    return f"{seen.state}{since}, {used}"
