"""Compose files become Applications: what maps is mapped, and the rest is told by name."""

from __future__ import annotations

import pytest
import yaml

from skerry.client.compose.program import DEFAULT_CAPABILITIES
from skerry.spec.checks_container import CAPABILITIES
from tests.unit.compose_files import CAMERA, DETECTOR, SHOP, convert, converted, one, problems, service

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
