"""Applications of the smallest image there is: busybox, serving one page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.kit.digests import digest_of, hex_of
from skerry.testing.fleet import AgentProcess
from skerry.testing.images import TestImage, make_image
from skerry.testing.lan import Lan
from skerry.testing.podman import PodmanService
from tests.e2e.conftest import SITE, TestFleet
from tests.e2e.releases import ask

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def page_image(
    folder: Path, page: str, *, architecture: str = "", ballast: bytes = b"", command: str = ""
) -> Path:
    """Write an image that serves a page at port 8080, as an OCI layout in `folder`."""
    files = {"www/index.html": page.encode(), "www/healthz": b"well"}
    if ballast:
        files["ballast"] = ballast
    # The first process of a container gets no signal that it does not ask for.
    serve = "trap 'exit 0' TERM INT; httpd -f -p 8080 -h /www & wait"
    config = {"Cmd": ["/bin/sh", "-c", command or serve]}
    image = make_image(folder / "made", files=files, config=config, architecture=architecture)
    _write_layout(image, folder)
    return folder


def _write_layout(image: TestImage, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def describe(kind: str, digest: str, size: int) -> dict[str, Any]:
        if not (blobs / hex_of(digest)).exists():
            shutil.copyfile(image.blob(digest), blobs / hex_of(digest))
        return {"mediaType": kind, "digest": digest, "size": size}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(CONFIG, *image.parts.config),
            "layers": [describe(LAYER, digest, size) for digest, size in image.parts.layers],
        }
    ).encode()
    digest = digest_of(manifest)
    (blobs / hex_of(digest)).write_bytes(manifest)
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(manifest)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def box(image: Path | list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a component that serves a page: of one image, or of variants."""
    source = {"variants": image} if isinstance(image, list) else {"source": f"oci:{image}"}
    probe = {"http": {"port": "http", "path": "/healthz"}, "period": "200ms"}
    return {
        "name": "box",
        "image": source,
        "ports": [{"name": "http", "port": 8080}],
        "probes": {"startup": {**probe, "failures": 100}, "readiness": probe},
        "stop": {"grace": "1s", "signal": "INT"},
        **more,
    }


class BoxFleet(TestFleet):
    """A fleet whose hosts have a real engine each, and an application called `shop` of one component."""

    def __init__(self, folder: Path, lan: Lan | None = None) -> None:
        super().__init__(folder, lan)
        self.engines: dict[str, PodmanService] = {}

    def box_host(
        self,
        name: str = "edge",
        *,
        site: str = "harbour",
        facts: dict[str, str] | None = None,
        engine: PodmanService | None = None,
    ) -> AgentProcess:
        """Join a host with an engine of its own, in its own namespace where there is a LAN, or with one it shares.

        Two engines in one namespace would pick the same names for their bridges.
        """
        if engine is None:
            network = Path("/run/netns") / self.lan.namespace(name) if self.lan else None
            engine = PodmanService(self.folder / "engines" / name, network=network)
            engine.__enter__()
        self.engines[name] = engine
        self.run("apply", "-f", "-", stdin=SITE.format(name=site, region="north"))
        self.env["DOCKER_HOST"] = f"unix://{self.engines[name].socket}"
        return self.add_agent(site, name, facts or {})

    def push_shop(self, version: str, component: dict[str, Any], **spec: Any) -> str:
        """Push a release of the application."""
        document = {
            "apiVersion": "skerry/v1",
            "kind": "Application",
            "metadata": {"name": "shop"},
            "spec": {"version": version, "components": [component], **spec},
        }
        path = self.folder / f"shop-{version}.json"
        path.write_text(json.dumps(document))
        return self.run("release", "push", str(path))

    def roll_shop(self, version: str, *, until: str = "succeeded", deadline: str = "60s") -> str:
        """Roll a release out and wait until the rollout is so; an empty `until` does not wait."""
        name = f"to-{version.replace('.', '-')}"
        gate = ("--soak", "300ms", "--deadline", deadline)
        self.run("rollout", "start", f"shop@{version}", "--sites", "*", "--name", name, *gate)
        if until:
            self.until(lambda: self.rollout_state(name) == until, self.explain)
        return name

    def page(self, agent: AgentProcess) -> str:
        """Return what the application answers on a host, or nothing."""
        return ask(agent.endpoint("shop", "box"))

    def until_page(self, agent: AgentProcess, page: str) -> None:
        """Wait until the application answers so."""
        self.until(lambda: self.page(agent) == page, self.explain)

    def explain(self) -> str:
        """Return what agents say and did."""
        return "\n".join(
            f"{agent.name}: {agent.status()}\n{agent.log.read_text()[-2000:]}"
            for agent in self.agents.values()
        )

    def close(self) -> None:
        """End everything, the engines last."""
        try:
            super().close()
        finally:
            for engine in set(self.engines.values()):
                engine.close()


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[BoxFleet]:
    """A hub that runs, logged in, with no hosts yet."""
    with BoxFleet(tmp_path) as made:
        made.start()
        yield made
