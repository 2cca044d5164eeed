"""Small releases for tests: one component that answers on HTTP, or fails as its model file tells it to."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path

# How every test's application answers: on the port that it was given, silently.
SERVING = """
import http.server, os


class Answering(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text=""):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def serve(handler):
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SKERRY_PORT_HTTP"])), handler).serve_forever()
"""

APP = (
    SERVING
    + """
import pathlib, sys

model = pathlib.Path(os.environ["SKERRY_MODEL_MIND"]) / "mind.txt"
mood = model.read_text().split()[0]
print("mood", mood, "release", os.environ["SKERRY_RELEASE"], flush=True)
if mood == "crashes":
    sys.exit(3)


class Handler(Answering):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        good = mood == "well" or self.path != "/healthz"
        variant = model.read_text().split()[1]
        self.answer(200 if good else 503, f"{os.environ['SKERRY_RELEASE']} {variant} {os.getpid()}")


serve(Handler)
"""
)

DOCUMENTS = """
apiVersion: skerry/v1
kind: Model
metadata: {{name: mind}}
spec:
  version: {version}
  variants:
    - name: large
      format: text
      requires: {{memory: 1GiB}}
      files: [{{path: mind.txt, source: {version}/large.txt}}]
    - name: small
      format: text
      files: [{{path: mind.txt, source: {version}/small.txt}}]
---
apiVersion: skerry/v1
kind: Application
metadata: {{name: talker}}
spec:
  version: {version}
  components:
    - name: mouth
      bundle: {{files: [{{path: app.py, source: app.py}}{extra}]}}
      command: [python3, "${{bundle}}/app.py"]
      env: {{GREETING: "${{site.greeting}}"}}
      models: [{{name: mind, version: {version}}}]
      ports: [{{name: http}}]
      probes:
        startup: {{http: {{port: http, path: /healthz}}, period: 100ms, timeout: 2s, failures: {failures}}}
        readiness: {{http: {{port: http, path: /healthz}}, period: 500ms}}
        liveness: {{http: {{port: http, path: /healthz}}, period: 1s}}
      stop: {{grace: 2s}}
"""


def write_release(
    folder: Path,
    version: str,
    mood: str = "well",
    *,
    ballast: Mapping[str, bytes] | None = None,
    failures: int = 100,
) -> Path:
    """Write a release's documents and files below `folder` and return the document's path."""
    (folder / version).mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(APP)
    for variant in ("large", "small"):
        (folder / version / f"{variant}.txt").write_text(f"{mood} {variant} {version}\n")
    extra = ""
    for name, content in (ballast or {}).items():
        (folder / version / name).write_bytes(content)
        extra += f", {{path: {name}, source: {version}/{name}}}"
    path = folder / f"release-{version}.yaml"
    path.write_text(DOCUMENTS.format(version=version, extra=extra, failures=failures))
    return path


def ask(endpoint: str, path: str = "/", *, timeout_s: float = 5.0) -> str:
    """Return the body of a GET, or an empty text when nobody answers."""
    if not endpoint:
        return ""
    connection = http.client.HTTPConnection(endpoint, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def place(document: Path, placement: str) -> Path:
    """Say in a release's document where in a site it runs; `placement` is a YAML mapping in braces."""
    text = document.read_text()
    document.write_text(text.replace("\n  components:\n", f"\n  placement: {placement}\n  components:\n", 1))
    return document
