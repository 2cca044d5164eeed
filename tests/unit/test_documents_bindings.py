"""Bindings as people write them: what is wrong is said with its place, and what may be referred to is known."""

from __future__ import annotations

import pytest

from skerry.spec.application import Application
from skerry.spec.binding import BINDING_TYPES, BindingSpec, fields_of, values_of
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected
from skerry.spec.site import Site

OFFERED = """
- {name: eye, labels: {line: a}, camera: {url: "rtsp://10.1.0.7/stream"}, username: viewer, secrets: {password: eye-pw}}
- {name: usb-eye, host: press-2, camera: {device: /dev/video0}}
- {name: bus, mqtt: {url: "mqtts://plant:8883", topics: {alarms: 'plant/alarms/#'}}}
- name: press
  opcua:
    endpoint: "opc.tcp://plc:4840/"
    nodes: {speed: {node: "ns=2;s=Speed"}, stop: {node: i=85, type: boolean, writable: true}}
- name: oven
  modbus:
    host: 10.1.0.9
    unit: 3
    registers:
      heat: {kind: input, address: 7, type: int16, scale: 0.1}
      door: {kind: coil, address: 1, type: bool, writable: true}
- {name: drive, host: press-1, modbus: {serial: /dev/ttyUSB0}}
- {name: mes, http: {url: "https://mes.plant/api"}, secrets: {token: mes-token}}
- {name: scale, host: press-1, serial: {path: /dev/serial/by-id/scale}}
- {name: stick, host: press-1, usb: {path: /dev/bus/usb/001/004}}
- {name: lamp, host: press-1, gpio: {path: /dev/gpiochip0}}
"""


def site(bindings: str) -> tuple[BindingSpec, ...]:
    indented = bindings.strip().replace("\n", "\n    ")
    text = f"apiVersion: skerry/v1\nkind: Site\nmetadata: {{name: harbour}}\nspec:\n  bindings:\n    {indented}\n"
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Site)
    return parsed.document.spec.bindings


def application(needs: str, component: str = "ports: [{name: http}]", command: str = "run") -> Application:
    text = (
        "apiVersion: skerry/v1\nkind: Application\nmetadata: {name: reader}\nspec:\n  version: '1'\n"
        f"  needs: {needs}\n  components:\n    - name: main\n      command: ['{command}']\n      {component}\n"
        "      bundle: {files: [{path: run, source: run}]}\n"
    )
    (parsed,) = parse_documents(text)
    assert isinstance(parsed.document, Application)
    return parsed.document


def wrong(made: object, *given: str) -> list[str]:
    with pytest.raises(DocumentRejected) as caught:
        made(*given)  # type: ignore[operator]
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_a_site_offers_bindings_of_every_type() -> None:
    found = site(OFFERED)
    assert {one.type for one in found} == set(BINDING_TYPES)
    assert [one.device for one in found if one.host] == [
        "/dev/video0",
        "/dev/ttyUSB0",
        "/dev/serial/by-id/scale",
        "/dev/bus/usb/001/004",
        "/dev/gpiochip0",
    ]
    for one in found:
        assert set(values_of(one)) == set(fields_of(one.type))
    assert values_of(found[0]) == {
        "binding": "eye",
        "type": "camera",
        "username": "viewer",
        "url": "rtsp://10.1.0.7/stream",
        "device": "",
    }
    assert values_of(found[4])["unit"] == "3"


@pytest.mark.parametrize(
    ("binding", "problem"),
    (
        ("- {name: eye}", "spec.bindings[0]: is of no type"),
        (
            "- {name: eye, http: {url: 'http://a'}, mqtt: {url: 'mqtt://b'}}",
            "spec.bindings[0]: is of mqtt and http",
        ),
        ("- {name: eye, camera: {}}", "spec.bindings[0].camera: 0 addresses"),
        (
            "- {name: eye, camera: {device: /dev/video0}}",
            "spec.bindings[0].host: a device is attached to a host",
        ),
        (
            "- {name: eye, serial: {path: /dev/ttyS0}}",
            "spec.bindings[0].host: a device is attached to a host",
        ),
        (
            "- {name: eye, host: a, usb: {path: /dev/bus/usb/001/002}, secrets: {password: pw}}",
            "spec.bindings[0]: a device asks for no name and no secret",
        ),
        (
            "- {name: eye, camera: {url: 'rtsp://viewer:geheim@10.0.0.7/'}}",
            "spec.bindings[0].camera.url: names who gets in, or with what: addresses are shown to many",
        ),
        (
            "- {name: eye, http: {url: 'http://[::1/'}}",
            "spec.bindings[0].http.url: not an address: Invalid IPv6 URL",
        ),
        ("- {name: eye, modbus: {}}", "spec.bindings[0].modbus: 0 addresses"),
        (
            "- {name: m, modbus: {host: a, registers: {x: {kind: coil, address: 1}}}}",
            "spec.bindings[0].modbus.registers.x.type: a coil is no uint16",
        ),
        (
            "- {name: m, modbus: {host: a, registers: {x: {kind: input, address: 1, writable: true}}}}",
            "spec.bindings[0].modbus.registers.x.writable: a input can only be read",
        ),
        (
            "- {name: m, modbus: {host: a, registers: {x: {kind: input, address: 1, scale: 0}}}}",
            "spec.bindings[0].modbus.registers.x.scale: must not be 0",
        ),
        (
            "- {name: eye, labels: {'a b': c}, http: {url: 'http://a'}}",
            "spec.bindings[0].labels.a b: not a label's name",
        ),
    ),
)
def test_what_is_wrong_with_a_binding_is_said_with_its_place(binding: str, problem: str) -> None:
    assert problem in wrong(site, binding)


def test_all_problems_of_bindings_are_told_at_once() -> None:
    found = wrong(site, "- {name: a}\n- {name: a, camera: {}}\n- {name: b, modbus: {}}")
    assert len(found) == 4
    assert any("binding" in line and "a" in line for line in found)


@pytest.mark.parametrize(
    ("needs", "problem"),
    (
        (
            "[{name: a, type: camera}, {name: a, type: http}]",
            "spec.needs",
        ),
        (
            "[{name: a, type: camera, components: [other]}]",
            "spec.needs[0].components: no component named other",
        ),
        (
            "[{name: a, type: camera, on_change: {signal: HUP, file: true}}]",
            "spec.needs[0].on_change: 2 ways to tell",
        ),
        (
            "[{name: a, type: camera, on_change: {http: {port: admin}}}]",
            "spec.needs[0].on_change.http.port: no port named admin in main",
        ),
        (
            "[{name: a, type: camera, on_change: {signal: HUP, timeout: 0s}}]",
            "spec.needs[0].on_change.timeout: must be longer than 0",
        ),
        ("[{name: a, type: camera, labels: {'-': x}}]", "spec.needs[0].labels.-: not a label's name"),
        ("[{name: a, type: kamera}]", "spec.needs[0].type"),
    ),
)
def test_what_is_wrong_with_a_need_is_said_with_its_place(needs: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in wrong(application, needs))


def test_a_component_refers_to_the_fields_of_the_bindings_it_is_told_of() -> None:
    assert (
        application("[{name: eye, type: camera}]", command="${binding.eye.url}").spec.needs[0].name == "eye"
    )
    (problem,) = wrong(application, "[{name: eye, type: camera}]", "ports: []", "${binding.eye.endpoint}")
    assert problem == "spec.components[0].command[0]: unknown reference ${binding.eye.endpoint}"
    assert wrong(application, "[]", "ports: []", "${binding.eye.url}")


def test_the_directory_of_the_bindings_secrets_is_theirs() -> None:
    secrets = "secrets: [{name: pw, path: bindings/eye/password}]"
    (problem,) = wrong(application, "[{name: eye, type: camera}]", secrets)
    assert problem == "spec.components[0].secrets[0].path: bindings is for the secrets of bindings"
    assert application("[]", secrets).spec.components[0].secrets
