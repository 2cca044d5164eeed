"""Applications of images on a real engine: pushed, run, updated, and talking to each other."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.podman_world import EXAMPLE, PodmanFleet, talker
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.timeout(300)]


def read_counter(endpoint: str) -> dict[str, Any]:
    """Return what a meter reader says of the first counter's picture."""
    connection = http.client.HTTPConnection(endpoint, timeout=10)
    try:
        picture = (EXAMPLE / "build/counters/counter-000.png").read_bytes()
        connection.request("POST", "/infer", picture, {"Content-Type": "image/png"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found


def test_an_application_of_an_image_is_pushed_out_of_an_archive_and_reads_counters(
    podman_fleet: PodmanFleet,
) -> None:
    agent = podman_fleet.one_host()
    podman_fleet.push_reader("1.1.0")
    podman_fleet.bring("meter-reader-image@1.1.0")
    endpoint = podman_fleet.until(lambda: agent.endpoint("meter-reader-image", "reader"))
    truth = json.loads((EXAMPLE / "build/counters/counters.json").read_text())["counters"][0]["digits"]
    answer = read_counter(endpoint)
    assert answer["digits"] == truth
    assert answer["model"]["version"] == "1.1.0"
    container = podman_fleet.only_container("reader")
    # What the release does not ask for, it does not have.
    script = (
        "import os; print(os.getuid(), open('/proc/self/status').read().count('CapEff:\\t0000000000000000'))"
    )
    assert podman_fleet.engine.podman("exec", container, "/opt/python/bin/python3", "-c", script) == "10001 1"
    assert {address.split(":")[0] for address in podman_fleet.addresses(container)} == {"127.0.0.1"}


def test_a_release_of_another_model_alone_keeps_the_container_and_a_broken_one_is_taken_back(
    podman_fleet: PodmanFleet,
) -> None:
    agent = podman_fleet.one_host()

    def version() -> str:
        said = ask(agent.endpoint("meter-reader-image", "reader"), "/healthz")
        return str(json.loads(said or "{}").get("model", {}).get("version", ""))

    podman_fleet.push_reader("1.0.0")
    podman_fleet.bring("meter-reader-image@1.0.0")
    podman_fleet.until(lambda: version() == "1.0.0")
    container = podman_fleet.only_container("reader")
    first = podman_fleet.pids(container)
    podman_fleet.push_reader("1.1.0")
    podman_fleet.bring("meter-reader-image@1.1.0")
    podman_fleet.until(lambda: version() == "1.1.0")
    podman_fleet.push_reader("1.2.0")
    podman_fleet.bring("meter-reader-image@1.2.0", code=1)
    podman_fleet.until(lambda: version() == "1.1.0")
    assert podman_fleet.only_container("reader") == container
    assert podman_fleet.pids(container) == first


def test_components_find_each_other_by_name_and_a_volume_survives_the_update(
    podman_fleet: PodmanFleet,
) -> None:
    agent = podman_fleet.one_host()
    podman_fleet.push_shop("1.0.0", talker("store", volume=True), talker("front", neighbour="store"))
    podman_fleet.bring("shop@1.0.0")
    podman_fleet.until_says(agent, "front", "front 0 < store 1")
    before = podman_fleet.only_container("store")
    podman_fleet.push_shop(
        "2.0.0",
        talker("store", volume=True, word="depot"),
        talker("front", neighbour="store"),
        update="recreate",
    )
    podman_fleet.bring("shop@2.0.0")
    podman_fleet.until_says(agent, "front", "front 0 < depot 2")
    assert podman_fleet.only_container("store") not in ("", before)


def test_with_blue_green_the_old_release_answers_until_the_new_one_is_proven(
    podman_fleet: PodmanFleet,
) -> None:
    agent = podman_fleet.one_host()
    podman_fleet.push_shop("1.0.0", talker("front", word="old"))
    podman_fleet.bring("shop@1.0.0")
    podman_fleet.until_says(agent, "front", "old 0")
    old = podman_fleet.only_container("front")
    podman_fleet.push_shop("2.0.0", talker("front", word="new", ready=False), update="blue-green")
    podman_fleet.begin("shop@2.0.0", "to-new")

    def candidate() -> str:
        """Return where the container of the new release answers, not ready as it is."""
        others = [entry["Id"] for entry in podman_fleet.containers().values() if entry["Id"] != old]
        places = podman_fleet.addresses(others[0]) if len(others) == 1 else []
        return places[0] if places and ask(places[0]) == "new 0" else ""

    new = podman_fleet.until(candidate)
    assert len(podman_fleet.containers()) == 2
    assert ask(agent.endpoint("shop", "front")) == "old 0"
    ask(new, "/go")
    podman_fleet.run("rollout", "watch", "to-new")
    podman_fleet.until_says(agent, "front", "new 0")
    podman_fleet.until(lambda: podman_fleet.only_container("front") not in ("", old))


def test_what_was_converted_from_a_compose_file_runs(podman_fleet: PodmanFleet, tmp_path: Path) -> None:
    """The image is in the engine under a name, as after a build; the rest is as in `skerry init`'s guide."""
    agent = podman_fleet.one_host()
    podman_fleet.engine.podman("load", "--input", str(podman_fleet.releases / "image.tar"))
    image = podman_fleet.engine.podman("images", "--quiet").splitlines()[0]
    podman_fleet.engine.podman("tag", image, "localhost/reader:1")
    app = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
    compose = tmp_path / "compose.yaml"
    compose.write_text(
        "services:\n  web_1:\n    image: localhost/reader:1\n    read_only: true\n"
        f"    entrypoint: ['/opt/python/bin/python3', '-c', '{app}']\n    ports: ['80:8080']\n"
    )
    target = tmp_path / "shop.yaml"
    podman_fleet.run("init", "--from-compose", str(compose), "--name", "shop", "--to", str(target))
    podman_fleet.run("release", "push", str(target))
    podman_fleet.bring("shop@0.1.0")
    podman_fleet.until(lambda: "Directory listing" in ask(agent.endpoint("shop", "web-1")))
