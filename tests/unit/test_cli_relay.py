"""The commands about relays: what they ask the hub for, and what they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import run
from skerry.spec.api import JoinTokenAnswer
from skerry.spec.api_relay import Hop, HostPath, RelayStanding, RelayTokenAnswer, SitePath
from skerry.spec.relay import CacheView, QueueView, RelayView
from tests.unit.cli_session import logged_in_hub
from tests.unit.hub_double import HubDouble

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WRITTEN = RelayStanding(
    name="gate",
    labels={"zone": "dmz"},
    document={"spec": {"addresses": ["gate.example:8443"], "upstreams": ["above"]}},
    presence="never",
)
STANDING = msgspec.structs.replace(
    WRITTEN,
    presence="silent",
    enrolled_at=NOW,
    last_seen_at=NOW,
    generation_held=2,
    generation_wanted=3,
    clock_offset_s=-40.0,
    came_by={"above": NOW},
    below=("cell",),
    sites=tuple(f"site-{number}" for number in range(25)),
    view_at=NOW,
    view=RelayView(
        version="9",
        upstream="https://above:8443",
        trouble="the disk is full",
        cache=CacheView(blobs=2, used_bytes=2048, limit_bytes=4096, hits=3, misses=1, damaged=1),
        queue=QueueView(reports=2, used_bytes=512, limit_bytes=1024, oldest_s=90, dropped_metrics=7),
        hosts={"edge": 3},
    ),
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with logged_in_hub(tmp_path, monkeypatch) as made:
        yield made


def test_a_relays_token_is_printed_alone_and_whom_it_is_for_beside_it(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/relays/gate/tokens"] = RelayTokenAnswer(
        token="skerry-join.x", relay="gate", hub="https://above:8443", expires_at=NOW
    )
    assert run(["relay", "token", "gate", "--ttl", "2h", "--replace", "--via", "above"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "skerry-join.x\n"
    assert "for relay gate, asking https://above:8443" in printed.err
    assert json.loads(hub.bodies["/relays/gate/tokens"]) == {"ttl_s": 7200.0, "replace": True, "via": "above"}


def test_a_token_for_hosts_can_lead_them_by_a_relay(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/sites/zurich/join-tokens"] = JoinTokenAnswer(
        token="skerry-join.y", site="zurich", expires_at=NOW, uses=1
    )
    assert run(["site", "token", "zurich", "--via", "gate"]) == 0
    assert capsys.readouterr().out == "skerry-join.y\n"
    assert json.loads(hub.bodies["/sites/zurich/join-tokens"])["via"] == "gate"


def test_relays_are_listed_and_described_with_what_they_said(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/relays"] = [STANDING]
    hub.views["/relays/gate"] = STANDING
    assert run(["get", "relays"]) == 0
    assert "gate.example:8443" in capsys.readouterr().out
    assert run(["describe", "relay", "gate"]) == 0
    text = capsys.readouterr().out
    for line in (
        "it came by relay above",
        "holds generation 2, generation 3 waits for it",
        "off by -40 s",
        "site-19 and 5 more",
        "Trouble:       the disk is full",
        "2 blobs, 2.0 KiB of 4.0 KiB, 75% of 4 from here",
        "1 blob found damaged and removed",
        "2 reports and 0 of metrics to hand up, 512 B of 1.0 KiB, the oldest for 1m 30s",
        "given up for want of room since it was set up: 0 reports and 7 batches of metrics",
    ):
        assert line in text, text
    assert run(["describe", "relay", "gate", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["view"]["version"] == "9"


def test_a_relay_that_nobody_has_joined_as_says_how(
    hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.views["/relays/gate"] = WRITTEN
    assert run(["describe", "relay", "gate"]) == 0
    assert "nobody has joined as this relay yet: skerry relay token gate" in capsys.readouterr().out


def test_the_way_to_a_site_is_told_hop_by_hop(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hops = (
        Hop(kind="hub", name="hub"),
        Hop(kind="relay", name="gate", heard_at=NOW, is_silent=True),
        Hop(kind="host", name="edge", heard_at=NOW),
    )
    found = SitePath(
        site="zurich", relays=("gate",), hosts=(HostPath(host="edge", hops=hops, broken="gate"),)
    )
    hub.views["/sites/zurich/path"] = found
    assert run(["explain", "path", "zurich"]) == 0
    text = capsys.readouterr().out
    assert "edge > relay gate > hub: reports go up" in text
    assert "It is broken above or at relay gate" in text
    assert run(["explain", "path", "zurich", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["hosts"][0]["broken"] == "gate"


def test_a_relay_is_deleted_by_name(hub: HubDouble, capsys: pytest.CaptureFixture[str]) -> None:
    hub.views["/relays/gate"] = WRITTEN
    assert run(["delete", "relay", "gate", "--yes"]) == 0
    assert capsys.readouterr().out == "relay/gate deleted\n"
