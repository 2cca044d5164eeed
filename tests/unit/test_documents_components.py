"""What an application may ask for: each contradiction told with its path and a remedy, all at once."""

from __future__ import annotations

import pytest
import yaml

from skerry.spec.checks_container import CAPABILITIES
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected, Problem

CONTAINER = """\
kind: Application
metadata: {name: reader}
spec:
  version: 1.0.0
  placement: {mode: each}
  components:
    - name: main
      image: {source: "docker://registry.example/team/app:1"}
      command: [serve, "${model.digits}", "${volume.data}"]
      args: ["--port", "${port.http}", "${device.eye}"]
      container:
        capabilities: [NET_BIND_SERVICE]
        tmpfs: [{path: /tmp, size: 16MiB}]
        shared_memory: 128MiB
      volumes:
        - {name: data, path: /var/lib/app, size: 1GiB}
        - {name: logs, path: /var/log/app}
      devices:
        - {name: eye, use: camera}
        - {name: card, use: nvidia.com/gpu=0}
        - {name: bus, use: /dev/i2c-1, shared: true}
      on_change: {http: {port: http, path: /reload}}
      self_test: {command: [test, "${self_test}", "${model.digits}"]}
      models: [{name: digits, version: 1.0.0, objective: fastest}]
      ports: [{name: http, port: 8080}]
      env: {LOGS: "${volume.logs}"}
      resources: {memory: 512MiB, cpu: "1", requests: {memory: 256MiB, cpu: 500m}}
    - name: other
      image: {source: "engine:localhost/other:1"}
      ports: [{name: http, port: 8080}]
"""
PROCESS = """\
kind: Application
metadata: {name: reader}
spec:
  version: 1.0.0
  components:
    - name: main
      command: [serve, "${volume.data}"]
      bundle: {files: [{path: app, source: app}]}
      volumes: [{name: data}]
      devices: [{name: eye, use: camera}]
      models: [{name: digits, version: 1.0.0}]
      ports: [{name: http}]
"""
MODEL = """\
kind: Model
metadata: {name: digits}
spec:
  version: 1.0.0
  self_test:
    cases:
      - {name: one, input: {path: one.json, source: one.json}, expected: {path: out.json, source: out.json}}
  variants:
    - name: fp16
      format: onnx
      requires: {arch: [x86_64], arch_level: x86-64-v3, runtimes: {onnxruntime: [CUDAExecutionProvider]}}
      prefer: [{when: {accelerators: [nvidia-gpu]}, weight: 2}]
      files: [{path: model.onnx, source: model.onnx}]
"""


def problems_of(text: str) -> dict[str, Problem]:
    with pytest.raises(DocumentRejected) as caught:
        parse_documents(text, file="app.yaml")
    return {problem.path: problem for problem in caught.value.problems}


@pytest.mark.parametrize("text", (CONTAINER, PROCESS, MODEL))
def test_what_makes_sense_is_taken(text: str) -> None:
    assert len(parse_documents(text)) == 1


C = "spec.components[0]"
SEEDED: tuple[tuple[str, str, str, str, str, str], ...] = (
    # What a component is.
    (
        PROCESS,
        'command: [serve, "${volume.data}"]',
        "stop: {signal: TERM}",
        f"{C}.command",
        "is missing",
        "image",
    ),
    (
        CONTAINER,
        "command: [serve,",
        "bundle: {files: [{path: a, source: a}]}\n      command: [serve,",
        C,
        "bundle and an image",
        "one of them",
    ),
    # Only containers have it.
    (PROCESS, "ports:", "args: [x]\n      ports:", f"{C}.args", "no arguments beside", "command"),
    (
        PROCESS,
        "ports:",
        "container: {read_only: false}\n      ports:",
        f"{C}.container.read_only",
        "means nothing",
        "image",
    ),
    (
        PROCESS,
        "ports:",
        "container: {network: host}\n      ports:",
        f"{C}.container.network",
        "means nothing",
        "image",
    ),
    (
        PROCESS,
        "ports:",
        "container: {tmpfs: [{path: /tmp}]}\n      ports:",
        f"{C}.container.tmpfs",
        "means nothing",
        "image",
    ),
    (
        PROCESS,
        "{name: data}",
        "{name: data, path: /data}",
        f"{C}.volumes[0].path",
        "where the host keeps it",
        "${volume.data}",
    ),
    (
        PROCESS,
        "use: camera",
        "use: nvidia.com/gpu=0",
        f"{C}.devices[0].use",
        "Container Device Interface",
        "image",
    ),
    # Confinement.
    (
        CONTAINER,
        "[NET_BIND_SERVICE]",
        "[NET_BIND_SERVISE]",
        f"{C}.container.capabilities[0]",
        "unknown capability",
        "did you mean NET_BIND_SERVICE?",
    ),
    (
        CONTAINER,
        "[NET_BIND_SERVICE]",
        "[ALL]",
        f"{C}.container.capabilities[0]",
        "unknown capability ALL",
        "SYS_ADMIN",
    ),
    (CONTAINER, "[NET_BIND_SERVICE]", "[KILL, KILL]", f"{C}.container.capabilities", "2 times", ""),
    (
        CONTAINER,
        "[NET_BIND_SERVICE]",
        "[net_admin]",
        f"{C}.container.capabilities[0]",
        "a capability such as",
        "",
    ),
    (
        CONTAINER,
        "shared_memory: 128MiB",
        "network: none",
        f"{C}.container.network",
        "cannot be reached",
        "leave out",
    ),
    (
        CONTAINER,
        "path: /var/log/app",
        "path: /var/lib/app",
        f"{C}.volumes[1].path",
        "the place of two",
        "volumes[0]",
    ),
    (
        CONTAINER,
        "path: /var/log/app",
        "path: /var/lib/app/logs",
        f"{C}.volumes[1].path",
        "lies in another volume",
        "",
    ),
    (
        CONTAINER,
        "path: /var/log/app",
        "path: /var/lib/../log",
        f"{C}.volumes[1].path",
        "not a plain path",
        "",
    ),
    (CONTAINER, "path: /var/log/app", "path: /var/log/", f"{C}.volumes[1].path", "not a plain path", ""),
    (CONTAINER, "path: /var/log/app", "path: /", f"{C}.volumes[1].path", "hide the whole image", ""),
    (CONTAINER, ", path: /var/log/app", "", f"{C}.volumes[1].path", "is missing", "container finds"),
    (CONTAINER, "path: /var/log/app", "path: var", f"{C}.volumes[1].path", "begins with /", ""),
    (CONTAINER, "path: /tmp", "path: /var/lib/app", f"{C}.container.tmpfs[0].path", "the place of two", ""),
    (CONTAINER, "name: logs", "name: data", f"{C}.volumes", "volume data is there 2 times", ""),
    (CONTAINER, "name: card", "name: eye", f"{C}.devices", "device eye is there 2 times", ""),
    (CONTAINER, "use: camera", "use: camara", f"{C}.devices[0].use", "unknown class", "did you mean camera?"),
    (CONTAINER, "use: camera", "use: ../x", f"{C}.devices[0].use", "a class such as camera", ""),
    # Models.
    (
        CONTAINER,
        "{http: {port: http, path: /reload}}",
        "{timeout: 5s}",
        f"{C}.on_change",
        "0 ways",
        "exactly one",
    ),
    (
        CONTAINER,
        "{http: {port: http, path: /reload}}",
        "{signal: HUP, http: {port: http}}",
        f"{C}.on_change",
        "2 ways",
        "exactly one",
    ),
    (
        CONTAINER,
        "{http: {port: http, path: /reload}}",
        "{http: {port: web}}",
        f"{C}.on_change.http.port",
        "no port named web",
        "ports here: http",
    ),
    (
        PROCESS,
        "models: [{name: digits, version: 1.0.0}]",
        "on_change: {signal: HUP}",
        f"{C}.on_change",
        "mounts no model",
        "",
    ),
    (
        PROCESS,
        "models: [{name: digits, version: 1.0.0}]",
        "self_test: {command: [x]}",
        f"{C}.self_test",
        "mounts no model",
        "",
    ),
    # References.
    (CONTAINER, "${volume.data}", "${volume.date}", f"{C}.command[2]", "unknown reference", "${volume.data}"),
    (CONTAINER, "${device.eye}", "${device.ear}", f"{C}.args[2]", "unknown reference", "${device.eye}"),
    (
        CONTAINER,
        '"${self_test}"',
        '"${port.http}"',
        f"{C}.self_test.command[1]",
        "unknown reference ${port.http}",
        "${self_test}",
    ),
    (CONTAINER, "${device.eye}", "${self_test}", f"{C}.args[2]", "unknown reference ${self_test}", ""),
    (CONTAINER, "${volume.logs}", "${bundle}", f"{C}.env.LOGS", "unknown reference ${bundle}", ""),
    # Limits.
    (CONTAINER, "memory: 512MiB", "memory: 0B", f"{C}.resources.memory", "nothing can run in 0B", "6MiB"),
    (
        PROCESS,
        "ports:",
        "resources: {memory: 0MiB}\n      ports:",
        f"{C}.resources.memory",
        "nothing can run",
        "",
    ),
    (CONTAINER, 'cpu: "1"', 'cpu: "0"', f"{C}.resources.cpu", "more than 0", ""),
    (
        CONTAINER,
        "memory: 256MiB",
        "memory: 1GiB",
        f"{C}.resources.requests.memory",
        "more than the limit of 512MiB",
        "",
    ),
    (CONTAINER, "cpu: 500m", "cpu: 1500m", f"{C}.resources.requests.cpu", "more than the limit of 1", ""),
    (
        CONTAINER,
        "shared_memory: 128MiB",
        "shared_memory: 1GiB",
        f"{C}.container.shared_memory",
        "more than the component's",
        "",
    ),
    (CONTAINER, 'cpu: "1"', "pids: 0", f"{C}.resources.pids", "1 or more", ""),
    (CONTAINER, "size: 16MiB", "size: 0B", f"{C}.container.tmpfs[0].size", "more than 0", ""),
    (CONTAINER, "size: 1GiB", "size: 0GiB", f"{C}.volumes[0].size", "more than 0", ""),
    # Updates and placement.
    (
        PROCESS,
        "ports: [{name: http}]",
        "ports: [{name: http, port: 80}]\n  update: blue-green",
        f"{C}.ports[0].port",
        "at a time",
        "port: 0",
    ),
    (
        CONTAINER,
        "{mode: each}",
        "{mode: one, count: 2}",
        "spec.placement.count",
        "means nothing with mode: one",
        "mode: count",
    ),
    (
        CONTAINER,
        "{mode: each}",
        "{mode: each, standby: 2}",
        "spec.placement.standby",
        "means nothing with mode: each",
        "",
    ),
    (CONTAINER, "{mode: each}", "{mode: each, takeover: 9s}", "spec.placement.takeover", "means nothing", ""),
    (CONTAINER, "{mode: each}", "{mode: each, split: majority}", "spec.placement.split", "means nothing", ""),
    (CONTAINER, "{mode: each}", "{mode: one, takeover: 0s}", "spec.placement.takeover", "longer than 0", ""),
    (CONTAINER, "{mode: each}", "{near: [reader]}", "spec.placement.near", "names reader itself", ""),
    (CONTAINER, "{mode: each}", "{apart: [reader]}", "spec.placement.apart", "names reader itself", ""),
    (CONTAINER, "{mode: each}", "{near: [a], apart: [a]}", "spec.placement.apart", "near and apart", ""),
    (
        CONTAINER,
        "{mode: each}",
        "{requires: {arch: [arm64]}}",
        "spec.placement.requires.arch[0]",
        "no host",
        "aarch64",
    ),
    (
        CONTAINER,
        "{mode: each}",
        "{prefer: [{when: {arch_level: v3}}]}",
        "spec.placement.prefer[0].when.arch_level",
        "unknown level",
        "x86-64-v3",
    ),
    # Models' own.
    (
        MODEL,
        "onnxruntime:",
        "onnx:",
        "spec.variants[0].requires.runtimes.onnx",
        "unknown runtime",
        "onnxruntime",
    ),
    (
        MODEL,
        "x86-64-v3",
        "x86-64-v9",
        "spec.variants[0].requires.arch_level",
        "unknown level",
        "did you mean x86-64-v",
    ),
    (MODEL, "[x86_64]", "[amd64]", "spec.variants[0].requires.arch[0]", "calls itself amd64", "x86_64"),
    (
        MODEL,
        "nvidia-gpu",
        "nvidia",
        "spec.variants[0].prefer[0].when.accelerators[0]",
        "nvidia-gpu",
        "did you mean",
    ),
    (
        MODEL,
        "input: {path: one.json, source: one.json}",
        "input: {path: one.json}",
        "spec.self_test.cases[0].input",
        "needs a source",
        "source: FILE",
    ),
    (
        MODEL,
        "  self_test:\n",
        "  self_test:\n    max_latency: 0s\n",
        "spec.self_test.max_latency",
        "must be longer than 0",
        "",
    ),
)


@pytest.mark.parametrize(("text", "good", "bad", "path", "message", "hint"), SEEDED)
def test_each_contradiction_is_told_with_its_path_and_remedy(
    text: str, good: str, bad: str, path: str, message: str, hint: str
) -> None:
    assert good in text
    told = problems_of(text.replace(good, bad, 1))
    assert path in told, told
    assert message in told[path].message
    assert hint in told[path].hint
    assert told[path].line
    assert "^" not in told[path].message, "a regular expression is no explanation"


def test_a_golden_case_that_is_there_twice_is_told() -> None:
    document = yaml.safe_load(MODEL)
    document["spec"]["self_test"]["cases"] *= 2
    assert (
        "case one is there 2 times" in problems_of(yaml.safe_dump(document))["spec.self_test.cases"].message
    )


def test_all_contradictions_are_told_at_once() -> None:
    # Those that the types find are told before the others, and some take away what others speak of.
    chosen: dict[str, tuple[str, str]] = {}
    for text, good, bad, path, *_ in SEEDED:
        if text is CONTAINER and path.startswith(f"{C}.") and "pids" not in bad and "use:" not in good:
            chosen.setdefault(good, (bad, path))
    text, expected = CONTAINER, set[str]()
    for good, (bad, path) in chosen.items():
        if good in text and path not in expected:
            text = text.replace(good, bad, 1)
            expected.add(path)
    told = set(problems_of(text))
    assert len(expected) > 10
    assert expected <= told, expected - told


def test_containers_may_use_the_same_port_and_processes_may_not() -> None:
    assert parse_documents(CONTAINER)
    on_host = CONTAINER.replace("shared_memory: 128MiB", "network: host").replace(
        'engine:localhost/other:1"}', 'engine:localhost/other:1"}\n      container: {network: host}'
    )
    assert "port 8080 is used more than once" in problems_of(on_host)["spec.components"].message


def test_containers_of_their_own_network_may_be_updated_side_by_side() -> None:
    side_by_side = CONTAINER.replace("  components:", "  update: blue-green\n  components:")
    assert parse_documents(side_by_side)
    on_host = side_by_side.replace("shared_memory: 128MiB", "network: host")
    assert "port 8080 cannot be used" in problems_of(on_host)[f"{C}.ports[0].port"].message


def test_a_program_of_the_host_needs_neither_bundle_nor_image() -> None:
    text = "kind: Application\nmetadata: {name: a}\nspec: {version: 1.0.0, components: [{name: a, command: [x]}]}"
    assert parse_documents(text)


def test_all_capabilities_of_linux_are_known() -> None:
    # capabilities(7) of Linux 6 counts them from 0, CHOWN, to 40, CHECKPOINT_RESTORE.
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 41
