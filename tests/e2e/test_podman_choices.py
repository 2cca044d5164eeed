"""Which image a host takes, and what it refuses before it stops anything."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.boxes import BoxFleet, box, boxes, page_image

__all__ = ["boxes"]
pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.timeout(300)]

GPU = {
    "gpu.count": "1",
    "gpu.0.vendor": "nvidia",
    "gpu.0.name": "T4",
    "gpu.0.memory_bytes": "16GiB",
    "gpu.0.compute": "7.5",
    "accelerators": "nvidia-gpu",
}


def test_hosts_with_and_without_a_gpu_take_the_image_that_is_made_for_each(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    with_gpu = boxes.box_host("edge-gpu", facts=GPU)
    without = boxes.box_host("edge-cpu", facts={"gpu.*": ""}, engine=boxes.engines["edge-gpu"])
    gpu = {"vendor": "nvidia", "memory": "6GiB", "compute": ">=7.0,<10"}
    variants: list[dict[str, Any]] = [
        {"name": "cuda", "source": f"oci:{page_image(tmp_path / 'cuda', 'cuda')}", "requires": {"gpu": gpu}},
        {"name": "plain", "source": f"oci:{page_image(tmp_path / 'plain', 'plain')}"},
    ]
    boxes.push_shop("1.0.0", box(variants))

    def previewed() -> bool:
        said = boxes.run("release", "preview", "shop@1.0.0")
        return "cuda" in said and "plain" in said

    boxes.until(previewed, boxes.explain)
    boxes.roll_shop("1.0.0")
    boxes.until_page(with_gpu, "cuda")
    boxes.until_page(without, "plain")
    why = boxes.run("explain", "variant", "shop", "--host", "edge-cpu")
    assert "cuda: needs" in why and "GPU" in why


def test_what_a_host_cannot_run_is_refused_with_all_reasons_before_anything_is_stopped(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    agent = boxes.box_host()
    boxes.push_shop("1.0.0", box(page_image(tmp_path / "good", "good")))
    boxes.roll_shop("1.0.0")
    boxes.until_page(agent, "good")
    container = next(iter(json.loads(boxes.engines["edge"].podman("ps", "--format", "json"))))["Id"]

    foreign = "arm64" if platform.machine() == "x86_64" else "amd64"
    wrong = box(
        page_image(tmp_path / "foreign", "foreign", architecture=foreign),
        devices=[{"name": "line", "use": "/dev/ttyUSB77"}],
        resources={"memory": "900GiB"},
        container={"network": "host"},
    )
    boxes.push_shop("1.1.0", wrong)
    boxes.roll_shop("1.1.0", until="failed")
    reasons = json.dumps(agent.application("shop")["refused"])
    for reason in ("arch", "ttyUSB77", "900 GiB", "network"):
        assert reason in reasons
    assert boxes.page(agent) == "good"
    assert boxes.engines["edge"].podman("inspect", "--format", "{{.State.Running}}", container) == "true"
    assert "would run" not in boxes.run("release", "preview", "shop@1.1.0", "--strict", code=1)


def test_a_device_that_no_fact_tells_of_and_is_not_there_is_refused_before_anything_is_stopped(
    boxes: BoxFleet, tmp_path: Path
) -> None:
    agent = boxes.box_host()
    image = page_image(tmp_path / "good", "good")
    boxes.push_shop("1.0.0", box(image))
    boxes.roll_shop("1.0.0")
    boxes.push_shop("1.1.0", box(image, devices=[{"name": "odd", "use": "/dev/skerry-odd"}]))
    boxes.roll_shop("1.1.0", until="failed")
    assert "/dev/skerry-odd, which is not there" in json.dumps(agent.application("shop")["refused"])
    assert boxes.page(agent) == "good"


@pytest.mark.parametrize(
    ("component", "problem"),
    (
        ({"container": {"capabilities": ["WALK_ON_WATER"]}}, "WALK_ON_WATER"),
        ({"resources": {"memory": "0"}}, "memory"),
        ({"devices": [{"name": "eye", "use": "teleporter"}]}, "teleporter"),
    ),
)
def test_what_makes_no_sense_is_refused_when_it_is_pushed(
    boxes: BoxFleet, tmp_path: Path, component: dict[str, object], problem: str
) -> None:
    path = tmp_path / "shop.json"
    document = {
        "apiVersion": "skerry/v1",
        "kind": "Application",
        "metadata": {"name": "shop"},
        "spec": {"version": "1.0.0", "components": [box(page_image(tmp_path / "good", "good"), **component)]},
    }
    path.write_text(json.dumps(document))
    done = boxes.try_run("release", "push", str(path))
    assert done.returncode == 2
    assert problem in done.stderr
