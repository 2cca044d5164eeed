"""`release diff`, `rollout preview`, `rollout start --at` and `explain delivery`: what people and programs read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import msgspec
import pytest

from skerry.cli.delta_waiting import await_deltas
from skerry.cli.explain_delivery import delivery_sentences
from skerry.cli.main import run
from skerry.cli.options import SIZE
from skerry.cli.release_diff import diff_lines
from skerry.cli.rollout_preview import traffic_lines
from skerry.client.client import Client
from skerry.matching.preview import preview_fleet
from skerry.spec.api import FleetPreview, Presence, SiteView
from skerry.spec.api_delivery import (
    DeltaOrder,
    DeltaOrdered,
    FieldChange,
    FileChange,
    FileDelivery,
    HostDelivery,
    ReleaseDiff,
    SiteTraffic,
    TrafficPreview,
    VariantCost,
)
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble
from tests.unit.matching_world import release

pytestmark = pytest.mark.delivery

MIB = 1 << 20
HOSTILE = "evil\x1b[2J\n  everything is fine\u202e"
DIFF = ReleaseDiff(
    old="reader@1",
    new="reader@2",
    fields=(
        FieldChange(path="application.spec.version", before="1", after="2"),
        FieldChange(path="application.spec.components[main].env.LEVEL", after="debug"),
    ),
    files=(
        FileChange(
            owner="bundle main",
            path="run",
            change="changed",
            size_bytes=MIB,
            compressed_bytes=1000,
            delta_bytes=99,
        ),
        FileChange(owner="model m (int8)", path="w.onnx", change="added", size_bytes=4 * MIB, pending=True),
        FileChange(owner="bundle main", path="old.txt", change="removed", size_bytes=10),
    ),
    variants=(
        VariantCost(owner="bundle main", files=1, full_bytes=MIB, size_bytes=99),
        VariantCost(owner="model m (fp16)", files=0, full_bytes=0, size_bytes=0),
        VariantCost(owner="model m (int8)", files=1, full_bytes=4 * MIB, size_bytes=4 * MIB, pending=1),
    ),
    unchanged_files=2,
    pending=1,
    left_s=12.0,
)
TRAFFIC = TrafficPreview(
    release="reader@2",
    selector="*",
    sites=(
        SiteTraffic(site="closed", hosts=1, size_bytes=MIB, full_bytes=MIB, never=True),
        SiteTraffic(
            site="harbour", hosts=2, size_bytes=MIB, full_bytes=4 * MIB, duration_s=3661.0, unmatched=1
        ),
        SiteTraffic(site="airport", hosts=1, size_bytes=0, full_bytes=0),
    ),
    size_bytes=2 * MIB,
    full_bytes=5 * MIB,
    pending=3,
    left_s=90.0,
)
FLEET = preview_fleet(release(), {})
DONE = DeltaOrdered(deltas=4, pending=0, left_s=0.0)


PRESENCES: tuple[tuple[str, Presence], ...] = (("harbour", "online"), ("airport", "silent"))
SITES = [
    SiteView(
        name=name,
        labels={"region": "north"},
        document={},
        generation=1,
        hosts=1,
        hosts_online=int(presence == "online"),
        last_seen_at=None,
        presence=presence,
    )
    for name, presence in PRESENCES
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as hub:
        hub.views["/releases/reader@2/deltas"] = DONE
        hub.views["/releases/reader@2/diff"] = DIFF
        hub.views["/releases/reader@2/traffic"] = TRAFFIC
        hub.views["/releases/reader@2/preview"] = FLEET
        hub.views["/sites"] = SITES
        yield hub


# ── skerry release diff ──────────────────────────────────────────────────────────────────────────────


def test_a_diff_says_fields_files_and_what_a_host_fetches() -> None:
    assert list(diff_lines(DIFF)) == [
        "reader@1 -> reader@2",
        "  application.spec.version: 1 -> 2",
        "  application.spec.components[main].env.LEVEL: (absent) -> debug",
        "OF              FILE     CHANGE   FULL     COMPRESSED  DELTA",
        "bundle main     run      changed  1.0 MiB  1000 B      99 B",
        "model m (int8)  w.onnx   added    4.0 MiB  ?           ?",
        "bundle main     old.txt  removed  10 B     -           -",
        "2 files unchanged",
        "A host that has the old release fetches, by what it runs:",
        "OF              FILES  FETCHES  IN PLACE OF",
        "bundle main     1      99 B     1.0 MiB",
        "model m (int8)  1      4.0 MiB  4.0 MiB",
        "1 delta still to be made: with them it may be less",
    ]
    same = ReleaseDiff(old="a@1", new="a@1", fields=(), files=(), variants=(), unchanged_files=3)
    assert list(diff_lines(same)) == ["a@1 -> a@1", "nothing changed"]


def test_a_diff_has_the_deltas_made_first_unless_that_is_not_wanted(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["release", "diff", "reader@1", "reader@2"]) == 0
    assert hub.requests == ["POST /releases/reader@2/deltas", "GET /releases/reader@2/diff?old=reader%401"]
    assert capsys.readouterr().out.splitlines() == list(diff_lines(DIFF))
    hub.requests.clear()
    assert run(["release", "diff", "reader@1", "reader@2", "--no-make", "-o", "json"]) == 0
    assert hub.requests == ["GET /releases/reader@2/diff?old=reader%401"]
    assert msgspec.convert(json.loads(capsys.readouterr().out), ReleaseDiff) == DIFF
    assert run(["release", "diff", "reader@1", "reader@9"]) == 4


def test_a_diff_that_waited_for_too_long_shows_what_there_is(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/releases/reader@2/deltas"] = DeltaOrdered(deltas=4, pending=2, left_s=0.0)
    assert run(["release", "diff", "reader@1", "reader@2", "--timeout", "1ms"]) == 0
    said = capsys.readouterr()
    assert "2 deltas still to be made; what is shown is without them" in said.err
    assert said.out.splitlines() == list(diff_lines(DIFF))


def test_names_that_would_steer_the_terminal_are_cleaned(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    file = FileChange(owner=HOSTILE, path=HOSTILE, change="added", size_bytes=1)
    field = FieldChange(path="x", before=HOSTILE, after=HOSTILE)
    hub.views["/releases/reader@2/diff"] = msgspec.structs.replace(DIFF, files=(file,), fields=(field,))
    site = SiteTraffic(site=HOSTILE, hosts=1, size_bytes=1, full_bytes=1)
    hub.views["/releases/reader@2/traffic"] = msgspec.structs.replace(TRAFFIC, sites=(site,))
    hub.views["/releases/reader@2/delivery"] = HostDelivery(
        host=HOSTILE,
        release=HOSTILE,
        before="",
        files=(),
        here=0,
        size_bytes=0,
        full_bytes=0,
        reasons=(HOSTILE,),
    )
    for command in (
        ["release", "diff", "reader@1", "reader@2"],
        ["rollout", "preview", "reader@2", "--sites", "*"],
        ["explain", "delivery", "reader@2", "--host", "h"],
    ):
        assert run(command) == 0
        out = capsys.readouterr().out
        assert "evil" in out
        assert not {"\x1b", "\u202e"} & set(out)
        assert not any(line.startswith("  everything is fine") for line in out.splitlines())


# ── skerry rollout preview ───────────────────────────────────────────────────────────────────────────


def test_a_preview_says_what_goes_over_each_link_the_slowest_first() -> None:
    assert list(traffic_lines(TRAFFIC, 0)) == [
        "Over the links: 2.0 MiB, in place of 5.0 MiB, the slowest sites first:",
        "SITE     HOSTS  FETCHES  IN PLACE OF  TAKES                    GETS NOTHING",
        "closed   1      1.0 MiB  1.0 MiB      never within its budget  -",
        "harbour  2      1.0 MiB  4.0 MiB      1h 1m                    1",
        "airport  1      0 B      0 B          -                        -",
        "3 deltas being made (about 1m 30s): with them it may be less",
    ]
    short = list(traffic_lines(TRAFFIC, 1))
    assert "and 2 sites more" in short and not any(line.startswith("harbour") for line in short)
    assert list(traffic_lines(msgspec.structs.replace(TRAFFIC, sites=()), 20)) == []


def test_a_preview_makes_deltas_only_when_it_is_told_to(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rollout", "preview", "reader@2", "--sites", "region=north"]
    assert run([*command, "--limit", "2"]) == 0
    assert hub.requests == [
        "GET /sites?selector=region%3Dnorth",
        "GET /releases/reader@2/preview?selector=region%3Dnorth",
        "GET /releases/reader@2/traffic?selector=region%3Dnorth",
    ]
    said = capsys.readouterr().out
    assert "\n".join(traffic_lines(TRAFFIC, 2)) in said
    assert said.splitlines()[-4:] == [
        "Waves, if it began now:",
        "  canary: 1 site: harbour",
        "  early: 1 site, 1 of them away now: airport",
        "  rest: 0 sites: nobody is left",
    ]
    hub.requests.clear()
    assert run([*command, "--make", "-o", "json"]) == 0
    assert "POST /releases/reader@2/deltas" in hub.requests
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"fleet", "traffic", "waves", "hosts"}
    assert msgspec.convert(told["traffic"], TrafficPreview) == TRAFFIC
    assert msgspec.convert(told["fleet"], FleetPreview) == FLEET


# ── skerry rollout start ─────────────────────────────────────────────────────────────────────────────


def test_a_rollout_is_started_for_later_with_its_files_fetched_ahead(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["rollout", "start", "reader@2", "--sites", "*"]
    assert run([*start, "--name", "a", "--at", "2026-03-01T02:00+01:00", "--prefetch"]) == 0
    assert run([*start, "--name", "b", "--at", "2026-03-01T01:00:30Z"]) == 0
    assert run([*start, "--name", "c"]) == 0
    specs = {name: document["spec"] for (_, name), document in hub.documents.items()}
    assert (specs["a"]["begin_at"], specs["a"]["prefetch"]) == ("2026-03-01T02:00:00+01:00", True)
    assert datetime.fromisoformat(specs["b"]["begin_at"]) == datetime(2026, 3, 1, 1, 0, 30, tzinfo=UTC)
    assert "prefetch" not in specs["b"]
    assert not {"begin_at", "prefetch"} & specs["c"].keys()
    capsys.readouterr()
    assert run([*start, "--at", "2026-03-01T02:00"]) == 2
    assert "%z" in capsys.readouterr().err
    assert set(specs) == {"a", "b", "c"}


# ── skerry explain delivery ──────────────────────────────────────────────────────────────────────────


def file(path: str, way: str, **sizes: int) -> FileDelivery:
    size = 4 * MIB
    known = {"full": size, "compressed": sizes.get("compressed_bytes"), "delta": sizes.get("delta_bytes")}[
        way
    ]
    assert known is not None
    return FileDelivery(
        owner="models/m", path=path, size_bytes=size, way=way, way_bytes=known, **sizes  # type: ignore[arg-type]
    )  # fmt: skip


def sentences(**changes: object) -> list[str]:
    view = HostDelivery(
        host="press-3",
        release="reader@2",
        before="reader@1",
        files=(),
        here=0,
        size_bytes=0,
        full_bytes=0,
        as_of=datetime.now(UTC) - timedelta(hours=3),
    )
    return list(delivery_sentences(msgspec.structs.replace(view, **changes)))


def test_each_file_says_how_it_would_come_and_why_that_way() -> None:
    small = FileDelivery(owner="bundles/b", path="s", size_bytes=10, way="full", way_bytes=10)
    files = (
        file("a", "delta", bases=1, delta_bytes=100, compressed_bytes=2 * MIB),
        file("b", "compressed", bases=3, delta_bytes=3 * MIB, compressed_bytes=2 * MIB),
        file("c", "full", bases=1),
        msgspec.structs.replace(file("d", "full", bases=2), pending=True),
        file("e", "full"),
        small,
    )
    said = sentences(files=files, here=2, size_bytes=10 * MIB, full_bytes=20 * MIB)
    assert said == [
        "As of 3h ago, press-3 runs reader@1.",
        "2 files of reader@2 it has already.",
        "It would fetch 10.0 MiB for 6 files, in place of 20.0 MiB:",
        "  models/m/c (4.0 MiB): in full; no delta was made yet",
        "  models/m/d (4.0 MiB): in full; a delta is being made",
        "  models/m/e (4.0 MiB): in full; nothing that it has is related",
        (
            "  models/m/b (4.0 MiB): compressed, 2.0 MiB; "
            "by delta from the 3 layers that it replaces it would take 3.0 MiB"
        ),
        "  models/m/a (4.0 MiB): by delta from what it replaces, 100 B; compressed it would take 2.0 MiB",
        "  bundles/b/s (10 B): in full; too small for a delta",
    ]


def test_a_host_that_has_it_has_nothing_or_gets_nothing_is_said_to() -> None:
    assert sentences(here=3) == [
        "As of 3h ago, press-3 runs reader@1.",
        "3 files of reader@2 it has already.",
    ]
    assert sentences(before="") == ["As of 3h ago, press-3 runs no release of it."]
    assert sentences(before="", as_of=None) == ["press-3 has not reported what it runs."]
    assert sentences(reasons=("needs a camera", "needs memory")) == [
        "press-3 would fetch nothing of reader@2:",
        "  needs a camera",
        "  needs memory",
    ]


def test_explain_asks_for_one_host(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hub.views["/releases/reader@2/delivery"] = HostDelivery(
        host="press-3", release="reader@2", before="", files=(), here=0, size_bytes=0, full_bytes=0,
        reasons=("no facts yet",),
    )  # fmt: skip
    assert run(["explain", "delivery", "reader@2", "--host", "press-3"]) == 0
    assert hub.requests == ["GET /releases/reader@2/delivery?host=press-3"]
    assert capsys.readouterr().out == "press-3 would fetch nothing of reader@2:\n  no facts yet\n"
    assert run(["explain", "delivery", "reader@9", "--host", "press-3"]) == 4


# ── waiting for deltas ───────────────────────────────────────────────────────────────────────────────


class Maker:
    """A hub that makes deltas by a script, and the time that passes meanwhile."""

    def __init__(self, *answers: tuple[int, float]) -> None:
        self.answers = list(answers)
        self.now = 100.0
        self.slept: list[float] = []
        self.orders: list[tuple[str, DeltaOrder]] = []

    def order_deltas(self, release: str, order: DeltaOrder) -> DeltaOrdered:
        """Say how many are pending, and for how long; the last answer stands."""
        self.orders.append((release, order))
        pending, left_s = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return DeltaOrdered(deltas=9, pending=pending, left_s=left_s)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def wait(self, timeout_s: float = 600.0) -> bool:
        return await_deltas(
            cast(Client, self),
            "reader@2",
            DeltaOrder(old="reader@1"),
            timeout_s=timeout_s,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_what_is_there_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    maker = Maker((0, 0.0))
    assert maker.wait()
    assert (maker.slept, capsys.readouterr().err) == ([], "")


def test_deltas_are_asked_for_again_until_they_are_made_and_how_far_that_is_is_said_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    maker = Maker((3, 60.0), (2, 8.0), (2, 4.0), (1, 0.1), (0, 0.0))
    assert maker.wait()
    assert maker.slept == [5.0, 4.0, 2.0, 0.3]
    assert set(maker.orders) == {("reader@2", DeltaOrder(old="reader@1"))}
    assert capsys.readouterr().err.splitlines() == [
        "making 3 deltas, about 1m to go",
        "making 2 deltas, about 8s to go",
        "making 1 delta, about 1s to go",
    ]


@pytest.mark.parametrize("timeout_s", (1.0, 7.0, 30.0))
def test_it_gives_up_in_time_and_says_so(timeout_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    maker = Maker((2, 100.0))
    assert not maker.wait(timeout_s)
    assert maker.now - 100.0 == pytest.approx(timeout_s)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "2 deltas still to be made; what is shown is without them"
    )


# ── sizes as options ─────────────────────────────────────────────────────────────────────────────────


def test_a_size_is_handed_over_in_bytes_and_anything_else_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SIZE.convert("500MiB", None, None) == 500 * MIB
    assert SIZE.convert(7, None, None) == 7
    assert run(["hub", "serve", "--data", str(tmp_path), "--delta-disk", "lots"]) == 2
    assert "not a size: 'lots'" in capsys.readouterr().err
    assert run(["hub", "serve", "--data", str(tmp_path), "--delta-workers", "-1"]) == 2
    assert list(tmp_path.iterdir()) == []
