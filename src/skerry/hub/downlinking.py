"""Messages from the hub to applications: who takes them, what is issued of them, and what became of them.

Rules: an application gets what its release says that it takes from the hub, and nothing else. What has expired is
issued no more. The hub says of a host what that host reported, and nothing it guesses.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime

import msgspec

from skerry.hub.site_use import SiteUse
from skerry.kit.ids import split_release_name
from skerry.matching.topics import match_any_topic
from skerry.ports.clock import Clock
from skerry.ports.downlink_store import DownlinkRecord
from skerry.ports.hub_store import HubStore
from skerry.spec.api_topics import SentView
from skerry.spec.desired import DesiredState
from skerry.spec.downlink import DownlinkMessage, DownlinkState
from skerry.spec.release import Release


class Downlinking:
    """Adds the messages of a site to its DesiredState."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def add(self, use: SiteUse, desired: DesiredState) -> DesiredState:
        """Return the document with the messages that last."""
        now = self._clock.now()
        lasting = [one for one in self._store.downlinks(use.site.name) if one.expires_at > now]
        if not lasting:
            return desired
        return msgspec.structs.replace(desired, downlink=tuple(map(_message, lasting)))


def why_refused(store: HubStore, site: str, application: str, topic: str) -> str:
    """Return why an application at a site does not get a message on a topic; empty when it does."""
    assigned = [one for one in store.assignments(site) if one.application == application]
    if not assigned:
        return f"{application} is not assigned there"
    for one in assigned:
        stored = store.release(one.release)
        topics = (
            msgspec.json.decode(stored.document, type=Release).application.spec.topics if stored else None
        )
        if topics is None or not match_any_topic(topics.downlink, topic):
            version = (split_release_name(one.release) or ("", one.release))[1]
            return f"{application} {version} takes nothing from the hub on {topic} (topics.downlink)"
    return ""


def view_sent(store: HubStore, records: Sequence[DownlinkRecord], now: datetime) -> list[SentView]:
    """Return messages with what the hosts of their sites said of them."""
    found: list[SentView] = []
    for record in records:
        hosts: dict[str, DownlinkState] = {}
        for host in store.hosts(record.site):
            if host.observed is not None and record.id in host.observed.downlink:
                hosts[host.name] = host.observed.downlink[record.id]
        found.append(
            SentView(
                id=record.id,
                site=record.site,
                application=record.application,
                topic=record.topic,
                created_at=record.created_at,
                created_by=record.created_by,
                expires_at=record.expires_at,
                expired=record.expires_at <= now,
                hosts=hosts,
            )
        )
    return found


def _message(record: DownlinkRecord) -> DownlinkMessage:
    return DownlinkMessage(
        id=record.id,
        application=record.application,
        topic=record.topic,
        payload=base64.b64encode(record.payload).decode(),
        expires_at=record.expires_at,
    )
