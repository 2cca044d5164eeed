"""Checks of an application's components: what they run, mount, listen on, and how they are asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from skerry.kit.quantities import parse_duration
from skerry.spec.application import ApplicationSpec, Component, Probe
from skerry.spec.binding import BindingNeed
from skerry.spec.checks_bindings import binding_references
from skerry.spec.checks_certificates import check_certificates
from skerry.spec.checks_container import check_container, check_devices, check_limits, check_process
from skerry.spec.checks_files import check_files, check_unique
from skerry.spec.checks_images import check_image
from skerry.spec.checks_metrics import check_metrics
from skerry.spec.checks_secrets import check_secrets
from skerry.spec.problems import Problem

_reference_re = re.compile(r"\$\{([^}]*)\}")


def check_components(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with the components, each for itself and side by side."""
    components = application.components
    yield from check_unique("spec.components", "component", (c.name for c in components))
    fixed = [(c.name, p.name, p.port) for c in components if _shares_ports(c) for p in c.ports if p.port]
    for number, count in Counter(port for _, _, port in fixed).items():
        if count > 1:
            users = ", ".join(f"{c}.{p}" for c, p, port in fixed if port == number)
            yield Problem("spec.components", f"port {number} is used more than once: {users}")
    for index, component in enumerate(components):
        path = f"spec.components[{index}]"
        yield from _check_component(path, component)
        yield from _check_texts(path, component, application.needs)
        if application.update in ("blue-green", "shadow") and _shares_ports(component):
            for place, port in enumerate(component.ports):
                if port.port:
                    message = f"port {port.port} cannot be used by the old release and the new one at a time"
                    hint = "write port: 0, or update: recreate"
                    yield Problem(f"{path}.ports[{place}].port", message, hint)


def _shares_ports(component: Component) -> bool:
    """Tell whether a component's ports are the host's own, and not those of its container."""
    return component.image is None or component.container.network == "host"


def _check_component(path: str, component: Component) -> Iterator[Problem]:
    ports = [port.name for port in component.ports]
    models = [mount.name for mount in component.models]
    yield from check_unique(f"{path}.ports", "port", ports)
    yield from check_unique(f"{path}.models", "model", models)
    yield from check_unique(f"{path}.volumes", "volume", (volume.name for volume in component.volumes))
    yield from check_unique(f"{path}.devices", "device", (device.name for device in component.devices))
    if component.bundle and component.image:
        yield Problem(path, "has a bundle and an image", "write one of them")
    if component.bundle:
        yield from check_files(f"{path}.bundle.files", component.bundle.files)
    if component.image:
        numbers = [str(port.port) for port in component.ports if port.port]
        yield from check_unique(f"{path}.ports", "port", numbers)
        yield from check_image(f"{path}.image", component.image, tuple(models))
        yield from check_container(path, component)
    else:
        if not component.command:
            hint = "write the program and its arguments, or give the component an image"
            yield Problem(f"{path}.command", "is missing", hint)
        yield from check_process(path, component)
    yield from check_devices(path, component)
    yield from check_limits(path, component)
    for name in ("startup", "readiness", "liveness"):
        probe: Probe | None = getattr(component.probes, name)
        if probe:
            yield from _check_probe(f"{path}.probes.{name}", probe, ports)
    if component.metrics:
        yield from _check_port(f"{path}.metrics.port", component.metrics.port, ports)
        yield from check_metrics(f"{path}.metrics", component.metrics)
    yield from _check_models(path, component, ports)
    yield from check_secrets(path, component)
    yield from check_certificates(path, component)


def _check_models(path: str, component: Component, ports: Sequence[str]) -> Iterator[Problem]:
    """Check what only a component with models can have."""
    change, test = component.on_change, component.self_test
    for name, there in (("on_change", change), ("self_test", test)):
        if there and not component.models:
            yield Problem(f"{path}.{name}", "the component mounts no model", "leave it out, or mount a model")
        if there and parse_duration(there.timeout) <= 0:
            yield Problem(f"{path}.{name}.timeout", "must be longer than 0")
    if change:
        if (change.signal is None) == (change.http is None):
            count = 0 if change.signal is None else 2
            yield Problem(f"{path}.on_change", f"{count} ways to tell", "write exactly one of signal, http")
        if change.http:
            yield from _check_port(f"{path}.on_change.http.port", change.http.port, ports)


def _check_probe(path: str, probe: Probe, ports: Sequence[str]) -> Iterator[Problem]:
    kinds = [kind for kind in (probe.http, probe.tcp, probe.exec) if kind is not None]
    if len(kinds) != 1:
        yield Problem(path, f"{len(kinds)} kinds of probe", "write exactly one of http, tcp, exec")
    for name, kind in (("http", probe.http), ("tcp", probe.tcp)):
        if kind is not None:
            yield from _check_port(f"{path}.{name}.port", kind.port, ports)
    for field in ("period", "timeout"):
        if parse_duration(getattr(probe, field)) <= 0:
            yield Problem(f"{path}.{field}", "must be longer than 0")


def _check_port(path: str, port: str, ports: Sequence[str]) -> Iterator[Problem]:
    if port not in ports:
        hint = f"ports here: {', '.join(ports)}" if ports else "the component has no ports"
        yield Problem(path, f"no port named {port}", hint)


def _check_texts(path: str, component: Component, needs: Sequence[BindingNeed]) -> Iterator[Problem]:
    """Check every `${...}` of a component against what is known where it stands."""
    known = {"data", *(f"model.{mount.name}" for mount in component.models)}
    known |= {f"volume.{volume.name}" for volume in component.volumes}
    known |= {f"device.{device.name}" for device in component.devices}
    known |= {"bundle"} if component.bundle else set()
    known |= {"config"} if component.config and component.config.files else set()
    known |= {"secrets"} if any(use.path for use in component.secrets) else set()
    known |= {"certificates"} if component.certificates else set()
    # A self-test runs before the component has its ports.
    testing = known | {"self_test"}
    known |= {f"port.{port.name}" for port in component.ports}
    known |= set(binding_references(needs, component.name))
    texts = [(f"{path}.command[{i}]", text, known) for i, text in enumerate(component.command)]
    texts += [(f"{path}.args[{i}]", text, known) for i, text in enumerate(component.args)]
    texts += [(f"{path}.env.{key}", text, known) for key, text in component.env.items()]
    if component.self_test:
        command = enumerate(component.self_test.command)
        texts += [(f"{path}.self_test.command[{i}]", text, testing) for i, text in command]
    for where, text, names in texts:
        if "\0" in text:
            yield Problem(where, "contains a NUL character")
        for reference in _reference_re.findall(text):
            if reference not in names and not re.match(r"^site\.[a-z][a-z0-9_]*$", reference):
                choices = ", ".join(f"${{{k}}}" for k in sorted(names)) + ", ${site.VARIABLE}"
                yield Problem(where, f"unknown reference ${{{reference}}}", f"known here: {choices}")
