"""Why a site or a wave waits, what a dry run says, and which waves a preview tells: in the words people read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.cli.explain_rollout import rollout_sentences
from skerry.cli.main import run
from skerry.cli.rollout_steering import abort_lines, retry_lines
from skerry.cli.wave_preview import preview_waves, wave_lines
from skerry.kit.errors import Rejected
from skerry.matching.preview import PreviewHost, preview_fleet
from skerry.spec.api import HostView, PlacementView, ReleaseView, SiteView
from skerry.spec.api_delivery import TrafficPreview
from skerry.spec.api_rollout import Control, Halt, WaveProgress
from skerry.spec.application import Placement
from skerry.spec.desired import SitePlacement
from skerry.spec.rollout import RolloutSpec, Wave
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble
from tests.unit.matching_world import GIB, component, facts, release, variant
from tests.unit.test_rollout_watching import NOW, PASSED, SITES, SOAKING, WAITING, ago, site, view

pytestmark = pytest.mark.rollout


def reason(name: str = "genf", **more: Any) -> str:
    waves = more.pop("waves", (PASSED, SOAKING, WAITING))
    shown = view(*waves, sites={**SITES, **more.pop("sites", {})}, **more)
    return next(iter(rollout_sentences(shown, name, at=NOW)))


def test_a_site_that_no_wave_has_waits_for_the_wave_whose_turn_it_is() -> None:
    assert reason() == (
        "genf has not been offered the release yet (as of 1m ago): as it is: no wave has drawn it, and wave early"
        " (0 sites) is soaking: soaks, 42m to go: 1 of 1 reachable sites succeeded, 1 not reachable follow later."
    )
    early = WaveProgress(name="early", state="passed", passed_at=NOW)
    assert (
        "wave rest (0 sites) is waiting: waits for approval: skerry rollout approve spring --wave rest"
        in (reason(waves=(PASSED, early, WAITING)))
    )
    passed = tuple(msgspec.structs.replace(wave, state="passed") for wave in (PASSED, SOAKING, WAITING))
    assert "the rollout is running: as it is" in reason(waves=passed)


def test_a_site_waits_while_the_rollout_is_paused_halted_or_over() -> None:
    assert "the rollout is paused: lunch" in reason(control=Control(paused="lunch"), state="paused")
    halt = Halt(why="2 sites failed", at=NOW, then="pause")
    assert "the rollout is halted: 2 sites failed" in reason(halt=halt, state="paused")
    assert "the rollout is aborted: as it is" in reason(state="aborted")


def test_a_member_waits_while_as_many_are_at_work_as_may_be() -> None:
    waiting: dict[str, Any] = {"sites": {"genf": site("pending", wave=1)}}
    narrow = [{"name": "canary", "size": "1"}, {"name": "early", "max_in_flight": "1"}, {"name": "rest"}]
    document = {"apiVersion": "skerry/v1", "kind": "Rollout", "metadata": {"name": "spring"}}
    spec = {"release": "reader@1.1.0", "sites": "*"}
    full = reason(**waiting, document={**document, "spec": {**spec, "waves": narrow}})
    assert full.endswith("it is in wave early, of which 1 are at work and no more than 1 may be.")
    grouped = [*narrow[:1], {"name": "early", "max_in_flight_per": {"label": "line"}}, {"name": "rest"}]
    full = reason(**waiting, document={**document, "spec": {**spec, "waves": grouped}})
    assert full.endswith("and of its group (line) as many are at work as may be.")
    assert reason(**waiting).endswith("it is in wave early: as it is.")


def test_one_site_is_explained_with_its_rollout_and_its_wave() -> None:
    told = list(rollout_sentences(view(PASSED, SOAKING, WAITING, sites=SITES), "zug", at=NOW))
    assert told[0].startswith("zug has it ready, and somebody there holds updates (as of 1m ago)")
    assert told[1] == "Rollout spring is running: as it is."
    assert told[2].startswith("Wave early (0 sites) is soaking")


# ── dry runs ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_abort_says_what_becomes_of_each_site() -> None:
    revert = view(PASSED, SOAKING, sites=SITES, control=Control(aborted="revert"))
    assert list(abort_lines(revert)) == [
        "  taken back at once, because the old release still runs: 1 site: zug",
        "  taken back within the waves' limits: 3 sites: basel, bern, visp",
        "  away: what was not switched to is never met: 1 site: chur",
        "  not offered yet, and never will be: 1 site: genf",
    ]
    keep = msgspec.structs.replace(revert, control=Control(aborted="keep"))
    assert "  kept where it runs or is being tried: 3 sites: basel, bern, visp" in list(abort_lines(keep))


def test_a_dry_retry_says_who_is_offered_it_again() -> None:
    many = {f"site-{number}": site("pending") for number in range(9)}
    assert list(retry_lines(view(sites={**many, "bern": SITES["bern"]}))) == [
        "  offered reader@1.1.0 when it is the wave's turn: 9 sites: "
        + ", ".join(f"site-{number}" for number in range(8))
        + " and 1 more",
        "  there already: 1 site: bern",
    ]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.mark.parametrize("verb", ("pause", "resume", "approve", "abort", "retry"))
def test_every_steering_command_has_a_dry_run_and_speaks_json(
    verb: str, hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views[f"/rollouts/spring/{verb}"] = view(PASSED, sites=SITES, control=Control(approved=(0,)))
    assert run(["rollout", verb, "spring", "--dry-run"]) == 0
    assert hub.requests == [f"POST /rollouts/spring/{verb}?dry_run=true"]
    assert capsys.readouterr().out.startswith("rollout/spring " + ("might" if verb == "approve" else "would"))
    assert run(["rollout", verb, "spring", "-o", "json"]) == 0
    assert hub.requests[-1] == f"POST /rollouts/spring/{verb}"
    assert json.loads(capsys.readouterr().out)["name"] == "spring"


def test_a_rollout_is_shown_and_explained_to_programs(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/rollouts/spring"] = view(PASSED, SOAKING, WAITING, sites=SITES)
    assert run(["rollout", "status", "spring", "-o", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["sites"]) == set(SITES)
    assert run(["rollout", "explain", "spring", "--site", "zug", "-o", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["sites"]) == {"zug"}
    assert run(["rollout", "explain", "spring", "--site", "nowhere", "-o", "json"]) == 4


# ── previews ─────────────────────────────────────────────────────────────────────────────────────────


def place(name: str, *, hosts: int = 1, silent: bool = False, **labels: str) -> SiteView:
    return SiteView(
        name=name,
        labels=labels,
        document={},
        generation=1,
        hosts=hosts,
        hosts_online=0 if silent else hosts,
        last_seen_at=NOW,
        presence="silent" if silent else "online",
    )


PLACES = [
    place("basel", tier="test", region="north"),
    place("bern", tier="test", region="south"),
    place("chur", region="north", silent=True),
    place("genf", region="south"),
    place("zug", region="south"),
]
BY_SELECTOR = RolloutSpec(
    release="reader@2",
    sites="*",
    waves=(
        Wave(name="tests", sites="tier=test"),
        Wave(name="north", sites="region=north", approval="manual"),
        Wave(name="south", sites="region=south", size="1"),
        Wave(name="rest", max_in_flight="1"),
    ),
)


def test_waves_by_selector_are_told_apart_and_a_site_is_in_the_first_that_takes_it() -> None:
    tests, north, south, rest = preview_waves("spring", BY_SELECTOR, PLACES)
    assert (tests.members, tests.selector, tests.matching) == (("basel", "bern"), "tier=test", 2)
    assert tests.shared == {"basel": ("north",), "bern": ("south",)}
    assert (north.members, north.away, north.approval) == (("chur",), 1, "manual")
    assert (len(south.members), south.matching) == (1, 2)
    assert set(south.members) | set(rest.members) == {"genf", "zug"}
    assert (rest.selector, rest.shared) == ("", {})
    lines = list(wave_lines((tests, north, south, rest)))
    assert lines[1:4] == [
        "  tests: 2 sites of 2 that match tier=test: basel, bern",
        "    basel, bern match north, south as well, and are in the first wave that takes them",
        "  north: 1 site of 1 that match region=north, 1 of them away now, when it is approved: chur",
    ]
    assert lines[4].startswith("  south: 1 site of 2 that match region=south: ")


def test_a_wave_whose_selector_cannot_be_read_is_refused() -> None:
    broken = RolloutSpec(release="reader@2", sites="*", waves=(Wave(sites="x=("), Wave()))
    with pytest.raises(Rejected, match="not a selector"):
        preview_waves("spring", broken, PLACES)


FOUND = release(
    component(models=("eye",)),
    models={"eye": (variant("large", memory="8GiB"), variant("small"))},
    name="reader",
)
HOSTS = {
    "big": facts(arch="x86_64", memory_bytes=16 * GIB),
    "little": facts(arch="x86_64", memory_bytes=2 * GIB),
    "mute": {},
}


@pytest.fixture
def stocked(hub: HubDouble) -> HubDouble:
    """A hub with a site of three hosts, and a release of two variants."""
    known = {name: PreviewHost(site="basel", facts=its) for name, its in HOSTS.items()}
    hub.views["/sites"] = PLACES[:1]
    hub.views["/releases"] = []
    hub.views["/releases/reader@1/preview"] = preview_fleet(FOUND, known)
    hub.views["/releases/reader@1/traffic"] = TrafficPreview(
        release="reader@1", selector="*", sites=(), size_bytes=0, full_bytes=0, pending=0, left_s=0.0
    )
    hub.views["/releases/reader@1"] = release_view(msgspec.to_builtins(FOUND))
    hub.views["/hosts"] = [
        HostView(
            name=name,
            site="basel",
            enrolled_at=NOW,
            last_seen_at=datetime.now(UTC),
            presence="online",
            sequence=1,
            generation_held=1,
            generation_wanted=1,
            clock_offset_s=0.0,
            observed_at=NOW,
            facts=its,
        )
        for name, its in HOSTS.items()
    ]
    return hub


def release_view(document: dict[str, Any]) -> ReleaseView:
    return ReleaseView(
        name="reader@1",
        application="reader",
        version="1",
        digest="sha256:" + "0" * 64,
        models={},
        size_bytes=0,
        created_at=ago(days=1),
        created_by="eva",
        document=document,
    )


def test_a_preview_says_of_each_host_what_it_would_run_and_why(
    stocked: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rollout", "preview", "reader@1", "--sites", "*", "--waves", "100%", "--hosts"]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "  big (basel, wave-1, facts of just now): model eye 1: large\n" in shown
    assert "  little (basel, wave-1, facts of just now): model eye 1: small\n" in shown
    assert "    large: needs memory >= 8 GiB, has 2 GiB\n" in shown
    assert "gets nothing\n    it has not reported its facts yet" in shown
    assert run([*command, "-o", "json"]) == 0
    told = {host["host"]: host for host in json.loads(capsys.readouterr().out)["hosts"]}
    assert told["big"]["variants"] == {"model eye 1": "large"}
    assert (told["mute"]["fits"], told["mute"]["variants"]) == (False, {})


def test_a_placed_release_says_who_would_stand_by(
    stocked: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = msgspec.structs.replace(FOUND.application.spec, placement=Placement(mode="one"))
    placed = msgspec.structs.replace(FOUND, application=msgspec.structs.replace(FOUND.application, spec=spec))
    stocked.views["/releases/reader@1"] = release_view(msgspec.to_builtins(placed))
    issued = SitePlacement(count=1, hosts=("little",), takeover_s=30.0)
    stocked.views["/sites/basel/placements"] = [
        PlacementView(
            application="reader", release="reader@1", generation=1, issued=issued, now=issued, why={}
        )
    ]
    assert run(["rollout", "preview", "reader@1", "--sites", "*", "--hosts"]) == 0
    shown = capsys.readouterr().out
    assert "model eye 1: small; runs it: has its place\n" in shown
    assert "model eye 1: large; stands by, number 1\n" in shown


def test_all_that_is_wrong_with_a_rollout_is_told_before_anything_starts(
    stocked: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = {"metric": "errors", "kind": "rate", "max_increase": "0.01"}
    waves = [{"size": "60%", "sites": "tier=none"}, {"size": "50%"}]
    document = {
        "apiVersion": "skerry/v1",
        "kind": "Rollout",
        "metadata": {"name": "spring"},
        "spec": {"release": "reader@1", "sites": "*", "waves": waves, "gates": [gate]},
    }
    path = tmp_path / "rollout.yaml"
    path.write_text(json.dumps({**document, "spec": {**document["spec"], "waves": [*waves, {}]}}))  # type: ignore[dict-item]
    assert run(["rollout", "preview", "-f", str(path)]) == 2
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "spec.gates[0].metric: no component of the release tells a metric errors" in said
    assert "spec.waves[0].sites: no selected site matches 'tier=none'" in said
    wrong = ["rollout", "start", "reader@9", "--sites", "region=south", "--waves", "100%,50%,110%"]
    for command in (wrong, ["rollout", "preview", *wrong[2:]]):
        assert run(command) == 2
        said = capsys.readouterr().err
        assert "spec.release: there is no release reader@9" in said
        assert "spec.sites: no site matches 'region=south'" in said
        assert "spec.waves[2].size" in said
    assert not stocked.documents


def test_a_preview_is_of_a_release_or_of_a_document_and_of_one(
    stocked: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("{apiVersion: skerry/v1, kind: Site, metadata: {name: a}}")
    assert run(["rollout", "preview", "-f", str(path)]) == 2
    assert "0 rollouts, not one" in capsys.readouterr().err
    assert run(["rollout", "preview", "reader@1", "-f", str(path)]) == 2
    assert run(["rollout", "preview", "reader@1"]) == 2
    assert "--sites" in capsys.readouterr().err
