"""Three Compose files as people write them, and what converting such a file gives."""

from __future__ import annotations

from typing import Any

from skerry.client.compose.convert import Conversion, convert_compose
from skerry.client.compose.draft import Options
from skerry.client.compose.variables import Variables
from skerry.spec.application import Application
from skerry.spec.parsing import parse_documents

SHOP = """\
name: Shop
services:
  web:
    image: ghcr.io/acme/web:2.4.1
    command: gunicorn --bind 0.0.0.0:8000 'shop.wsgi:make(debug=False)'
    environment:
      REDIS_URL: redis://redis:6379/0
      WORKERS: 2
      DEBUG: no
    ports:
      - "8080:8000"
      - target: 9100
        name: metrics
        published: "9100"
    depends_on:
      redis: {condition: service_healthy}
    read_only: true
    tmpfs: /tmp:size=32m
    user: "1000:1000"
    security_opt: ["no-new-privileges:true"]
    cap_drop: [ALL]
    restart: unless-stopped
    networks: [back]
  redis:
    image: redis:7.4-alpine
    command: ["redis-server", "--appendonly", "yes"]
    expose: ["6379"]
    volumes:
      - redis_data:/data
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 10s
      timeout: 3s
      retries: 5
      start_period: 30s
    mem_limit: 256m
    cpus: .5
    networks: {back: null}
networks:
  back: {driver: bridge}
volumes:
  redis_data: {}
"""

CAMERA = """\
version: "3.8"
x-common: &common
  environment: &environment
    TZ: Europe/Zurich
    MQTT_HOST: broker
services:
  broker:
    image: eclipse-mosquitto:2.0.20
    ports: ["1883:1883"]
    volumes: ["mosquitto:/mosquitto/data"]
    stop_grace_period: 1m30s
  watcher:
    <<: *common
    image: acme/watcher:${WATCHER_TAG:-1.2}
    entrypoint: ["python3", "-u"]
    command: ["watch.py", "--stream", "${CAMERA_URL}"]
    devices:
      - /dev/video0:/dev/video0
    depends_on: [broker]
    shm_size: 128mb
    init: true
    stop_signal: SIGINT
    working_dir: /app
volumes: {mosquitto: null}
"""

DETECTOR = """\
services:
  frigate:
    image: ghcr.io/blakeblackshear/frigate:0.14.1
    privileged: true
    network_mode: host
    shm_size: "256mb"
    devices:
      - /dev/bus/usb:/dev/bus/usb
      - /dev/apex_0:/dev/apex_0
      - /dev/dri/renderD128:/dev/dri/card0
    volumes:
      - /etc/localtime:/etc/localtime:ro
      - ./config:/config
      - type: tmpfs
        target: /tmp/cache
        tmpfs:
          size: 1000000000
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
    build: .
    frobnicate: 3
"""


def convert(
    text: str, variables: dict[str, str] | None = None, *, site: str = "", **given: Any
) -> Conversion:
    known = Variables(variables or {}, frozenset(site.split()))
    return convert_compose(text, known, Options(**given), file="compose.yaml")


def converted(
    text: str, variables: dict[str, str] | None = None, *, site: str = "", **given: Any
) -> Conversion:
    made = convert(text, variables, site=site, **given)
    assert made.problems == ()
    (parsed,) = parse_documents(made.text)
    assert isinstance(parsed.document, Application)
    assert parsed.raw == made.document
    return made


def one(body: str, top: str = "", **given: Any) -> dict[str, Any]:
    """Return the component of a service with an image and these lines."""
    component: dict[str, Any] = converted(service(body, top), **given).document["spec"]["components"][0]
    return component


def service(body: str, top: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"services:\n  app:\n    image: acme/app:1\n{lines}{top}"


def problems(body: str, top: str = "", **given: Any) -> list[str]:
    made = convert(service(body, top), **given)
    assert made.document == {} and made.text == ""
    return [f"{problem.line} {problem.path}: {problem.message} ({problem.hint})" for problem in made.problems]
