"""Tokens limited to sites: the others are not there for them, in no answer, and nothing they do reaches them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.hub.api.access import ACCESS
from skerry.hub.api.app import API_PATH, operations
from skerry.hub.api.scope import Scope
from skerry.kit.canonical import encode_canonical
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import AppliedReport, AssignmentRecord, RolloutRecord, TokenRecord
from skerry.spec.api import Role
from skerry.spec.api_rollout import SiteProgress, SiteRolloutState
from skerry.spec.metadata import Metadata
from skerry.spec.report import ApplicationView, Event, VariantChoice
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.trust.tokens import hash_secret
from tests.unit.matching_world import component, release, variant
from tests.unit.test_hub_door import World, handlers_of, name_of
from tests.unit.test_hub_preview import Fleet, host_facts

pytestmark = pytest.mark.trust

SCOPE = "region=north"
SECRET = "faraway"
"""In every name and value of what lies outside."""


class Divided(World, Fleet):
    """A hub with a site in the north and one outside, each with a host, an event and a rollout."""

    def __init__(self, folder: Path) -> None:
        World.__init__(self, folder)
        for role in ("viewer", "publisher", "operator"):
            self.scoped(f"north-{role}", role)
        made = release(component(models=("eye",)), models={"eye": (variant("small"),)}, name="camera")
        self.push(made)
        choice = VariantChoice(model="eye", version="1", variant="small")
        runs = {"camera": ApplicationView(phase="running", release="camera@1", choices=(choice,))}
        for site, region in (("harbour", "north"), (f"{SECRET}-port", "south")):
            self.site(site, labels={"region": region})
            self.host(f"{site}-edge", site, host_facts(), runs)
            now = self.clock.now()
            report = AppliedReport(
                host=f"{site}-edge", site=site, sequence=2, seen_at=now, sent_at=now, clock_offset_s=0.0,
                generation=0, events=(Event(at=now, kind="test", message=site),),
            )  # fmt: skip
            self.hub.store.apply_reports([report])
            self.roll_out(site)

    def scoped(self, name: str, role: Role, sites: str = SCOPE) -> None:
        record = TokenRecord(
            id=name, name=name, hash=hash_secret(name), role=role, created_at=self.clock.now(), sites=sites
        )
        self.hub.store.add_token(record, self.audit())

    def roll_out(self, site: str) -> None:
        document = Rollout(
            metadata=Metadata(f"r-{site}"), spec=RolloutSpec(release="camera@1", sites=f"name={site}")
        )
        record = RolloutRecord(
            name=f"r-{site}",
            document=encode_canonical(document),
            release="camera@1",
            application="camera",
            created_at=self.clock.now(),
            created_by="test",
            sites={site: SiteProgress(state="offered", why=f"so says {site}")},
            why=f"1 of {site}",
        )
        self.hub.store.apply_documents(sites={}, rollouts=[record], audits=[])
        assigned = AssignmentRecord(site=site, application="camera", release="camera@1", rollout=record.name)
        self.hub.store.advance_rollout(record, assign=[assigned])

    def everything(self) -> bytes:
        """Return what is stored of sites, to see that it stays."""
        store = self.hub.store
        sites = [store.site(site.name) for site in store.sites()]
        return msgspec.json.encode(
            [sites, store.hosts(), store.assignments(), store.rollouts(), store.releases()]
        )

    async def apply(self, token: str, *documents: dict[str, Any]) -> httpx2.Response:
        return await self.ask(token, f"{API_PATH}/apply", "POST", json={"documents": documents})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Divided]:
    made = Divided(tmp_path)
    yield made
    made.hub.store.close()


def site(name: str, region: str, **variables: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"region": region}}
    return {"apiVersion": "skerry/v1", "kind": "Site", "metadata": metadata, "spec": {"variables": variables}}


def rollout(name: str, sites: str) -> dict[str, Any]:
    spec = {"release": "camera@1", "sites": sites}
    return {"apiVersion": "skerry/v1", "kind": "Rollout", "metadata": {"name": name}, "spec": spec}


LOOKS = (
    "/sites", "/sites?selector=*", "/hosts", "/hosts?site=", "/events", "/events?limit=1", "/applications", "/models",
    "/rollouts", "/releases", "/releases/camera@1", "/releases/camera@1/preview", "/releases/camera@1/traffic",
    "/volumes", "/whoami", "/policies", "/releases/camera@1/policies",
)  # fmt: skip
OUTSIDE = (
    "/sites/{s}", "/hosts/{s}-edge", "/sites/{s}/placements", "/rollouts/r-{s}", "/volumes?site={s}",
    "/releases/camera@1/delivery?host={s}-edge",
)  # fmt: skip


@pytest.mark.rule("DOOR-5")
@pytest.mark.parametrize("path", LOOKS)
async def test_no_list_tells_of_a_site_outside(world: Divided, path: str) -> None:
    whole = await world.ask("viewer", API_PATH + path)
    part = await world.ask("north-viewer", API_PATH + path)
    assert (whole.status_code, part.status_code) == (200, 200)
    assert SECRET not in part.text
    if SECRET in whole.text:
        assert "harbour" in part.text


@pytest.mark.rule("DOOR-5")
async def test_counts_are_of_the_sites_inside(world: Divided) -> None:
    for path, running in (("/applications", {"camera@1": 1}), ("/models", {"small": 1})):
        seen = (await world.ask("north-viewer", API_PATH + path)).json()
        assert [entry["running"] for entry in seen] == [running]
        whole = (await world.ask("viewer", API_PATH + path)).json()
        assert list(whole[0]["running"].values()) == [2]
    for path, hosts in (("/releases/camera@1/preview", 1), ("/releases/camera@1/preview?selector=region", 1)):
        seen = (await world.ask("north-viewer", API_PATH + path)).json()
        assert (seen["hosts"], seen["sites"]) == (hosts, 1)
    outside = await world.ask("north-viewer", f"{API_PATH}/releases/camera@1/preview?selector=region=south")
    assert (outside.json()["hosts"], outside.json()["sites"]) == (0, 0)
    document = msgspec.json.decode(world.hub.store.release("camera@1").document)  # type: ignore[union-attr]
    asked = {"release": document, "selector": "*"}
    seen = (await world.ask("north-viewer", f"{API_PATH}/previews", "POST", json=asked)).json()
    assert (seen["hosts"], seen["selector"]) == (1, SCOPE)


@pytest.mark.rule("DOOR-5")
@pytest.mark.parametrize("path", OUTSIDE)
async def test_what_is_outside_is_answered_like_what_is_not_there(world: Divided, path: str) -> None:
    outside = await world.ask("north-viewer", API_PATH + path.format(s=f"{SECRET}-port"))
    absent = await world.ask("north-viewer", API_PATH + path.format(s="no-such-port"))
    assert (outside.status_code, absent.status_code) == (404, 404)
    assert outside.text.replace(f"{SECRET}-port", "no-such-port") == absent.text
    assert (await world.ask("north-viewer", API_PATH + path.format(s="harbour"))).status_code == 200


@pytest.mark.rule("DOOR-5")
@pytest.mark.parametrize(
    ("method", "path"),
    (
        ("DELETE", f"/sites/{SECRET}-port"),
        ("POST", f"/sites/{SECRET}-port/join-tokens"),
        ("DELETE", f"/hosts/{SECRET}-port-edge"),
        ("POST", f"/sites/{SECRET}-port/applications/camera/wipe"),
        ("POST", f"/sites/{SECRET}-port/adopt"),
        ("POST", f"/sites/{SECRET}-port/reissue"),
        ("DELETE", f"/rollouts/r-{SECRET}-port"),
        ("POST", f"/rollouts/r-{SECRET}-port/retry"),
        ("DELETE", "/releases/camera@1"),
    ),
)
async def test_nothing_outside_is_changed(world: Divided, method: str, path: str) -> None:
    before = world.everything()
    answer = await world.ask("north-operator", API_PATH + path, method, json={} if method == "POST" else None)
    assert answer.status_code in (403, 404)
    assert world.everything() == before


@pytest.mark.rule("DOOR-5")
async def test_documents_of_sites_outside_are_refused_all_of_them_named(world: Divided) -> None:
    before = world.everything()
    answer = await world.apply(
        "north-operator",
        site("harbour", "north", greeting="hello"),
        site("new-south", "south"),
        site("harbour-2", "north"),
        site(f"{SECRET}-port", "north"),  # would come in
    )
    assert answer.status_code == 400
    assert [problem["path"].partition(":")[0] for problem in answer.json()["problems"]] == [
        "Site new-south",
        f"Site {SECRET}-port",
    ]
    assert (await world.apply("north-operator", site("harbour", "south"))).status_code == 400  # would leave
    assert world.everything() == before
    assert [(who, action) for who, action, _ in world.refusals()] == [("north-operator", "refused.scope")]
    good = await world.apply(
        "north-operator", site("harbour", "north", greeting="hello"), site("pier", "north")
    )
    assert [change["action"] for change in good.json()["changes"]] == ["update", "create"]


@pytest.mark.rule("DOOR-5")
@pytest.mark.parametrize(
    ("asked", "kept"),
    (
        ("*", SCOPE),
        ("region", f"region,{SCOPE}"),
        ("name in (harbour,x)", f"name in (harbour,x),{SCOPE}"),
        (SCOPE, SCOPE),
        (f"{SCOPE},name=harbour", f"{SCOPE},name=harbour"),
    ),
)
async def test_a_rollout_gets_the_sites_inside_alone_and_says_so(
    world: Divided, asked: str, kept: str
) -> None:
    answer = await world.apply("north-operator", rollout("mine", asked))
    assert answer.json()["changes"][0]["after"]["spec"]["sites"] == kept
    stored = world.hub.store.rollout("mine")
    assert stored is not None
    selector = parse_selector(msgspec.json.decode(stored.document, type=Rollout).spec.sites)
    assert not selector.matches(f"{SECRET}-port", {"region": "south"})
    again = await world.apply("north-operator", rollout("mine", asked))
    assert again.json()["changes"][0]["action"] == "unchanged"
    shown = await world.ask("north-operator", f"{API_PATH}/rollouts/mine")
    assert shown.json()["document"]["spec"]["sites"] == kept


async def test_a_rollout_for_sites_outside_matches_none(world: Divided) -> None:
    answer = await world.apply("north-operator", rollout("mine", "region=south"))
    assert answer.status_code == 400
    assert "no site matches" in answer.json()["problems"][0]["message"]


@pytest.mark.rule("DOOR-5")
async def test_of_a_rollout_over_all_sites_the_part_inside_is_seen_and_none_of_it_changed(
    world: Divided,
) -> None:
    await world.apply("operator", rollout("everywhere", f"region,name!={SECRET}"))
    await world.apply("operator", rollout("elsewhere", f"name={SECRET}-port"))
    record = world.hub.store.rollout("everywhere")
    assert record is not None
    states: dict[str, SiteRolloutState] = {"harbour": "succeeded", f"{SECRET}-port": "failed"}
    progress = {name: SiteProgress(state=state, why=f"so says {name}") for name, state in states.items()}
    found = msgspec.structs.replace(record, sites=progress, why=f"1 of 2 failed: {SECRET}-port")
    world.hub.store.advance_rollout(found)
    seen = await world.ask("north-operator", f"{API_PATH}/rollouts/everywhere")
    assert seen.json()["why"] == "the sites of north-operator: 1 succeeded"
    assert list(seen.json()["sites"]) == ["harbour"]
    assert seen.json()["document"]["spec"] == {"release": "camera@1", "sites": SCOPE}
    assert SECRET not in seen.text
    assert (await world.ask("north-operator", f"{API_PATH}/rollouts/elsewhere")).status_code == 404
    for method, path in (("POST", "/rollouts/everywhere/retry"), ("DELETE", "/rollouts/everywhere")):
        answer = await world.ask("north-operator", API_PATH + path, method)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope.rollout")
    assert ("north-operator", "refused.scope", "POST /api/v1/rollouts/everywhere/retry") in world.refusals()


async def test_only_tokens_that_are_no_admins_are_limited_and_they_make_none(world: Divided) -> None:
    async def make(token: str, **asked: str) -> httpx2.Response:
        return await world.ask(token, f"{API_PATH}/tokens", "POST", json={"name": "made", **asked})

    answer = await make("admin", role="admin", sites=SCOPE)
    assert (answer.status_code, answer.json()["code"]) == (400, "token.scoped_admin")
    assert (await make("admin", role="viewer", sites="not a ( selector")).status_code == 400
    assert (await make("north-operator", role="viewer")).status_code == 403
    made = (await make("admin", role="operator", sites=SCOPE)).json()
    assert made["token"]["sites"] == SCOPE
    assert (await world.ask(made["secret"], f"{API_PATH}/whoami")).json()["sites"] == SCOPE
    listed = (await world.ask("admin", f"{API_PATH}/tokens")).json()
    assert {token["name"]: token.get("sites", "") for token in listed}["made"] == SCOPE
    world.hub.store.remove_token(made["token"]["id"], world.audit())
    assert (await world.ask(made["secret"], f"{API_PATH}/whoami")).status_code == 401


@pytest.mark.rule("DOOR-5")
def test_every_operation_says_how_it_treats_a_limited_token(world: Divided) -> None:
    kinds = {name_of(handler): ACCESS[name_of(handler)][1] for _, _, handler in handlers_of(operations())}
    assert set(kinds) == set(ACCESS)
    # What names, selects or lists sites looks at them as the caller sees them.
    for _, _, handler in handlers_of(operations()):
        sees = "seen" in handler.parsed_fn_signature.parameters
        assert sees is (kinds[name_of(handler)] in ("filtered", "narrowed", "inside")), name_of(handler)


terms = st.sampled_from(
    ["region=north", "region!=north", "region in (north,south)", "tier", "!tier", "name=a", "tier notin (x)"]
)
selectors = st.lists(terms, min_size=1, max_size=3).map(",".join) | st.just("*")
labels = st.dictionaries(st.sampled_from(["region", "tier"]), st.sampled_from(["north", "south", "x"]))


@pytest.mark.rule("DOOR-5")
@given(scope=selectors, asked=selectors, name=st.sampled_from(["a", "b"]), labels=labels)
def test_a_narrowed_selector_matches_what_both_match(
    scope: str, asked: str, name: str, labels: dict[str, str]
) -> None:
    limit = Scope("" if scope == "*" else scope)
    narrowed = limit.narrow(asked)
    both = limit.covers(name, labels) and parse_selector(asked).matches(name, labels)
    assert parse_selector(narrowed).matches(name, labels) is both
    assert limit.narrow(narrowed) == narrowed
    assert limit.holds(narrowed)
