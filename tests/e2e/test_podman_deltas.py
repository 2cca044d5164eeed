"""Images come as deltas of their layers over a bad link, into a real engine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.lan import Lan, throttle_problem
from tests.e2e.boxes import BoxFleet, box, page_image
from tests.e2e.link_counting import (
    HEADS,
    RATE,
    TLS_HANDSHAKE,
    SocketCounts,
    ask_there,
    day_usage,
    document_bytes,
    fetched_message,
    whole_blobs,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.podman,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.delivery,
    pytest.mark.timeout(300),
    pytest.mark.skipif(throttle_problem() != "", reason=throttle_problem()),
]

SIZE = 1 << 20
LOSS = 0.02
MOST_EXCHANGES = 32
"""So many reports go up meanwhile at the most; the agent counts some 600 bytes too many for the heads of each."""
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec: {{{more}}}
"""


def apply(fleet: BoxFleet, more: str) -> None:
    fleet.run("apply", "-f", "-", stdin=SITE.format(more=more))


def push(fleet: BoxFleet, version: str, *changes: int) -> None:
    """Push a release whose image has one layer of its own: a page, and a file with so many bytes changed."""
    ballast = bytearray(random.Random(1).randbytes(SIZE))
    for number, changed in enumerate(changes, 1):
        at = number * 200_000
        ballast[at : at + changed] = random.Random(1000 + number).randbytes(changed)
    image = page_image(fleet.folder / f"image-{version}", f"page of {version}", ballast=bytes(ballast))
    fleet.push_shop(version, box(image))


def plan(fleet: BoxFleet, version: str) -> int:
    """Have the deltas to a release made, and return what it is to take of the link: its files and its document."""
    traffic = fleet.get("rollout", "preview", f"shop@{version}", "--sites", "*", "--make")["traffic"]
    assert traffic["pending"] == 0
    return int(traffic["size_bytes"]) + document_bytes(fleet, f"shop@{version}")


def came(fleet: BoxFleet, version: str) -> str:
    """Return what the host says of how a release came to it."""
    return fleet.until(lambda: fetched_message(fleet, f"shop@{version}"))


@pytest.fixture
def far(tmp_path: Path) -> Iterator[BoxFleet]:
    """A hub, and one host with an engine of its own at the end of a cable."""
    with Lan(("edge",), number=96) as lan, BoxFleet(tmp_path, lan) as made:
        made.start()
        yield made


def until_runs(
    fleet: BoxFleet, agent: AgentProcess, version: str, sockets: SocketCounts | None = None
) -> None:
    """Wait until a release runs and answers on its host with its own page."""
    lan = fleet.lan
    assert lan is not None

    def answers() -> bool:
        if sockets is not None:
            sockets.look()
        view = agent.application("shop")
        if (view.get("phase"), view.get("release")) != ("running", f"shop@{version}"):
            return False
        return ask_there(lan, "edge", agent.endpoint("shop", "box")) == f"page of {version}"

    fleet.until(answers, fleet.explain)


def test_two_images_in_a_row_come_as_deltas_of_a_layer_over_a_weak_link_and_run(far: BoxFleet) -> None:
    lan = far.lan
    assert lan is not None
    agent = far.box_host()
    push(far, "1.0.0")
    far.roll_shop("1.0.0", until="", deadline="10m")
    until_runs(far, agent, "1.0.0")
    sockets = SocketCounts(lan, "edge")
    sockets.look()
    reports = sockets.others
    # From here on the agent counts, as it has a budget to keep to.
    apply(far, "link: {rate: 128kbit/s, per_day: 1GiB}")
    push(far, "1.1.0", 60_000)
    planned = plan(far, "1.1.0")
    assert 60_000 < planned < 70_000
    lan.throttle("edge", rate=RATE, loss=LOSS)
    wire = lan.bytes_to("edge")
    far.roll_shop("1.1.0", until="", deadline="10m")
    until_runs(far, agent, "1.1.0", sockets)
    assert "1 by delta, in place of 1.0 MiB" in came(far, "1.1.0")

    push(far, "1.2.0", 60_000, 3_000)
    planned += plan(far, "1.2.0")
    assert planned < 80_000
    far.roll_shop("1.2.0", until="", deadline="10m")
    until_runs(far, agent, "1.2.0", sockets)
    assert "1 by delta, in place of 1.0 MiB" in came(far, "1.2.0")
    sockets.look()
    agent.stop()

    # Of each release come its document, its image's configuration, and a layer's delta. The kernel counts heads and
    # TLS beside; the agent counts no TLS, heads by a flat rate, and what it reports and hears, on other connections.
    heads, reports = 6 * HEADS, sockets.others - reports
    assert planned <= sockets.blobs <= 1.05 * planned + heads + sockets.connections * TLS_HANDSHAKE
    assert planned <= day_usage(agent) <= 1.05 * planned + heads + reports + MOST_EXCHANGES * HEADS
    # On the wire all have Ethernet's, IP's and TCP's headers, and what was lost was sent again: a loose bound.
    assert planned <= lan.bytes_to("edge") - wire <= 1.3 * (sockets.blobs + reports)
    assert sum(lan.lost_packets("edge")) > 0, "the link was bad"


def test_an_image_comes_another_way_when_the_layers_of_the_one_before_were_given_up_for_room(
    far: BoxFleet,
) -> None:
    lan = far.lan
    assert lan is not None
    agent = far.box_host()
    lan.throttle("edge", rate=4 << 20, loss=LOSS)
    push(far, "1.0.0")
    far.roll_shop("1.0.0", until="", deadline="10m")
    until_runs(far, agent, "1.0.0")
    layers = {digest for digest, size in whole_blobs(agent).items() if size > 100_000}
    room = (sum(whole_blobs(agent).values()) >> 10) + 64
    assert len(layers) == 2
    apply(far, "disk: {blobs: 1MiB}")
    far.until(lambda: not layers & whole_blobs(agent).keys(), far.explain)
    assert len(far.engines["edge"].podman("images", "--quiet").split()) == 1, "the engine holds the image"

    # There is room for one image: its layers are all fetched, as a layer alone is no image.
    apply(far, f"disk: {{blobs: {room}KiB}}")
    push(far, "1.1.0", 30_000)
    assert plan(far, "1.1.0") < 40_000, "the hub does not know what was given up"
    far.roll_shop("1.1.0", until="", deadline="10m")
    until_runs(far, agent, "1.1.0")
    said = came(far, "1.1.0")
    assert "in 3 files" in said and "by delta" not in said, said
    assert "event=delta.refused" not in agent.log.read_text(), "none was fetched for nothing"
    base = {digest for digest, size in whole_blobs(agent).items() if size > SIZE} - layers
    assert len(base) == 1

    # And none for a layer beside the one that a delta to it could be made from.
    push(far, "1.2.0", 30_000, 3_000)
    far.roll_shop("1.2.0", until="", deadline="10m")
    until_runs(far, agent, "1.2.0")
    assert came(far, "1.2.0") == "shop@1.2.0: 1.0 MiB in 2 files"
    assert not base & whole_blobs(agent).keys()
    assert sum(whole_blobs(agent).values()) <= room << 10
