"""Runs the guard until SIGTERM: `guard.pyz --reading TOPIC --limit TOPIC --stop TOPIC --port PORT`.

It listens to three topics and writes one, `TOPIC/set` of `--stop`. `/` on its port says what it knows and wants.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from guard.rule import Known

log = logging.getLogger("guard")


class Guard:
    """Keeps what is known up to date, and gives orders."""

    def __init__(self, topics: Mapping[str, str], client: mqtt.Client, env: Mapping[str, str]) -> None:
        """`topics` are by what they tell: `reading`, `limit` and `stopped`."""
        self.known = Known()
        self._topics = topics
        self._client = client
        self._env = env
        client.on_pre_connect = self._before_connect
        client.on_connect = self._on_connect
        client.on_message = self._on_message

    def _before_connect(self, client: mqtt.Client, _data: object) -> None:
        try:
            password = Path(self._env["SKERRY_BUS_PASSWORD_FILE"]).read_text(encoding="utf-8").strip()
        except OSError as error:
            log.warning("no password for the bus: %s", error)
            return
        client.username_pw_set(self._env["SKERRY_BUS_USER"], password)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        self.known = Known()
        client.subscribe([(topic, 1) for topic in self._topics.values()])

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        which = next(name for name, topic in self._topics.items() if topic == message.topic)
        if which == "reading" and message.retain:
            return  # from before we were there: the counter may show something else by now
        try:
            self.known = self.known.told(which, json.loads(message.payload))
        except (ValueError, RecursionError):
            return
        order = self.known.order
        if which == "reading" and order is not None:
            log.info(
                "reading %s, limit %s: %s", self.known.reading, self.known.limit, "stop" if order else "go"
            )
            client.publish(f"{self._topics['stopped']}/set", json.dumps({"value": order}), qos=1)


def connect(client: mqtt.Client, env: Mapping[str, str]) -> None:
    """Connect to the host's bus, again and again, in a thread of the library's own."""
    address = urlsplit(env["SKERRY_BUS_URL"])
    if address.scheme == "mqtts":
        client.tls_set_context(ssl.create_default_context(cafile=env.get("SKERRY_BUS_CA") or None))
    client.reconnect_delay_set(1, 30)
    client.connect_async(address.hostname or "127.0.0.1", address.port or 1883, keepalive=15)
    client.loop_start()


def serve(guard: Guard, port: int) -> ThreadingHTTPServer:
    """Answer `GET /` with what is known and wanted."""

    class Page(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            known = guard.known
            body = json.dumps({**vars(known), "wanted": known.wanted}).encode() + b"\n"
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request: probes come all the time."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> int:
    """Run until told to stop; the exit code for the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    for name, help_text in (
        ("reading", "topic of what the counter shows"),
        ("limit", "topic of what it may show at most"),
        ("stop", "topic of whether the press stands still"),
    ):
        parser.add_argument(f"--{name}", required=True, metavar="TOPIC", help=help_text)
    parser.add_argument("--port", type=int, required=True, help="port of the page")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    name = "-".join(os.environ.get(f"SKERRY_{part}", "guard") for part in ("HOST_NAME", "APPLICATION"))
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name[:64])
    topics = {"reading": asked.reading, "limit": asked.limit, "stopped": asked.stop}
    server = serve(Guard(topics, client, os.environ), asked.port)
    connect(client, os.environ)
    over.wait()
    client.disconnect()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
