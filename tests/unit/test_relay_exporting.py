"""What waits at a relay is carried to the hub by hand: nothing is lost or counts twice, also when a link comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.adapters.sqlite_relay_store import SqliteRelayStore
from skerry.carrier.bundle_file import read_reports
from skerry.hub.carried_reports import take_carried
from skerry.kit.errors import Conflict, Unavailable
from skerry.relay import exporting
from skerry.relay.exporting import export_reports
from skerry.spec.bundle import CarriedAnswer
from tests.unit.relay_world import Segment, World

pytestmark = pytest.mark.delivery


class Plant(World):
    """A relay with a real database, whose link can be cut."""

    relay: Segment

    async def build(self) -> None:
        self.relay = await self.add_relay("l3")
        await self.relay.end()
        self.relay.store = SqliteRelayStore.open(self.relay.data / "relay.db")[0]
        self.relay.begin()
        await self.settle()

    async def carry(self) -> list[CarriedAnswer]:
        """Carry what waits at the relay to the hub."""
        file = self.folder / "l3.reports"
        export_reports(self.relay.data, file)
        return [await take_carried(self.harbour.hub, part) for part in read_reports(file)]


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(tmp_path)
    await made.build()
    yield made
    await made.close()


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
async def test_what_waits_is_carried_by_hand_and_counts_once_when_the_link_comes_back(plant: Plant) -> None:
    press = await plant.join("press", plant.relay)
    saw = await plant.join("saw", plant.relay, site="airport")
    await plant.relay.hand_up()
    plant.relay.link.away = True
    for kind in ("one", "two"):
        for host in (press, saw):
            host.tell(kind)
            await host.sync()
    view = export_reports(plant.relay.data, plant.folder / "first.reports")
    assert (view.relay, view.hosts) == ("l3", 2)
    assert view.reports == plant.relay.store.size().reports
    assert view.size_bytes == (plant.folder / "first.reports").stat().st_size
    assert {(one.host, one.site) for one in await plant.carry()} == {("press", "harbour"), ("saw", "airport")}
    assert [one.taken for one in await plant.carry()] == [0, 0]
    for host in (press, saw):
        assert [kind for _, kind in plant.events(host.name)] == ["one", "two"]

    assert len(press.kept) == 2, "nothing is forgotten before the hub says so"
    press.tell("three")
    await press.sync()
    plant.relay.link.away = False
    await plant.settle()
    for host in (press, saw):
        await host.sync()
        assert host.kept == {}
    await plant.settle()
    assert [kind for _, kind in plant.events("press")] == ["one", "two", "three"]
    assert [kind for _, kind in plant.events("saw")] == ["one", "two"]
    assert await plant.carry() == []


async def test_a_long_queue_is_written_page_by_page(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PAGE_BYTES", 1)
    press = await plant.join("press", plant.relay)
    plant.relay.link.away = True
    kinds = [f"number.{number}" for number in range(7)]
    for kind in kinds:
        press.tell(kind)
    await press.sync()
    assert sum(one.taken for one in await plant.carry()) >= len(kinds)
    assert [kind for _, kind in plant.events("press")] == kinds


async def test_what_follows_on_reports_that_another_relay_holds_is_refused_until_those_have_come(
    plant: Plant,
) -> None:
    lower = await plant.add_relay("l2", plant.relay)
    await lower.end()
    lower.store = SqliteRelayStore.open(lower.data / "relay.db")[0]
    lower.begin()
    await plant.settle()
    press = await plant.join("press", lower)
    await press.sync()
    plant.relay.link.away = True
    press.tell("one")
    await press.sync()
    await lower.hand_up()  # now it waits at the relay above
    press.tell("two")
    await press.sync()
    file = plant.folder / "l2.reports"
    export_reports(lower.data, file)
    (part,) = read_reports(file)
    with pytest.raises(Conflict) as caught:
        await take_carried(plant.harbour.hub, part)
    assert caught.value.code == "reports.broken"
    await plant.carry()
    assert (await take_carried(plant.harbour.hub, part)).taken > 0
    assert [kind for _, kind in plant.events("press")] == ["one", "two"]


async def test_where_nothing_can_be_read_nothing_is_written(plant: Plant, tmp_path: Path) -> None:
    plant.relay.store.close()
    for file in plant.relay.data.glob("relay.db*"):
        file.unlink()
    with pytest.raises(Unavailable):
        export_reports(plant.relay.data, tmp_path / "some.reports")
    assert not (tmp_path / "some.reports").exists()
    assert not (plant.relay.data / "relay.db").exists()
