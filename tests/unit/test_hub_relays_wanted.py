"""What relays are told to keep and to fetch ahead: what hosts behind them are to get, the most urgent first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skerry.hub.relays_wanted import find_wanted
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import AssignmentRecord, RolloutRecord
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, VariantChoice
from skerry.spec.rollout import Rollout, RolloutSpec
from tests.unit.matching_world import component, image, release, variant
from tests.unit.test_hub_preview import Fleet, host_facts

SITES = ("harbour", "airport")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    for site in SITES:
        made.site(site)
    return made


def model_release(name: str = "app") -> Release:
    """A release with a bundle, and a model that is large where there is much memory."""
    variants = (variant(f"{name}-large", memory="8GiB"), variant(f"{name}-small"))
    return release(component(f"{name}-main", models=("m",)), models={"m": variants}, name=name)


async def wanted(fleet: Fleet, *sites: str) -> list[str]:
    for site in SITES:
        await fleet.hub.issuer.issue(site)
    chosen = sites or SITES
    hosts = [host for host in fleet.hub.store.hosts() if host.site in chosen]
    found = find_wanted(fleet.hub.store, chosen, hosts)
    assert all(blob.size_bytes > 0 for blob in found)
    names: dict[str, str] = {str(digest_of(name.encode())): name for name in NAMES}
    names |= {str(digest_of(record.document)): record.name for record in fleet.hub.store.releases()}
    return [names.get(blob.digest, blob.digest) for blob in found]


PARTS = ("main.bin", "large.onnx", "small.onnx")
NAMES = (
    *(f"{name}-{part}" for name in ("app", "soon", "other") for part in PARTS),
    *("one.json", "one.tar", "two.json", "two.tar"),
)


def urgent(fleet: Fleet, site: str, name: str) -> None:
    spec = RolloutSpec(release=name, sites=site, urgent=True)
    document = Rollout(metadata=Metadata("hurry"), spec=spec)
    record = RolloutRecord(
        name="hurry",
        document=encode_canonical(document),
        release=name,
        application=name.partition("@")[0],
        created_at=fleet.clock.now(),
        created_by="test",
    )
    fleet.hub.store.apply_documents(sites={}, rollouts=[record], audits=[])
    assigned = AssignmentRecord(site=site, application=record.application, release=name, rollout=record.name)
    fleet.hub.store.advance_rollout(record, assign=[assigned])


async def test_each_host_wants_the_variants_that_its_facts_choose(fleet: Fleet) -> None:
    fleet.host("a", "harbour", host_facts(memory=16))
    fleet.host("c", "airport", host_facts(memory=4))
    fleet.host("new", "airport", {})
    name = fleet.push(model_release())
    for site in SITES:
        fleet.assign(site, name)
    assert await wanted(fleet, "harbour") == [name, "app-main.bin", "app-large.onnx"]
    assert await wanted(fleet, "airport") == [name, "app-main.bin", "app-small.onnx"]
    assert set(await wanted(fleet)) == {name, "app-main.bin", "app-large.onnx", "app-small.onnx"}


async def test_a_host_that_has_chosen_keeps_its_choice_and_comes_after_what_is_not_there_yet(
    fleet: Fleet,
) -> None:
    chosen = VariantChoice(model="m", version="1", variant="app-small", why=("it was so",))
    running = ApplicationView(phase="running", release="app@1", choices=(chosen,))
    fleet.host("a", "harbour", host_facts(memory=16), {"app": running})
    fleet.host("c", "airport", host_facts(memory=4))
    app, other = fleet.push(model_release()), fleet.push(model_release("other"))
    fleet.assign("harbour", app)
    fleet.assign("airport", other)
    found = await wanted(fleet)
    assert found == [other, "other-main.bin", "other-small.onnx", app, "app-main.bin", "app-small.onnx"]


async def test_what_is_urgent_comes_first_and_what_is_upcoming_after_what_is_assigned(fleet: Fleet) -> None:
    fleet.host("a", "harbour", host_facts())
    fleet.host("c", "airport", host_facts())
    app, soon, other = (fleet.push(model_release(name)) for name in ("app", "soon", "other"))
    fleet.assign("airport", app)
    fleet.hub.issuer.fetch_ahead({"airport": {"soon": soon}})
    urgent(fleet, "harbour", other)
    found = await wanted(fleet)
    assert [name for name in found if "@" in name] == [other, app, soon]


async def test_of_an_image_the_chosen_variants_layers_are_wanted_and_of_what_does_not_fit_the_document(
    fleet: Fleet,
) -> None:
    fleet.host("a", "harbour", host_facts(memory=4, engine="podman"))
    images: Any = (image("one", memory="8GiB"), image("two"))
    app = fleet.push(release(component(images=images)))
    vast = fleet.push(release(component(images=(image("one", memory="64GiB"),)), name="other"))
    fleet.assign("harbour", app, vast)
    found = await wanted(fleet)
    assert set(found) == {app, vast, "two.json", "two.tar"}
