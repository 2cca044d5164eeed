"""The hub sends messages to applications that take them, signed with all else, until they expire."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.downlinking import Downlinking, view_sent, why_refused
from skerry.hub.site_use import SiteUse
from skerry.kit.errors import Conflict
from skerry.ports.downlink_store import DownlinkRecord
from skerry.ports.hub_store import Audit, SiteRecord
from skerry.spec.desired import DesiredState
from skerry.testing.clock import SimulatedClock

CLOCK_NOW = SimulatedClock().now()
AUDIT = Audit(at=CLOCK_NOW, who="ann", action="topics.send", subject="application:rules")


@pytest.fixture
def store() -> Iterator[SqlHubStore]:
    opened = SqlHubStore.open(None)
    yield opened
    opened.close()


def record(number: int, site: str = "harbour", minutes: int = 5) -> DownlinkRecord:
    return DownlinkRecord(
        id=f"{number:032x}",
        site=site,
        application="rules",
        topic="plant/set/speed",
        payload=b"7",
        created_at=CLOCK_NOW + timedelta(seconds=number),
        created_by="ann",
        expires_at=CLOCK_NOW + timedelta(minutes=minutes),
    )


def desired() -> DesiredState:
    return DesiredState(site="harbour", generation=1, issued_at=CLOCK_NOW, expires_at=CLOCK_NOW)


@pytest.mark.rule("UPLINK-5")
def test_a_site_gets_its_own_messages_until_they_expire(store: SqlHubStore) -> None:
    clock = SimulatedClock()
    store.add_downlinks([record(1), record(2, "airport"), record(3, minutes=9)], AUDIT, most=9)
    site = SiteRecord(name="harbour", document=b"{}")
    use = SiteUse(site=site, hosts=(), applications={}, releases={}, before=None)
    adding = Downlinking(store, clock)
    found = adding.add(use, desired()).downlink
    assert [(int(one.id, 16), one.topic, base64.b64decode(one.payload)) for one in found] == [
        (1, "plant/set/speed", b"7"),
        (3, "plant/set/speed", b"7"),
    ]
    assert adding.add(use, desired()).downlink == found, "the same comes out the same"
    clock.advance(5 * 60)
    assert [int(one.id, 16) for one in adding.add(use, desired()).downlink] == [3]
    clock.advance(5 * 60)
    assert adding.add(use, desired()) == desired()


def test_a_site_has_room_for_so_many_and_all_or_none_are_stored(store: SqlHubStore) -> None:
    store.add_downlinks([record(1), record(2)], AUDIT, most=2)
    with pytest.raises(Conflict, match="2 messages wait"):
        store.add_downlinks([record(3, "airport"), record(3)], AUDIT, most=2)
    assert [(one.site, int(one.id, 16)) for one in store.downlinks()] == [("harbour", 1), ("harbour", 2)]
    assert [audit.action for audit in store.audits(9)].count("topics.send") == 1
    store.forget_downlinks(CLOCK_NOW + timedelta(minutes=6))
    assert store.downlinks() == []


def test_who_does_not_take_a_message_is_named(store: SqlHubStore) -> None:
    assert why_refused(store, "harbour", "rules", "plant/set/speed") == "rules is not assigned there"


def test_what_no_host_has_told_of_is_not_guessed(store: SqlHubStore) -> None:
    store.add_downlinks([record(1)], AUDIT, most=9)
    (view,) = view_sent(store, store.downlinks("harbour"), CLOCK_NOW)
    assert (view.hosts, view.expired) == ({}, False)
    (view,) = view_sent(store, store.downlinks("harbour"), CLOCK_NOW + timedelta(minutes=5))
    assert view.expired
    assert msgspec.json.encode(view)
