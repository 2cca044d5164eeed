"""Images on their way into an engine: cut off, damaged, with no room; and a host that loses its power."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from skerry.kit.digests import hex_of
from skerry.testing.fleet import AgentProcess
from tests.e2e.boxes import BoxFleet, box, boxes, page_image

__all__ = ["boxes"]
pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.timeout(300)]

MIB = 1 << 20


def noise(size: int) -> bytes:
    """Return bytes that nothing compresses."""
    return random.Random(size).randbytes(size)


def blobs_of(agent: AgentProcess) -> Path:
    return agent.data / "blobs" / "sha256"


def layers_in(layout: Path) -> list[str]:
    """Return the digests of a layout's layers, the biggest last."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / hex_of(index["manifests"][0]["digest"])).read_text())
    return [layer["digest"] for layer in sorted(manifest["layers"], key=lambda layer: layer["size"])]


def test_a_load_that_is_cut_off_leaves_nothing_half_used_and_is_done_again(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    agent = boxes.box_host()
    engine = boxes.engines["edge"]
    boxes.push_shop("1.0.0", box(page_image(tmp_path / "big", "big", ballast=noise(200 * MIB))))
    boxes.roll_shop("1.0.0", until="")
    boxes.until(lambda: agent.application("shop").get("phase") == "preparing", boxes.explain)
    engine.kill()
    boxes.until(lambda: "engine" in str(agent.application("shop").get("why")), boxes.explain)
    assert json.loads(engine.podman("images", "--format", "json") or "[]") == []
    engine.start()
    boxes.until_page(agent, "big")


def test_a_layer_that_was_damaged_on_disk_never_reaches_the_engine(boxes: BoxFleet, tmp_path: Path) -> None:
    agent = boxes.box_host()
    engine = boxes.engines["edge"]
    layout = page_image(tmp_path / "page", "whole", ballast=noise(MIB))
    boxes.until(lambda: "engine" in (agent.status().get("facts") or {}), boxes.explain)
    engine.kill()
    boxes.push_shop("1.0.0", box(layout))
    boxes.roll_shop("1.0.0", until="")
    name = hex_of(layers_in(layout)[-1])
    blob = blobs_of(agent) / name[:2] / name
    boxes.until(blob.exists, boxes.explain)
    boxes.until(lambda: "engine" in str(agent.application("shop").get("why")), boxes.explain)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    engine.start()
    boxes.until_page(agent, "whole")
    assert "damaged on disk" in boxes.run("get", "events")


def test_an_engine_with_no_room_holds_the_new_release_back_and_leaves_the_good_one_alone(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    room = boxes.folder / "engines" / "edge"
    room.mkdir(parents=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(room)), check=True)
    try:
        agent = boxes.box_host()
        boxes.push_shop("1.0.0", box(page_image(tmp_path / "small", "small")))
        boxes.roll_shop("1.0.0")
        boxes.push_shop("1.1.0", box(page_image(tmp_path / "big", "big", ballast=noise(60 * MIB))))
        boxes.roll_shop("1.1.0", until="")
        boxes.until(lambda: "disk full" in str(agent.application("shop").get("why")), boxes.explain)
        assert boxes.page(agent) == "small"
        subprocess.run(("mount", "-o", "remount,size=400m", str(room)), check=True)
        boxes.until_page(agent, "big")
    finally:
        boxes.close()
        subprocess.run(("umount", "--lazy", str(room)), check=False)


def test_images_that_nothing_needs_any_more_are_removed(boxes: BoxFleet, tmp_path: Path) -> None:
    agent = boxes.box_host()
    for number in range(1, 5):
        boxes.push_shop(f"{number}.0.0", box(page_image(tmp_path / str(number), f"page {number}")))
        boxes.roll_shop(f"{number}.0.0")
        boxes.until_page(agent, f"page {number}")

    def held() -> int:
        return len(json.loads(boxes.engines["edge"].podman("images", "--format", "json") or "[]"))

    boxes.until(lambda: held() == 2, boxes.explain)


def test_after_a_power_cut_everything_runs_again_with_no_hub(boxes: BoxFleet, tmp_path: Path) -> None:
    agent = boxes.box_host()
    boxes.push_shop(
        "1.0.0", box(page_image(tmp_path / "page", "here"), volumes=[{"name": "v", "path": "/v"}])
    )
    boxes.roll_shop("1.0.0")
    boxes.until_page(agent, "here")
    boxes.hub.kill()
    agent.kill()
    boxes.engines["edge"].power_cut()
    assert boxes.page(agent) == ""
    boxes.engines["edge"].start()
    agent.start()
    boxes.until_page(agent, "here")


def test_containers_that_the_engine_brought_back_by_label_are_adopted(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    agent = boxes.box_host()
    boxes.push_shop("1.0.0", box(page_image(tmp_path / "page", "here")))
    boxes.roll_shop("1.0.0")
    boxes.until_page(agent, "here")
    agent.kill()
    engine = boxes.engines["edge"]
    engine.podman("stop", "--all", "--time", "1")
    engine.podman("start", "--all", "--filter", "label=io.skerry.instance")
    before = {one["Id"] for one in json.loads(engine.podman("ps", "--format", "json"))}
    assert len(before) == 1
    (agent.data / "status.json").unlink()
    agent.start()
    boxes.until_page(agent, "here")
    boxes.until(lambda: agent.application("shop").get("phase") == "running", boxes.explain)
    assert {one["Id"] for one in json.loads(engine.podman("ps", "--format", "json"))} == before
