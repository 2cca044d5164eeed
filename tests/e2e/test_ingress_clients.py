"""Who may use a route, judged by curl and openssl: by token, by identity, and not once revoked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.adapters.envoy_proxy import find_program, has_ipv6
from skerry.testing.fleet import AgentProcess, free_port
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.envoy,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program"),
]

NAME, TOKEN = "keeper.site.internal", "a-token-of-many-letters"
KEEPER = "spiffe://skerry.internal/site/harbour/app/keeper"
APP = (
    SERVING
    + """
class Handler(Answering):
    def do_GET(self):
        self.answer(200, os.environ["SKERRY_RELEASE"] + " " + self.headers.get("x-forwarded-client-cert", "nobody"))


serve(Handler)
"""
)
AUTHS = {
    "/": {},
    "/id": {"mtls": {"ids": [KEEPER]}},
    "/site": {"mtls": {"sites": ["harbour"]}},
    "/other": {"mtls": {"ids": [f"{KEEPER}s"]}},
    "/token": {"token": "gate"},
}
ROUTES = [
    {
        "name": f"r{place}",
        "component": "box",
        "port": "http",
        "path": path,
        "auth": auth,
        "redirect": path == "/",
    }
    for place, (path, auth) in enumerate(AUTHS.items())
]
DOCUMENT = f"""
apiVersion: skerry/v1
kind: Application
metadata: {{name: keeper}}
spec:
  version: "1"
  components:
    - name: box
      bundle: {{files: [{{path: app.py, source: app.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      certificates: [{{name: web}}]
      ports: [{{name: http}}]
      probes: {{readiness: {{http: {{port: http, path: /}}, period: 300ms}}}}
      stop: {{grace: 2s}}
  ingress: {json.dumps(ROUTES)}
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-test-clients-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Site:
    """Two hosts with the same routes, each with a certificate of its own for their application."""

    def __init__(self, fleet: TestFleet, memory: Path) -> None:
        self.fleet, self.memory, self.bundle = fleet, memory, fleet.folder / "harbour.pem"
        fleet.env["SKERRY_RUN_DIR"] = str(memory)
        fleet.make_site("harbour")
        self.ports: dict[str, tuple[int, int]] = {}
        self.agents = [self._add(name) for name in ("edge-1", "edge-2")]
        folder = fleet.folder / "keeper"
        folder.mkdir()
        (folder / "app.py").write_text(APP)
        (folder / "keeper.yaml").write_text(DOCUMENT)
        fleet.run("secret", "set", "gate", stdin=TOKEN)
        fleet.run("release", "push", str(folder / "keeper.yaml"))
        fleet.until(lambda: all("ingress" in one["facts"] for one in fleet.get("get", "hosts")))
        fleet.run("rollout", "start", "keeper@1", "--sites", "*", "--name", "all", "--soak", "300ms")
        fleet.until(lambda: len(list(memory.glob("*-certificates/keeper.box.*/web/cert.pem"))) == 2, self.log)
        fleet.run("pki", "bundle", "harbour", "--out", str(self.bundle))

    def _add(self, name: str) -> AgentProcess:
        agent = self.fleet.add_agent("harbour", name)
        agent.stop()
        self.ports[name] = http, https = free_port(), free_port()
        agent.arguments += ("--ingress-http", str(http), "--ingress-https", str(https))
        return agent.start()

    def log(self) -> str:
        return "\n".join(agent.log.read_text()[-2000:] for agent in self.agents)

    def client(self, host: str) -> tuple[str, ...]:
        """Return curl's options for the certificate of the application at a host."""
        for place in self.memory.glob("*-certificates/keeper.box.*/web"):
            issuer = _openssl("x509", "-in", str(place / "cert.pem"), "-noout", "-issuer")
            if f"CN = {host} " in issuer:
                return ("--cert", str(place / "cert.pem"), "--key", str(place / "key.pem"))
        raise AssertionError(f"no certificate of {host}")

    def ask(
        self, path: str, *more: str, scheme: str = "https", address: str = "127.0.0.1"
    ) -> tuple[str, str]:
        """Ask the first host; return the status, 000 where there was no answer, and the body."""
        http, https = self.ports["edge-1"]
        known = [option for port in (http, https) for option in ("--resolve", f"{NAME}:{port}:{address}")]
        url = f"{scheme}://{NAME}:{https if scheme == 'https' else http}{path}"
        done = subprocess.run(
            ["curl", "-s", "-m", "20", "--cacert", str(self.bundle), *known, *more, "-w", "\n%{http_code}", url],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return status, body


def _openssl(*arguments: str) -> str:
    done = subprocess.run(
        ["openssl", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.rule("INGRESS-2")
@pytest.mark.rule("PKI-3")
def test_only_who_a_route_names_gets_through_and_nobody_whose_host_was_revoked(
    fleet: TestFleet, memory: Path
) -> None:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    site = Site(fleet, memory)
    fleet.until(lambda: site.ask("/") == ("200", "keeper@1 nobody"), site.log)
    bearer = ("-H", f"authorization: Bearer {TOKEN}")
    fleet.until(lambda: site.ask("/token", *bearer)[0] == "200", site.log)
    other = site.client("edge-2")

    # Nobody, and who shows what does not help.
    assert {path: site.ask(path)[0] for path in AUTHS} == {
        "/": "200", "/id": "403", "/site": "403", "/other": "403", "/token": "401",
    }  # fmt: skip
    assert site.ask("/token", "-H", f"authorization: Bearer {TOKEN}x")[0] == "401"
    assert site.ask("/id", *bearer)[0] == "403"
    # The application of another host of the site, by its certificate: the application hears who it was.
    shown = {path: site.ask(path, *other) for path in AUTHS}
    assert {path: status for path, (status, _) in shown.items()} == {
        "/": "200", "/id": "200", "/site": "200", "/other": "403", "/token": "401",
    }  # fmt: skip
    assert f"URI={KEEPER}" in shown["/id"][1]

    # Without TLS there is the way to it, on either kind of address.
    status, body = site.ask("/x?y=1", "-L", scheme="http")
    assert (status, body) == ("200", "keeper@1 nobody")
    assert site.ask("/token", *bearer, scheme="http")[0] == "308", "the route of / leads all below it"
    if has_ipv6():
        assert site.ask("/", address="[::1]")[0] == "200"
    said = _openssl(
        *("s_client", "-connect", f"127.0.0.1:{site.ports['edge-1'][1]}", "-CAfile", str(site.bundle)),
        *("-servername", NAME, "-verify_hostname", NAME, "-verify_return_error", "-brief"),
    )
    assert "Verification: OK" in said

    # What a revoked host issued opens nothing any more; what its neighbour issued does.
    fleet.run("host", "revoke", "edge-2", "--yes")
    fleet.until(lambda: {site.ask(path, *other)[0] for path in AUTHS} == {"000"}, site.log)
    assert site.ask("/id", *site.client("edge-1"))[0] == "200"
    assert site.ask("/")[0] == "200"
