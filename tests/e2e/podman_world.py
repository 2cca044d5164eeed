"""A fleet whose agents use a Podman of the test's own, and applications of images for it.

There are two images: the meter reader's, and the lowest layer of it alone, which holds a Python. Other applications
are some lines of Python in that.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from skerry.kit.digests import digest_of, hex_of
from skerry.testing.podman import PodmanService
from tests.e2e.conftest import SITE, TestFleet
from tests.e2e.releases import ask

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "meter-reader"
PYTHON = "/opt/python/bin/python3"

# Counts its starts in its volume, is ready when told to, and asks a neighbour where it has one.
TALKER = """
import http.server, os, pathlib, signal, threading, urllib.request
# The first process of a container gets no signal that it does not ask for.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
state = pathlib.Path(os.environ.get("STATE", "/nowhere"))
starts = 0
if state.is_dir():
    held = state / "starts"
    starts = int(held.read_text()) + 1 if held.exists() else 1
    held.write_text(str(starts))
ready = threading.Event()
if os.environ.get("READY", "yes") == "yes":
    ready.set()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/go":
            ready.set()
        status, neighbour = 200 if ready.is_set() or self.path != "/healthz" else 503, os.environ.get("NEIGHBOUR")
        said = f"{os.environ['WORD']} {starts}"
        if neighbour and self.path == "/":
            said += " < " + urllib.request.urlopen(f"http://{neighbour}:8080/", timeout=5).read().decode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def reader_image() -> Path:
    """Return the meter reader's image, built where it is kept from run to run, with the models beside it."""
    for script in ("build.py --without-bundle", "image.py"):
        command = [sys.executable, *(str(EXAMPLE / script.split()[0]), *script.split()[1:])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    return EXAMPLE / "build" / "image"


def archive_of(layout: Path, target: Path) -> Path:
    """Write an OCI layout as one file, as tools hand it on."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, str(path.relative_to(layout)), recursive=False)
    return target


def python_archive(layout: Path, target: Path) -> Path:
    """Write an image of a layout's lowest layer alone, a quarter of the whole, as one file."""
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    manifest = json.loads((blobs / hex_of(index["manifests"][0]["digest"])).read_text(encoding="utf-8"))
    config = json.loads((blobs / hex_of(manifest["config"]["digest"])).read_text(encoding="utf-8"))
    config["rootfs"]["diff_ids"] = config["rootfs"]["diff_ids"][:1]
    config["history"] = config.get("history", [])[:1]
    config["config"].pop("Entrypoint", None)
    lowest = manifest["layers"][0]
    described = json.dumps(config).encode()
    manifest["config"] |= {"digest": digest_of(described), "size": len(described)}
    manifest["layers"] = [lowest]
    listed = json.dumps(manifest).encode()
    entry = {**index["manifests"][0], "digest": digest_of(listed), "size": len(listed)}
    members = {
        "oci-layout": (layout / "oci-layout").read_bytes(),
        "index.json": json.dumps({**index, "manifests": [entry]}).encode(),
        f"blobs/sha256/{hex_of(digest_of(described))}": described,
        f"blobs/sha256/{hex_of(digest_of(listed))}": listed,
        f"blobs/sha256/{hex_of(lowest['digest'])}": (blobs / hex_of(lowest["digest"])).read_bytes(),
    }
    with tarfile.open(target, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target


def talker(
    name: str, *, volume: bool = False, neighbour: str = "", ready: bool = True, word: str = ""
) -> dict[str, Any]:
    """Return a component that answers with its word, its starts, and what its neighbour says."""
    env = {"WORD": word or name, "READY": "yes" if ready else "no"}
    probe = {"http": {"port": "http", "path": "/healthz"}, "period": "200ms"}
    component: dict[str, Any] = {
        "name": name,
        "image": {"source": "oci-archive:python.tar"},
        "command": [PYTHON, "-c"],
        "args": [TALKER],
        "ports": [{"name": "http", "port": 8080}],
        "probes": {
            "startup": {**probe, "failures": 300},
            "readiness": probe,
            "liveness": {**probe, "period": "1s"},
        },
        "stop": {"grace": "1s"},
    }
    if volume:
        component["volumes"] = [{"name": "state", "path": "/var/state"}]
        env["STATE"] = "/var/state"
    if neighbour:
        env["NEIGHBOUR"] = neighbour
    return {**component, "env": env}


class PodmanFleet(TestFleet):
    """A fleet with one engine for its hosts, and what tests ask of it."""

    def __init__(self, folder: Path, engine: PodmanService, archive: Path) -> None:
        super().__init__(folder)
        self.engine = engine
        self.env["DOCKER_HOST"] = f"unix://{engine.socket}"
        self.releases = folder / "release"
        self.releases.mkdir(parents=True)
        (self.releases / "image.tar").symlink_to(archive)
        (self.releases / "python.tar").symlink_to(archive.with_name("python.tar"))

    def one_host(self) -> Any:
        """Make a site with one host, and return its agent."""
        self.run("apply", "-f", "-", stdin=SITE.format(name="harbour", region="north"))
        return self.add_agent("harbour", "edge")

    def push_reader(self, version: str) -> None:
        """Push a release of the meter reader, its image out of an archive."""
        text = (EXAMPLE / f"release-image-{version}.yaml").read_text(encoding="utf-8")
        text = text.replace("oci:build/image", "oci-archive:image.tar").replace("build/", f"{EXAMPLE}/build/")
        # Given up sooner, the same for all, so that they stay of one family.
        text = text.replace("failures: 60", "failures: 24").replace("failures: 20", "failures: 24")
        self._push(f"meter-reader-image-{version}", text)

    def push_shop(
        self, version: str, *components: dict[str, Any], update: str = "auto", **more: dict[str, Any]
    ) -> None:
        """Push a release of an application of these components."""
        spec = {"version": version, "update": update, "components": components, **more}
        document = {
            "apiVersion": "skerry/v1",
            "kind": "Application",
            "metadata": {"name": "shop"},
            "spec": spec,
        }
        self._push(f"shop-{version}", json.dumps(document))

    def _push(self, name: str, text: str) -> None:
        path = self.releases / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        self.run("release", "push", str(path))

    def bring(self, release: str, *, code: int = 0) -> None:
        """Roll a release out and wait for the end of it."""
        name = release.replace("@", "-").replace(".", "-")
        self.begin(release, name)
        self.run("rollout", "watch", name, code=code)

    def begin(self, release: str, name: str) -> None:
        """Begin to roll a release out."""
        gate = ("--soak", "300ms", "--deadline", "60s")
        self.run("rollout", "start", release, "--sites", "*", "--name", name, *gate)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the engine's running containers of components, by instance."""
        listed: list[dict[str, Any]] = json.loads(self.engine.podman("ps", "--format", "json") or "[]")
        found: dict[str, dict[str, Any]] = {}
        for entry in listed:
            labels: dict[str, str] = entry.get("Labels") or {}
            if "io.skerry.instance" in labels:
                found[labels["io.skerry.instance"]] = entry
        return found

    def only_container(self, component: str) -> str:
        """Return the id of the one running container of a component; empty while there are none or several."""
        found = [entry["Id"] for name, entry in self.containers().items() if name.split(".")[1] == component]
        return str(found[0]) if len(found) == 1 else ""

    def pids(self, container: str) -> tuple[int, int]:
        """Return the numbers of a container's first process and of its conmon."""
        shown = self.engine.podman("inspect", "--format", "{{.State.Pid}} {{.State.ConmonPid}}", container)
        first, conmon = map(int, shown.split())
        return first, conmon

    def addresses(self, container: str) -> list[str]:
        """Return where a container's port is published, as host:port."""
        lines = self.engine.podman("port", container).splitlines()
        return [line.rpartition("-> ")[2] for line in lines]

    def until_says(self, agent: Any, component: str, said: str) -> None:
        """Wait until a component answers so."""
        self.until(
            lambda: ask(agent.endpoint("shop", component)) == said,
            lambda: f"{agent.status()}\n{agent.log.read_text()[-3000:]}\n{self.engine.podman('ps', '--all')}",
        )
