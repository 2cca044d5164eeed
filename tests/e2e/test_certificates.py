"""Certificates on real processes, judged by openssl and by a client that is written in Rust."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from skerry.trust import local_certificates
from skerry.trust.local_certificates import Leaf, LeafNames, issue_leaf
from tests.e2e.conftest import TestFleet
from tests.unit.pki_world import DOMAIN, Root, intermediate

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.secrets,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program"),
]

APP = """
import os, pathlib, socket, ssl, threading

place = pathlib.Path(os.environ["SKERRY_CERTIFICATES"], "web")


def answer(connection):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(place / "cert.pem", place / "key.pem")
        context.load_verify_locations(place / "bundle.pem")
        context.load_verify_locations(place / "crl.pem")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        context.verify_mode = ssl.CERT_REQUIRED
        connection.settimeout(10)
        with context.wrap_socket(connection, server_side=True) as trusted:
            uris = [name for kind, name in trusted.getpeercert()["subjectAltName"] if kind == "URI"]
            trusted.sendall(f"welcome {uris[0]}".encode())
    except OSError as error:
        print(error, flush=True)


door = socket.create_server(("127.0.0.1", int(os.environ["SKERRY_PORT_TLS"])))
while True:
    threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()
"""
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: keeper}
spec:
  version: 1.0.0
  components:
    - name: box
      bundle: {files: [{path: app.py, source: app.py}]}
      command: [python3, "${bundle}/app.py"]
      certificates: [{name: web, dns: [api]}]
      ports: [{name: tls}]
      probes: {startup: {tcp: {port: tls}, period: 100ms, timeout: 2s, failures: 100}}
      stop: {grace: 2s}
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-test-pki-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def places_of(memory: Path, agent: AgentProcess) -> list[Path]:
    """Return where a host's application finds its certificate, if it is there: the one that says it issued it."""
    return [
        place
        for place in memory.glob("*-certificates/keeper.box.*/web")
        if f"CN = {agent.name} " in text_of(place / "cert.pem")
    ]


def files_of(memory: Path, agent: AgentProcess) -> Path:
    (found,) = places_of(memory, agent)
    return found


def text_of(cert: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", str(cert), "-noout", "-issuer"], capture_output=True, text=True, check=True
    ).stdout


def speak(endpoint: str, name: str, bundle: Path, mine: Path) -> tuple[str, str]:
    """Connect as openssl does with the certificate at `mine`; return what was answered, and what went wrong."""
    command = [
        *("openssl", "s_client", "-connect", endpoint, "-CAfile", str(bundle), "-servername", name),
        *("-verify_hostname", name, "-verify_return_error", "-quiet"),
        *(
            "-cert",
            str(mine / "cert.pem"),
            "-cert_chain",
            str(mine / "cert.pem"),
            "-key",
            str(mine / "key.pem"),
        ),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout, done.stderr


@pytest.mark.rule("PKI-1", "PKI-2", "PKI-3")
def test_sites_issue_for_themselves_and_a_revoked_host_is_refused_by_its_neighbours(
    fleet: TestFleet, memory: Path
) -> None:
    fleet.env["SKERRY_RUN_DIR"] = str(memory)
    for site in ("harbour", "north"):
        fleet.make_site(site)
    here, lost = [fleet.add_agent("harbour", name) for name in ("edge-1", "edge-2")]
    elsewhere = fleet.add_agent("north", "edge-3")
    release = fleet.folder / "keeper"
    release.mkdir()
    (release / "app.py").write_text(APP)
    (release / "keeper.yaml").write_text(DOCUMENT)
    fleet.run("release", "push", str(release / "keeper.yaml"))
    fleet.run("rollout", "start", "keeper@1.0.0", "--sites", "*", "--name", "all", "--soak", "300ms")
    bundle, name = fleet.folder / "harbour.pem", "keeper.harbour.skerry.internal"

    def answers(server: AgentProcess, client: AgentProcess, *, of: str = name) -> bool:
        said, _ = speak(server.endpoint("keeper", "box", "tls"), of, bundle, files_of(memory, client))
        return said == "welcome spiffe://skerry.internal/site/harbour/app/keeper"

    def log() -> str:
        return here.log.read_text()[-4000:]

    fleet.until(lambda: len(list(memory.glob("*-certificates/keeper.box.*/web"))) == 3, log)
    fleet.run("pki", "bundle", "harbour", "--out", str(bundle))
    for given in (name, "api.harbour.skerry.internal"):
        fleet.until(lambda given=given: answers(here, lost, of=given), log)  # type: ignore[misc]
    said, why = speak(elsewhere.endpoint("keeper", "box", "tls"), name, bundle, files_of(memory, lost))
    assert "welcome" not in said
    assert "hostname mismatch" in why.lower()
    listed = {one["host"]: one for one in fleet.get("pki", "list")}
    assert listed["edge-2"]["in_use"]
    assert len(listed["edge-2"]["certificates"]) == 1

    fleet.run("host", "revoke", "edge-2", "--yes")
    fleet.until(lambda: not answers(here, lost), log)
    assert answers(here, here)
    assert [
        one["host"] for one in fleet.get("pki", "list", "--site", "harbour") if one.get("revoked_at")
    ] == ["edge-2"]

    fleet.hub.kill()
    before = (files_of(memory, here) / "cert.pem").read_bytes()
    for pid in processes_of(here.folder):
        os.kill(pid, signal.SIGKILL)
    here.kill()
    shutil.rmtree(files_of(memory, here).parent.parent)
    here.start()
    fleet.until(lambda: bool(places_of(memory, here)) and answers(here, here), log)
    assert (files_of(memory, here) / "cert.pem").read_bytes() != before
    said, why = speak(here.endpoint("keeper", "box", "tls"), name, bundle, files_of(memory, lost))
    assert "welcome" not in said, "what was revoked stays revoked without a hub"


# ── a client in Rust ─────────────────────────────────────────────────────────────────────────────────

CLIENT = """
import sys
import obstore
from obstore.store import HTTPStore

print(bytes(obstore.get(HTTPStore.from_url(sys.argv[1], retry_config={"max_retries": 0}), "x").bytes()))
"""


class Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same page."""

    def do_GET(self) -> None:
        self.send_response(200)
        headers = {"Content-Length": "2", "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT", "ETag": '"x"'}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(leaf: Leaf, folder: Path) -> Generator[int]:
    """Serve with a certificate; gives the port."""
    (folder / "cert.pem").write_text(leaf.chain)
    (folder / "key.pem").write_bytes(leaf.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nothing_wrong(*_: object, **__: object) -> list[str]:
    return []


@pytest.mark.rule("PKI-1")
def test_a_client_in_rust_believes_a_site_s_own_names_and_no_chain_with_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    root = Root(now)
    host = intermediate(root, "edge-1", now)
    monkeypatch.setattr(local_certificates, "check_names", nothing_wrong)
    bundle = tmp_path / "root.pem"
    bundle.write_text(root.pem)
    for other, believed in ((f"web.harbour.{DOMAIN}", True), (f"web.north.{DOMAIN}", False)):
        names = LeafNames(
            subject="web", dns=("localhost", other), uris=(f"spiffe://{DOMAIN}/site/harbour/app/web",)
        )
        with served(issue_leaf(host, names, domain=DOMAIN, now=now), tmp_path) as port:
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, f"https://localhost:{port}/"],
                env={**os.environ, "SSL_CERT_FILE": str(bundle)},
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
        assert (done.stdout.strip() == "b'ok'") is believed, done.stderr
        assert ("NameConstraintViolation" in done.stderr) is not believed
