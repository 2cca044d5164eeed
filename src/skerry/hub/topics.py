"""What the applications of a site do on its message buses, by what was issued to it and what its hosts report."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import msgspec

from skerry.matching.selector import Selector
from skerry.matching.topic_flows import TopicUse, plan_flows
from skerry.ports.hub_store import HubStore, SiteRecord
from skerry.spec.api_topics import SiteTopics
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DesiredState
from skerry.spec.release import Release
from skerry.spec.site import Site


def site_topics(store: HubStore, record: SiteRecord) -> SiteTopics:
    """Return a site's topics, who is joined by them, and what is wrong with its buses."""
    uses = tuple(_uses(store, record))
    seen = {host.name: host.observed.bus for host in store.hosts(record.name) if host.observed}
    return SiteTopics(
        site=record.name,
        broker=_broker(record, has_users=bool(uses)),
        flows=plan_flows(record.name, uses),
        hosts={
            name: bus.trouble or ("" if bus.running else "it does not run")
            for name, bus in seen.items()
            if bus is not None
        },
        links={name: bus.links for name, bus in seen.items() if bus is not None and bus.links},
    )


def loose_topics(store: HubStore, release: Release, selector: Selector) -> dict[str, tuple[str, ...]]:
    """Return which topics of a release nobody would be at the other end of, and at which sites."""
    found: dict[str, list[str]] = {}
    topics = release.application.spec.topics
    if not topics.is_used:
        return {}
    own = TopicUse(release.application.metadata.name, topics)
    for record in store.sites():
        site = msgspec.json.decode(record.document, type=Site)
        if not selector.matches(record.name, site.metadata.labels):
            continue
        others = [use for use in _uses(store, record) if use.application != own.application]
        for flow in plan_flows(record.name, [*others, own], of=own.application):
            if flow.trouble:
                found.setdefault(f"{flow.does} {flow.topic}: {flow.trouble}", []).append(record.name)
    return {line: tuple(sites) for line, sites in found.items()}


def _uses(store: HubStore, record: SiteRecord) -> Iterator[TopicUse]:
    desired = _desired(record)
    if desired is None:
        return
    hosts: dict[str, set[str]] = {}
    for host, assignments in desired.hosts.items():
        for assignment in assignments:
            hosts.setdefault(assignment.release, set()).add(host)
    for name, where in sorted(hosts.items()):
        stored = store.release(name)
        if stored is not None:
            application = msgspec.json.decode(stored.document, type=Release).application
            if application.spec.topics.is_used:
                yield TopicUse(application.metadata.name, application.spec.topics, frozenset(where))


def _broker(record: SiteRecord, *, has_users: bool) -> str:
    stated = msgspec.json.decode(record.document, type=Site).spec.broker
    return stated or ("nats" if has_users else "none")


def _desired(record: SiteRecord) -> DesiredState | None:
    """Return what was last issued. It is our own signature from our own database: read, not trusted."""
    if record.desired is None:
        return None
    envelope = msgspec.json.decode(record.desired, type=JsonEnvelope)
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)
