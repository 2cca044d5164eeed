"""What the hub's facts say now: which variants would be chosen on a host, and where an application is placed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from skerry.cli.text import age
from skerry.client.client import Client
from skerry.kit.errors import Missing
from skerry.matching.releases import ReleaseMatch, match_release
from skerry.spec.api import HostView, PlacementView
from skerry.spec.desired import SitePolicy
from skerry.spec.release import Release


class ChoiceNow(msgspec.Struct, frozen=True):
    """What would be chosen of a release on a host, by the facts it last reported."""

    release: str
    match: ReleaseMatch


def choice_now(client: Client, host: HostView, application: str) -> ChoiceNow | None:
    """Return what would be chosen now, of the release at hand or the newest; None when the hub has none."""
    seen = host.applications.get(application)
    name = (seen.candidate or seen.release) if seen else ""
    site = client.site(host.site)
    name = name or site.assignments.get(application, "")
    if not name:
        releases = client.releases(application)
        name = max(releases, key=lambda view: view.created_at).name if releases else ""
    try:
        view = client.release(name) if name else None
        release = msgspec.convert(view.document, type=Release) if view and view.document else None
    except (Missing, msgspec.ValidationError):
        # Gone from the hub, or of a hub that knows fields which this client does not.
        return None
    if release is None or not host.facts:
        return None
    policy = SitePolicy(host_network=bool(site.document.get("spec", {}).get("host_network", False)))
    failed = seen.failed_variants if seen else {}
    return ChoiceNow(name, match_release(release, host.facts, policy=policy, failed=failed))


def choice_sentences(host: HostView, application: str, chosen: ChoiceNow | None) -> Iterator[str]:
    """Yield what would be chosen now, where it differs from what the host says."""
    if chosen is None:
        return
    seen = host.applications.get(application)
    reported = {(c.kind, c.model, c.version): c.variant for c in seen.choices} if seen else {}
    match = chosen.match
    if match.reasons:
        if not reported:
            yield f"By the facts it last reported, {chosen.release} cannot run there:"
        else:
            yield f"By the facts it reported since, {chosen.release} could not run there any more:"
        yield from (f"  {reason}" for reason in match.reasons)
        return
    differing = [c for c in match.choices if reported.get((c.kind, c.model, c.version)) != c.variant]
    if differing:
        yield f"By the facts it last reported, of {chosen.release} would be chosen now:"
    for choice in differing:
        whose = (
            f"model {choice.model} {choice.version}" if choice.kind == "model" else f"image of {choice.model}"
        )
        yield f"  {whose}: {choice.variant}"
        yield from (f"    {line}" for line in choice.why)
    if not reported and not match.choices:
        yield f"{chosen.release} fits there, with no variants to choose from."
    yield from match.notes


def placement_sentences(
    views: Sequence[PlacementView],
    hosts: Sequence[HostView],
    *,
    application: str,
    site: str,
    at: datetime,
) -> Iterator[str]:
    """Yield where an application is placed in a site, and why.

    Raises:
        Missing: the site is not assigned the application.
    """
    view = next((view for view in views if view.application == application), None)
    if view is None:
        known = ", ".join(view.application for view in views) or "none"
        hint = f"applications assigned there: {known}"
        raise Missing("app.missing", f"site {site} is not assigned an application {application}", hint=hint)
    issued = view.issued
    if issued is None:
        yield f"{view.release} is not placed by turns at {site}: every host that it is assigned to runs it."
    else:
        first = "first host" if issued.count == 1 else f"first {issued.count} hosts"
        yield f"{view.release} runs on the {first} of this order still alive (generation {view.generation}):"
        yield from _order(issued.hosts, issued.count, hosts, application, at)
        yield f"A host that is silent for {issued.takeover_s:g} s is replaced by the next one in the order."
    if view.now is None:
        yield "By the facts last reported no host fits:"
    elif issued is not None and view.now.hosts != issued.hosts:
        yield f"It would be placed anew now: {', '.join(view.now.hosts)}."
    yield "Host by host:"
    yield from (f"  {host}: {why}" for host, why in sorted(view.why.items()))


def _order(
    order: Sequence[str], count: int, hosts: Sequence[HostView], application: str, at: datetime
) -> Iterator[str]:
    by_name = {host.name: host for host in hosts}
    if not order:
        yield "  no host"
    for rank, name in enumerate(order):
        host = by_name.get(name)
        seen = host.applications.get(application) if host else None
        duty = f"says it is {seen.duty}" if seen and seen.duty else "has not said what it does"
        as_of = f", as of {age(host.observed_at, at)}" if host and seen else ""
        part = "runs it" if rank < count else "stands by"
        yield f"  {rank + 1}. {name}: {part}; {duty}{as_of}"
