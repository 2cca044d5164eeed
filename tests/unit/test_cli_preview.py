"""`skerry release preview` and `skerry explain`: what people read, and how the commands end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.cli import portraits
from skerry.cli.explain_choices import placement_sentences
from skerry.cli.main import run
from skerry.cli.release_preview import preview_lines
from skerry.kit.errors import Missing
from skerry.matching.preview import PreviewHost, preview_fleet
from skerry.spec.api import (
    FleetPreview,
    HostView,
    PlacementView,
    PreviewRoom,
    ReleaseView,
    SiteView,
)
from skerry.spec.application import Device, Placement
from skerry.spec.desired import SitePlacement
from skerry.spec.hardware import Expectation, GpuRequirement
from skerry.spec.model import Variant
from skerry.spec.report import ApplicationView, VariantChoice
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble
from tests.unit.matching_world import GIB, component, facts, gpus, image, release, variant

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FOUND = release(
    component(models=("defects",), images=(image("cpu", platform="linux/amd64"),)),
    models={"defects": (variant("trt", gpu=GpuRequirement(memory="6GiB")), variant("int8", memory="1GiB"))},
    name="inspector",
)
VIEW = preview_fleet(
    FOUND,
    {
        name: PreviewHost(site="zurich", facts=its_facts, as_of=NOW - timedelta(hours=3))
        for name, its_facts in (
            ("a", facts(arch="x86_64", memory_bytes=4 * GIB, disk__free_bytes=1000, engine="podman")),
            ("b", facts(arch="x86_64", memory_bytes=4 * GIB, disk__free_bytes=GIB, engine="podman")),
            ("c", facts(arch="aarch64", memory_bytes=4 * GIB, engine="docker")),
            ("d", {}),
        )
    },
)


def test_a_preview_says_who_gets_what_and_who_gets_nothing_and_why() -> None:
    assert list(preview_lines(VIEW, at=NOW)) == [
        "inspector@1 on 4 hosts at 1 site (all sites):",
        "HOSTS  MODEL defects 1  IMAGE main  SIZE    SUCH AS",
        "2      int8             cpu         1020 B  a, b",
        "1 host would get nothing, because of one or more of:",
        "      1  main: image: cpu: needs platform linux/amd64  (c)",
        "1 host did not report facts yet: d",
        "1 host would lack disk, the worst first:",
        "  a (zurich): needs 2.0 KiB, has 1000 B, as of 3h ago",
        "The oldest of these facts held 3h ago.",
    ]


def test_more_hosts_than_are_named_are_said_to_be_more() -> None:
    room = msgspec.structs.replace(VIEW.disk, lacking=7, unknown=2)
    lines = list(preview_lines(msgspec.structs.replace(VIEW, disk=room), at=NOW))
    assert "  and 6 more" in lines
    assert "2 hosts did not say how much disk there is" in lines


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        yield hub


def release_view(version: str, created_at: datetime) -> ReleaseView:
    return ReleaseView(
        name=f"inspector@{version}",
        application="inspector",
        version=version,
        digest="sha256:" + "a" * 64,
        models={},
        size_bytes=1,
        created_at=created_at,
        created_by="eva",
        document=msgspec.to_builtins(FOUND),
    )


def test_the_newest_release_of_an_application_is_meant(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/releases"] = [release_view("2", NOW), release_view("1", NOW - timedelta(days=1))]
    hub.views["/releases/inspector@2/preview"] = VIEW
    assert run(["release", "preview", "inspector", "-l", "region=north"]) == 0
    assert hub.requests[-1] == "GET /releases/inspector@2/preview?selector=region%3Dnorth"
    assert "1 host would get nothing" in capsys.readouterr().out
    hub.views["/releases"] = []
    assert run(["release", "preview", "inspector"]) == 4


def test_strict_ends_with_one_unless_every_host_gets_something_and_has_room(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/releases/inspector@1/preview"
    whole = msgspec.structs.replace(VIEW, unmatched=0, disk=PreviewRoom(unknown=3))
    for view, code in (
        (VIEW, 1),
        (msgspec.structs.replace(VIEW, unmatched=0), 1),
        (msgspec.structs.replace(whole, memory=PreviewRoom(lacking=1)), 1),
        (whole, 0),
    ):
        hub.views[path] = view
        assert run(["release", "preview", "inspector@1", "--strict", "-o", "json"]) == code
        assert run(["release", "preview", "inspector@1"]) == 0
    capsys.readouterr()
    assert run(["release", "preview", "inspector@1", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert msgspec.convert(told, FleetPreview) == whole


def test_a_file_that_has_not_been_pushed_is_previewed_pinned(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "release.yaml").write_text(
        "apiVersion: skerry/v1\nkind: Application\nmetadata: {name: inspector}\n"
        "spec:\n  version: '1'\n  components:\n"
        "    - name: main\n      command: ['${bundle}/run.sh']\n"
        "      bundle: {files: [{path: run.sh, source: run.sh}]}\n"
    )
    hub.views["/previews"] = VIEW
    assert run(["release", "preview", str(tmp_path / "release.yaml")]) == 0
    assert hub.requests[-1] == "POST /previews"
    assert hub.blobs == {}
    assert hub.releases == {}


def host_view(**changes: object) -> HostView:
    view = HostView(
        name="press-3", site="zurich", enrolled_at=NOW, last_seen_at=NOW, presence="online", sequence=1,
        generation_held=1, generation_wanted=1, observed_at=NOW,
        facts={**facts(arch="x86_64", memory_bytes=4 * GIB, engine="podman"), **gpus(("nvidia", 8, "8.6", "535"))},
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


def site_view(assignments: dict[str, str]) -> SiteView:
    return SiteView(
        name="zurich", labels={}, document={}, generation=1, hosts=1, hosts_online=1, last_seen_at=NOW,
        presence="online", assignments=assignments,
    )  # fmt: skip


def explained(hub: HubDouble, capsys: pytest.CaptureFixture[str], host: HostView) -> str:
    hub.views["/hosts/press-3"] = host
    hub.views["/sites/zurich"] = site_view({"inspector": "inspector@1"})
    hub.views["/releases/inspector@1"] = release_view("1", NOW)
    assert run(["explain", "variant", "inspector", "--host", "press-3"]) == 0
    return capsys.readouterr().out


def reporting(*choices: tuple[str, str, str], refused: dict[str, str] | None = None) -> HostView:
    found = tuple(
        VariantChoice(
            kind="image" if kind == "image" else "model",
            model=name,
            version="" if kind == "image" else "1",
            variant=chosen,
            why=(f"{chosen}: fits",),
        )
        for kind, name, chosen in choices
    )
    view = ApplicationView(phase="running", release="inspector@1", choices=found, refused=refused or {})
    return host_view(applications={"inspector": view})


def test_what_a_host_says_comes_first_and_what_would_be_chosen_now_only_if_it_differs(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    same = explained(hub, capsys, reporting(("model", "defects", "trt"), ("image", "main", "cpu")))
    assert "Of model defects 1 it uses the variant trt." in same
    assert "Of the image of main it uses the variant cpu." in same
    assert "would be chosen now" not in same
    other = explained(hub, capsys, reporting(("model", "defects", "int8"), ("image", "main", "cpu")))
    assert other.index("press-3 says about inspector") < other.index("of inspector@1 would be chosen now:")
    assert "  model defects 1: trt\n    trt: fits" in other
    assert "image of main" not in other.partition("would be chosen now")[2]


def test_an_application_that_a_host_does_not_know_is_held_against_its_facts(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = explained(hub, capsys, host_view())
    assert "press-3 has not reported an application inspector." in shown
    assert "  model defects 1: trt" in shown
    small = host_view(facts=facts(arch="aarch64", memory_bytes=1))
    shown = explained(hub, capsys, small)
    assert "inspector@1 cannot run there:" in shown
    assert "main: image: cpu: needs platform linux/amd64, has aarch64" in shown
    hub.views.pop("/releases/inspector@1")
    assert run(["explain", "variant", "inspector", "--host", "press-3"]) == 4


def test_a_placement_is_explained_with_what_hosts_say_of_their_duty() -> None:
    issued = SitePlacement(count=1, hosts=("press-3", "press-4"), takeover_s=10.0)
    view = PlacementView(
        application="inspector",
        release="inspector@1",
        generation=7,
        issued=issued,
        now=msgspec.structs.replace(issued, hosts=("press-4",)),
        why={"press-3": "does not fit: needs a camera", "press-4": "runs it: has its place"},
    )
    active = ApplicationView(phase="running", duty="active")
    hosts = [host_view(applications={"inspector": active})]
    text = list(placement_sentences([view], hosts, application="inspector", site="zurich", at=NOW))
    assert text == [
        "inspector@1 runs on the first host of this order still alive (generation 7):",
        "  1. press-3: runs it; says it is active, as of just now",
        "  2. press-4: stands by; has not said what it does",
        "A host that is silent for 10 s is replaced by the next one in the order.",
        "It would be placed anew now: press-4.",
        "Host by host:",
        "  press-3: does not fit: needs a camera",
        "  press-4: runs it: has its place",
    ]
    with pytest.raises(Missing, match="not assigned an application other"):
        list(placement_sentences([view], hosts, application="other", site="zurich", at=NOW))
    unplaced = msgspec.structs.replace(view, issued=None, now=None)
    text = list(placement_sentences([unplaced], hosts, application="inspector", site="zurich", at=NOW))
    assert text[1] == "By the facts last reported no host fits:"


def test_a_release_is_described_with_its_images_placement_and_expectations() -> None:
    pairs = image(
        "cuda", platform="linux/amd64", models={"defects": ("trt",)}, gpu=GpuRequirement(memory="6GiB")
    )
    main = component(models=("defects",), images=(pairs,), devices=(Device(name="eye", use="camera"),))
    models: dict[str, tuple[Variant, ...]] = {
        "defects": (variant("trt", expects=Expectation(latency="3ms", accuracy=0.9), memory="1GiB"),)
    }
    found = release(main, models=models, placement=Placement(mode="count", count=2))
    view = msgspec.structs.replace(release_view("1", NOW), document=msgspec.to_builtins(found))
    text = "\n".join(portraits.release_lines(view, at=NOW))
    assert "Placement:     2 hosts, 1 standing by, 30s silence" in text
    assert "image cuda (linux/amd64): 1000 B" in text
    assert "needs GPU with memory >= 6 GiB" in text
    assert "goes with defects trt" in text
    assert "device eye: camera" in text
    assert "variant trt (onnx), needs memory >= 1 GiB, expects latency 3ms, accuracy 0.9" in text


def test_a_host_is_described_with_its_duty_and_what_failed_there() -> None:
    choice = VariantChoice(kind="image", model="main", version="", variant="cpu", why=("cpu: fits",))
    view = ApplicationView(
        phase="standing-by",
        release="inspector@1",
        choices=(choice,),
        failed_variants={"defects@1/trt": "off by 0.2"},
        duty="stand-by",
    )
    text = "\n".join(portraits.application_lines("inspector", view))
    assert "inspector: standing-by inspector@1, stand-by" in text
    assert "image of main: variant cpu" in text
    assert "variant defects@1/trt failed its self-test: off by 0.2" in text
