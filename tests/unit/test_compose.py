"""Compose files become Applications: what maps is mapped, the rest is told by name, and nothing makes it fall over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skerry.cli.init import init
from skerry.cli.invocation import Invocation
from skerry.cli.main import run
from skerry.client.compose.convert import Conversion, convert_compose
from skerry.client.compose.draft import Options
from skerry.client.compose.keys import KEYS, render_tables
from skerry.client.compose.measures import convert_size, format_span, parse_span
from skerry.client.compose.program import DEFAULT_CAPABILITIES
from skerry.client.compose.variables import Variables, parse_env_file
from skerry.kit.quantities import parse_duration, parse_size
from skerry.spec.application import Application
from skerry.spec.checks_container import CAPABILITIES
from skerry.spec.parsing import parse_documents

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "compose.md"

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


# ── whole files ──────────────────────────────────────────────────────────────────────────────────────


def test_a_web_application_with_a_data_store_is_converted() -> None:
    made = converted(SHOP, version="2.4.1")
    assert made.document["metadata"] == {"name": "shop"}
    web, redis = made.document["spec"]["components"]
    assert web == {
        "name": "web",
        "image": {"source": "engine:ghcr.io/acme/web:2.4.1"},
        "args": ["gunicorn", "--bind", "0.0.0.0:8000", "shop.wsgi:make(debug=False)"],
        "container": {"user": "1000:1000", "tmpfs": [{"path": "/tmp", "size": "32MiB"}]},
        "env": {"REDIS_URL": "redis://redis:6379/0", "WORKERS": "2", "DEBUG": "no"},
        "ports": [{"name": "tcp-8000", "port": 8000}, {"name": "metrics", "port": 9100}],
    }
    ping = {"exec": {"command": ["redis-cli", "ping"]}}
    assert redis == {
        "name": "redis",
        "image": {"source": "engine:redis:7.4-alpine"},
        "args": ["redis-server", "--appendonly", "yes"],
        "container": {"read_only": False},
        "volumes": [{"name": "redis-data", "path": "/data"}],
        "ports": [{"name": "redis", "port": 6379}],
        "probes": {
            "startup": {**ping, "period": "5s", "timeout": "3s", "failures": 11},
            "readiness": {**ping, "period": "10s", "timeout": "3s", "failures": 5},
        },
        "resources": {"memory": "256MiB", "cpu": "0.5"},
    }


def test_a_camera_application_with_anchors_and_variables_is_converted() -> None:
    made = converted(CAMERA, site="CAMERA_URL", name="watch", image_source="docker")
    broker, watcher = made.document["spec"]["components"]
    assert broker["image"] == {"source": "docker://docker.io/library/eclipse-mosquitto:2.0.20"}
    assert broker["stop"] == {"grace": "1m30s"}
    assert watcher["image"] == {"source": "docker://docker.io/acme/watcher:1.2"}
    assert watcher["command"] == ["python3", "-u"]
    assert watcher["args"] == ["watch.py", "--stream", "${site.camera_url}"]
    assert watcher["env"] == {"TZ": "Europe/Zurich", "MQTT_HOST": "broker"}
    assert watcher["devices"] == [{"name": "video0", "use": "/dev/video0"}]
    assert watcher["container"] == {
        "working_directory": "/app",
        "read_only": False,
        "shared_memory": "128MiB",
        "init": True,
    }
    assert watcher["stop"] == {"signal": "INT"}


def test_all_problems_of_a_file_are_told_at_once_with_line_and_hint() -> None:
    made = convert(DETECTOR)
    found = {(problem.line, problem.path) for problem in made.problems}
    assert found == {
        (4, "services.frigate.privileged"),
        (10, "services.frigate.devices[2]"),
        (12, "services.frigate.volumes[0]"),
        (13, "services.frigate.volumes[1]"),
        (25, "services.frigate.build"),
        (26, "services.frigate.frobnicate"),
    }
    hints = {problem.path.rpartition(".")[2]: problem.hint for problem in made.problems}
    assert "docker compose build" in hints["build"]
    assert "cap_add" in hints["privileged"]
    assert "TZ" in hints["volumes[0]"]
    assert {problem.file for problem in made.problems} == {"compose.yaml"}


def test_a_detector_without_what_is_refused_keeps_its_accelerators() -> None:
    gone = ("privileged", "/dev/dri", "/etc/localtime", "./config", "build:", "frobnicate")
    made = converted(
        "\n".join(line for line in DETECTOR.splitlines() if not any(word in line for word in gone))
    )
    (frigate,) = made.document["spec"]["components"]
    assert frigate["container"]["network"] == "host"
    assert frigate["container"]["tmpfs"] == [{"path": "/tmp/cache", "size": "1000000000B"}]
    assert [device["use"] for device in frigate["devices"]] == ["gpu", "/dev/bus/usb", "/dev/apex_0"]
    assert any("host_network" in note.text for note in made.notes)


def test_the_same_file_gives_the_same_text_and_each_note_is_a_comment_in_it() -> None:
    made = converted(SHOP)
    assert converted(SHOP).text == made.text
    comments = [line.strip() for line in made.text.splitlines() if line.lstrip().startswith("#")]
    for note in made.notes:
        assert f"# {note.path}: {note.text}" in comments
    assert any("container.capabilities" in comment for comment in comments)


def test_a_note_cannot_break_out_of_its_comment() -> None:
    text = service('depends_on: ["b\\nspec: {}\\u2028kind: Site\\u0085x: y"]')
    made = converted(text)
    assert "\nspec: {}\u2028" not in made.text and len(list(yaml.safe_load_all(made.text))) == 1


# ── single keys ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    (
        ("command: run --all", "args", ["run", "--all"]),
        ("entrypoint: /run.sh 'a b'", "command", ["/run.sh", "a b"]),
        ("entrypoint: []\ncommand: [sh, -c, exit]", "command", ["sh", "-c", "exit"]),
        ("environment: [A=1, B=x=y, 'C=']", "env", {"A": "1", "B": "x=y", "C": ""}),
        ("environment: {A: 0x10, B: 1.10, C: null}", "env", {"A": "0x10", "B": "1.10", "C": "from outside"}),
        ("environment: {A: $$HOME, B: '${C}'}", "env", {"A": "$HOME", "B": "from outside"}),
        ("ports: [22:22]", "ports", [{"name": "tcp-22", "port": 22}]),
        ("ports: ['[::1]:9000:80', 8080, '81-82']", "ports",
         [{"name": "http", "port": 80}, {"name": "tcp-8080", "port": 8080}, {"name": "tcp-81", "port": 81},
          {"name": "tcp-82", "port": 82}]),
        ("ports: ['53:53/udp']", "ports", None),
        ("expose: [80, '80/tcp']", "ports", [{"name": "http", "port": 80}]),
        ("volumes: [/var/lib/app]", "volumes", [{"name": "var-lib-app", "path": "/var/lib/app"}]),
        ("devices: ['nvidia.com/gpu=all']", "devices", [{"name": "all", "use": "nvidia.com/gpu=all"}]),
        ("devices: ['/dev/ttyUSB0:rw']", "devices", [{"name": "ttyusb0", "use": "/dev/ttyUSB0"}]),
        ("gpus: all", "devices", [{"name": "gpu", "use": "nvidia.com/gpu=all"}]),
        ("gpus: [{device_ids: ['0', '2']}]", "devices",
         [{"name": "gpu-0", "use": "nvidia.com/gpu=0"}, {"name": "gpu-2", "use": "nvidia.com/gpu=2"}]),
        ("platform: linux/arm64", "image",
         {"variants": [{"name": "linux-arm64", "source": "engine:acme/app:1", "platform": "linux/arm64"}]}),
        ("pids_limit: 50", "resources", {"pids": 50}),
        ("mem_limit: 1.5gb\nmem_reservation: 1gb", "resources", {"memory": "1536MiB", "requests": {"memory": "1GiB"}}),
        ("healthcheck: {disable: true}", "probes", None),
        ("healthcheck: {test: [NONE]}", "probes", None),
        ("healthcheck: {test: 'wget -q $$URL'}", "probes",
         {"readiness": {"exec": {"command": ["/bin/sh", "-c", "wget -q $URL"]}, "period": "30s", "timeout": "30s",
                        "failures": 3}}),
        ("stop_signal: 2", "stop", {"signal": "INT"}),
        ("profiles: []\nprivileged: false\nscale: 1\ndeploy: {replicas: 1}", "args", None),
        ("network_mode: none", "container", {"read_only": False, "network": "none"}),
    ),
)  # fmt: skip
def test_a_key_becomes_a_field(body: str, field: str, expected: object) -> None:
    assert one(body, variables={"C": "from outside"}).get(field) == expected


@pytest.mark.parametrize(
    ("body", "top", "path", "words"),
    (
        ("build: .", "", "services.app.build", "docker compose build"),
        ("secrets: [a]", "", "services.app.secrets", "Secret"),
        ("profiles: [debug]", "", "services.app.profiles", "remove"),
        ("extends: {service: b}", "", "services.app.extends", "write"),
        ("privileged: true", "", "services.app.privileged", "cap_add"),
        ("deploy: {replicas: 3}", "", "services.app.deploy.replicas", "once on each host"),
        ("deploy: {placement: {}, endpoint_mode: vip}", "", "services.app.deploy.endpoint_mode", "remove"),
        ("healthcheck: {tset: x}", "", "services.app.healthcheck.tset", "did you mean test"),
        ("volumes: ['./a:/a']", "", "services.app.volumes[0]", "named volume"),
        ("volumes: ['/var/run/docker.sock:/x']", "", "services.app.volumes[0]", "socket"),
        ("volumes: ['data:/a']", "", "services.app.volumes[0]", "not declared"),
        ("volumes: ['data:/a']", "volumes: {data: {external: true}}", "volumes.data.external", "agent"),
        ("volumes: [{type: npipe, target: /a}]", "", "services.app.volumes[0]", "npipe"),
        ("devices: ['/dev/a:/dev/b']", "", "services.app.devices[0]", "same path"),
        ("network_mode: 'service:b'", "", "services.app.network_mode", "host, none"),
        ("networks: [a, b]", "networks: {a: , b: }", "services.app", "second network"),
        ("networks: {a: {aliases: [c]}}", "networks: {a: }", "services.app.networks.a.aliases", "name the service"),
        ("networks: [a]", "networks: {a: {external: true}}", "networks.a.external", "one application"),
        ("networks: [a]", "networks: {a: {driver: macvlan}}", "networks.a.driver", "leave it out"),
        ("depends_on: {b: {condition: service_completed_successfully}}", "", "services.app.depends_on.b", "end first"),
        ("cap_add: [ALL]", "", "services.app.cap_add[0]", "name the capabilities"),
        ("cap_add: [NET_ADMIM]", "", "services.app.cap_add[0]", "unknown capability"),
        ("security_opt: ['seccomp:unconfined']", "", "services.app.security_opt[0]", "no-new-privileges"),
        ("stop_signal: SIGKILL", "", "services.app.stop_signal", "TERM"),
        ("stop_grace_period: soon", "", "services.app.stop_grace_period", "1m30s"),
        ("mem_limit: lots", "", "services.app.mem_limit", "512m"),
        ("cpus: '1'\ndeploy: {resources: {limits: {cpus: '2'}}}", "", "services.app.deploy.resources.limits.cpus",
         "once"),
        ("ports: ['1-70000']", "", "services.app.ports[0]", "at most"),
        ("environment: {A: $NOPE}", "", "services.app.environment.A", "NOPE"),
        ("environment: [NOPE]", "", "services.app.environment[0]", "--site-variable NOPE"),
        ("environment: {A: '${NOPE:?ask the site}'}", "", "services.app.environment.A", "ask the site"),
        ("environment: {A: '$$${NOPE:-{site}}'}", "", "services.app.environment.A", "references"),
        ("environment: {A: '10 $'}", "", "services.app.environment.A", "$$"),
        ("environment: {'1A': x}", "", "spec.components[0].env.1A", ""),
        ("command: \"'open\"", "", "services.app.command", "as a list"),
        ("entrypoint: ''", "", "services.app.entrypoint", "what is to be run"),
        ("command: []", "", "services.app.command", "whole entrypoint"),
        ("working_dir: relative", "", "spec.components[0].container.working_directory", ""),
        ("read_only: perhaps", "", "services.app.read_only", "true or false"),
        ("x: 1", "", "services.app.x", "not known"),
        ("links: ['db:data']", "", "services.app.links[0]", "db"),
        ("", "include: [b.yaml]", "include", "write"),
        ("", "servces: {}", "servces", "did you mean services"),
    ),
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(body: str, top: str, path: str, words: str) -> None:
    found = [line for line in problems(body, top) if f" {path}: " in line]
    assert found and words in found[0] and not found[0].startswith("0 ")


def test_extensions_and_what_means_nothing_to_a_site_are_passed_over() -> None:
    made = converted(service("x-team: {a: 1}\ndevelop: {watch: []}", "version: '3'\nx-top: ['${UNSET}']"))
    assert made.notes == ()


def test_two_services_of_one_name_or_one_volume_are_refused() -> None:
    one_volume = "{image: x, volumes: ['v:/v']}"
    text = f"services:\n  a_b: {one_volume}\n  a-b: {{image: x}}\n  c: {one_volume}\nvolumes: {{v: }}"
    found = {problem.path: problem.message for problem in convert(text).problems}
    assert found == {
        "services.a-b": "becomes the component a-b, as a_b does",
        "services.c.volumes[0]": "the volume v is that of a-b already",
    }


def test_a_device_that_two_services_name_is_shared() -> None:
    body = "{image: x:1, devices: ['/dev/video0']}"
    made = converted(f"services:\n  a: {body}\n  b: {body}\n")
    for component in made.document["spec"]["components"]:
        assert component["devices"] == [{"name": "video0", "use": "/dev/video0", "shared": True}]


def test_capabilities_are_dropped_unless_they_are_asked_for() -> None:
    body = "cap_add: [NET_ADMIN]\ncap_drop: [CAP_CHOWN]"
    assert one(body)["container"]["capabilities"] == ["NET_ADMIN"]
    kept = one(body, keep_default_capabilities=True)["container"]["capabilities"]
    assert kept == sorted({*DEFAULT_CAPABILITIES, "NET_ADMIN"} - {"CHOWN"})
    none = one("cap_drop: [ALL]", keep_default_capabilities=True)["container"]
    assert "capabilities" not in none
    assert len(DEFAULT_CAPABILITIES) == 14 and set(DEFAULT_CAPABILITIES) <= set(CAPABILITIES)


def test_a_secret_in_the_environment_is_noted_without_its_value() -> None:
    made = converted(service("environment: {DB_PASSWORD: hunter2, MONKEY: x}"))
    notes = [note.text for note in made.notes]
    assert len([text for text in notes if "secret" in text]) == 1
    assert not any("hunter2" in text for text in notes)


def test_a_site_variable_stands_only_where_sites_are_asked() -> None:
    assert one("environment: ['URL=rtsp://${CAM:-x}/1']", site="CAM")["env"] == {
        "URL": "rtsp://${site.cam}/1"
    }
    assert one("environment: [CAM]", site="CAM")["env"] == {"CAM": "${site.cam}"}
    (found,) = problems("user: ${CAM}", site="CAM")
    assert "site variable CAM cannot stand here" in found


# ── variables, sizes, durations ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "filled"),
    (
        ("$A-${A}", "1-1"),
        ("${E:-d}${E-d}${U-d}${U:-d}", "ddd"),
        ("${A:+y}${E:+y}${E+y}${U+y}", "yy"),
        ("${U:-${V:-${A}}}", "1"),
        ("$$A", "$A"),
        ("${A:?x}", "1"),
        ("${U:-a}b}", "ab}"),
    ),
)
def test_variables_are_filled_as_compose_does(text: str, filled: str) -> None:
    made = one(f"user: {json.dumps('u' + text)}", variables={"A": "1", "E": ""})
    assert made["container"]["user"] == "u" + filled


def test_an_environment_file_is_read_with_quotes_comments_and_variables() -> None:
    text = "# c\nexport A=1 # one\nB='$A'\nC=\"a\\n$A \\$A\"\nD=${A}x\n\nE=\nF\nG: 7\n"
    assert parse_env_file(text) == {"A": "1", "B": "$A", "C": "a\n1 $A", "D": "1x", "E": "", "G": "7"}
    with pytest.raises(ValueError, match="line 2") as caught:
        parse_env_file("A=1\nhunter2 is no variable")
    assert "hunter2" not in str(caught.value)


def test_variables_cannot_grow_without_end() -> None:
    lines = ["A0=0123456789"] + [f"A{n}=" + f"$A{n - 1}" * 10 for n in range(1, 12)]
    with pytest.raises(ValueError, match="characters"):
        parse_env_file("\n".join(lines))
    body = "environment:\n" + "".join(f"  V{n}: $BIG\n" for n in range(80))
    assert "too much text" in problems(body, variables={"BIG": "x" * 60_000})[0]


@pytest.mark.parametrize(
    ("text", "size"),
    (
        ("512m", "512MiB"),
        ("1gb", "1GiB"),
        ("1.5GB", "1536MiB"),
        ("100", "100B"),
        ("2048k", "2MiB"),
        ("64MiB", "64MiB"),
    ),
)
def test_sizes_are_powers_of_1024(text: str, size: str) -> None:
    assert convert_size(text) == size


@given(st.floats(min_value=0.001, max_value=1e7))
def test_durations_survive_to_the_millisecond(seconds: float) -> None:
    assert parse_duration(format_span(seconds)) == pytest.approx(seconds, abs=0.00051)
    assert parse_span("1h2m3s") == 3723


@given(st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,3})? ?[kmgtKMGT]?[iI]?[bB]?", fullmatch=True))
def test_every_size_that_is_read_is_one_of_ours(text: str) -> None:
    try:
        size = convert_size(text)
    except ValueError:
        assert float(re.sub("[^0-9.]", "", text)) < 1
    else:
        assert parse_size(size) > 0


# ── arbitrary input ──────────────────────────────────────────────────────────────────────────────────

_words = st.one_of(
    st.sampled_from(["", "a", "a:b", "/a:/b", "data:/x", "8080:80", "0-1", "host", "${A", "${A:-${B}}", "$$", "1m",
                     "-1", "nan", "ALL", "/dev/a:/dev/a:r", "CMD", "x" * 5000, "a=b", "\u2028", "é", "[", "no"]),
    st.text(max_size=12),
)  # fmt: skip
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_words, inner, max_size=4)),
    max_leaves=8,
)


def _shaped(table: str) -> st.SearchStrategy[object]:
    """Return mappings with the keys of a table, the inner ones shaped by their own tables, or anything at all."""
    keys: dict[str, st.SearchStrategy[object]] = {}
    for key in KEYS[table]:
        inner = f"{table}.{key}" if table else key
        shapes: list[st.SearchStrategy[object]] = [_values]
        for suffix in ("", "[]", ".*"):
            if inner + suffix in KEYS:
                shaped = st.deferred(lambda name=inner + suffix: _shaped(name))  # type: ignore[misc]
                wrapped = {
                    "": shaped,
                    "[]": st.lists(shaped, max_size=2),
                    ".*": st.dictionaries(_words, shaped, max_size=2),
                }
                shapes.append(wrapped[suffix])
        keys[key] = st.one_of(shapes)
    return st.fixed_dictionaries({}, optional=keys)


@settings(deadline=None, max_examples=300)
@given(_shaped(""), st.booleans())
def test_arbitrary_compose_values_give_a_document_or_problems(value: object, keep: bool) -> None:
    text = json.dumps(value)
    made = convert(text, {"A": "${B}"}, site="B", keep_default_capabilities=keep)
    if made.problems:
        assert made.document == {} and made.text == ""
    else:
        (parsed,) = parse_documents(made.text)
        assert parsed.raw == made.document


@given(st.text(alphabet="{}[]:,-&*<!|>\n \t\"'#abc$1", max_size=60))
@example("services: &a\n  b: *a")
@example("services: {a: {image: x, image: y}}")
@example("--- 1\n--- 2")
@example("services: {? [a] : b}")
def test_arbitrary_text_gives_a_document_or_problems(text: str) -> None:
    made = convert(text)
    assert bool(made.problems) != bool(made.document)


def test_bombs_of_aliases_depth_and_size_are_refused() -> None:
    aliases = "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9))
    for text in (f"x0: &x0 [a]\n{aliases}", "[" * 500 + "]" * 500, "a: " + "x" * (5 << 20)):
        (problem,) = convert(text).problems
        assert problem.hint


# ── command and reference ────────────────────────────────────────────────────────────────────────────


def call(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(init, list(arguments), input=stdin, obj=Invocation())
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_writes_what_it_converted_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(SHOP)
    (tmp_path / ".env").write_text("UNUSED=1\n")
    target = tmp_path / "release.yaml"
    arguments = ["init", "--from-compose", str(tmp_path / "compose.yaml"), "--to", str(target)]
    assert run([*arguments, "--dry-run"]) == 0
    assert not target.exists()
    assert run([*arguments, "--version", "2.0.0"]) == 0
    first = target.read_text()
    assert "version: 2.0.0" in first
    assert run(arguments) != 0
    assert target.read_text() == first
    assert run([*arguments, "--force"]) == 0
    assert "version: 0.1.0" in target.read_text()


def test_the_command_reads_variables_beside_the_file_and_of_the_shell_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(service("user: ${WHO}"))
    monkeypatch.setenv("WHO", "shell")
    assert run(["init", "--from-compose", str(file)]) == 2
    assert "user: shell" in call("--from-compose", str(file), "--use-environment")[1]
    (tmp_path / ".env").write_text("WHO=beside\n")
    assert "user: beside" in call("--from-compose", str(file))[1]
    (tmp_path / "other").write_text("WHO=other\n")
    assert "user: other" in call("--from-compose", str(file), "--env-file", str(tmp_path / "other"))[1]


def test_json_holds_document_notes_and_problems() -> None:
    code, shown = call("--from-compose", "-", "-o", "json", stdin=SHOP)
    told = json.loads(shown)
    assert code == 0 and told["problems"] == [] and told["document"]["kind"] == "Application"
    assert {"path", "text", "component", "line"} == set(told["notes"][0])
    code, shown = call("--from-compose", "-", "-o", "json", stdin=DETECTOR)
    told = json.loads(shown)
    assert code == 2 and told["document"] == {} and len(told["problems"]) == 6


def test_the_reference_shows_the_table_that_the_converter_uses() -> None:
    assert REFERENCE.read_text(encoding="utf-8").endswith(render_tables())
