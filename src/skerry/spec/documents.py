"""The kinds by name, and the checks that types alone cannot state.

`check_document` returns all problems of one document; it is pure and knows nothing of files or lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from zoneinfo import available_timezones

from skerry.kit.quantities import parse_duration
from skerry.spec.application import Application, Component, Probe
from skerry.spec.metadata import API_VERSION
from skerry.spec.model import FileSpec, Model
from skerry.spec.problems import Problem
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site

AnyDocument = Model | Application | Site | Rollout
KINDS: dict[str, type[AnyDocument]] = {
    "Model": Model,
    "Application": Application,
    "Site": Site,
    "Rollout": Rollout,
}

_reference_re = re.compile(r"\$\{([^}]*)\}")


def kind_of(document: AnyDocument) -> str:
    """Return the kind's name."""
    return type(document).__name__


def check_document(document: AnyDocument) -> list[Problem]:
    """Return all problems of a document that decoded."""
    problems = list(_check_metadata(document))
    checks: dict[type[AnyDocument], Callable[..., Iterable[Problem]]] = {
        Model: _check_model,
        Application: _check_application,
        Site: _check_site,
        Rollout: _check_rollout,
    }
    problems.extend(checks[type(document)](document))
    return problems


def check_release(release: Release) -> list[Problem]:
    """Return all problems of a release: its documents, pins and model references."""
    problems = check_document(release.application)
    for model in release.models:
        problems.extend(check_document(model))
    for component_index, component in enumerate(release.application.spec.components):
        for mount_index, mount in enumerate(component.models):
            if release.model(mount.name, mount.version) is None:
                known = ", ".join(f"{m.metadata.name} {m.spec.version}" for m in release.models) or "none"
                path = f"spec.components[{component_index}].models[{mount_index}]"
                message = f"model {mount.name} {mount.version} is not part of the release"
                problems.append(Problem(path, message, f"models here: {known}"))
    problems.extend(
        Problem("files", f"{file.path}: not pinned by digest", "push with skerry release push")
        for file in release.files()
        if not file.digest
    )
    return problems


def _check_metadata(document: AnyDocument) -> Iterator[Problem]:
    if document.api_version != API_VERSION:
        yield Problem(
            "apiVersion", f"unknown version {document.api_version!r}", f"write apiVersion: {API_VERSION}"
        )
    label_re = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$")
    for key, value in document.metadata.labels.items():
        if not label_re.match(key):
            yield Problem(f"metadata.labels.{key}", "not a label's name", "letters, digits and . _ / -")
        if value and not label_re.match(value):
            yield Problem(
                f"metadata.labels.{key}", f"not a label's value: {value!r}", "letters, digits and . _ / -"
            )


def _check_model(model: Model) -> Iterator[Problem]:
    yield from _check_unique("spec.variants", "variant", (v.name for v in model.spec.variants))
    for index, variant in enumerate(model.spec.variants):
        yield from _check_files(f"spec.variants[{index}].files", variant.files)


def _check_application(application: Application) -> Iterator[Problem]:
    components = application.spec.components
    yield from _check_unique("spec.components", "component", (c.name for c in components))
    fixed = [(c.name, p.name, p.port) for c in components for p in c.ports if p.port]
    for number, count in Counter(port for _, _, port in fixed).items():
        if count > 1:
            users = ", ".join(f"{c}.{p}" for c, p, port in fixed if port == number)
            yield Problem("spec.components", f"port {number} is used more than once: {users}")
    for index, component in enumerate(components):
        yield from _check_component(f"spec.components[{index}]", component)


def _check_component(path: str, component: Component) -> Iterator[Problem]:
    ports = [port.name for port in component.ports]
    yield from _check_unique(f"{path}.ports", "port", ports)
    yield from _check_unique(f"{path}.models", "model", (mount.name for mount in component.models))
    if component.bundle:
        yield from _check_files(f"{path}.bundle.files", component.bundle.files)
    for name in ("startup", "readiness", "liveness"):
        probe: Probe | None = getattr(component.probes, name)
        if probe:
            yield from _check_probe(f"{path}.probes.{name}", probe, ports)
    known = {"data", *(f"port.{p}" for p in ports), *(f"model.{m.name}" for m in component.models)}
    if component.bundle:
        known.add("bundle")
    texts = [(f"{path}.command[{i}]", text) for i, text in enumerate(component.command)]
    texts += [(f"{path}.env.{key}", text) for key, text in component.env.items()]
    for where, text in texts:
        if "\0" in text:
            yield Problem(where, "contains a NUL character")
        for reference in _reference_re.findall(text):
            if reference not in known and not re.match(r"^site\.[a-z][a-z0-9_]*$", reference):
                choices = ", ".join(f"${{{k}}}" for k in sorted(known)) + ", ${site.VARIABLE}"
                yield Problem(where, f"unknown reference ${{{reference}}}", f"known here: {choices}")


def _check_probe(path: str, probe: Probe, ports: list[str]) -> Iterator[Problem]:
    kinds = [kind for kind in (probe.http, probe.tcp, probe.exec) if kind is not None]
    if len(kinds) != 1:
        yield Problem(path, f"{len(kinds)} kinds of probe", "write exactly one of http, tcp, exec")
    for kind in ("http", "tcp"):
        port = getattr(getattr(probe, kind), "port", None)
        if port is not None and port not in ports:
            hint = f"ports here: {', '.join(ports)}" if ports else "the component has no ports"
            yield Problem(f"{path}.{kind}.port", f"no port named {port}", hint)
    for field in ("period", "timeout"):
        if parse_duration(getattr(probe, field)) <= 0:
            yield Problem(f"{path}.{field}", "must be longer than 0")


def _check_files(path: str, files: tuple[FileSpec, ...]) -> Iterator[Problem]:
    yield from _check_unique(path, "file", (file.path for file in files))
    paths = {file.path for file in files}
    for index, file in enumerate(files):
        if bool(file.source) == bool(file.digest):
            yield Problem(
                f"{path}[{index}]", "needs a source, or a digest with size_bytes", "write source: FILE"
            )
        parents = file.path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in paths:
                yield Problem(
                    f"{path}[{index}].path", f"{'/'.join(parents[:depth])} is a file and a directory"
                )


def _check_unique(path: str, what: str, names: Iterable[str]) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(path, f"{what} {name} is there {count} times")


@cache
def _time_zones() -> frozenset[str]:
    # Reads a directory of some 600 files: once per process, not once per site.
    return frozenset(available_timezones())


def _check_site(site: Site) -> Iterator[Problem]:
    if site.spec.time_zone not in _time_zones():
        yield Problem("spec.time_zone", f"unknown time zone {site.spec.time_zone!r}", "such as Europe/Zurich")


def _check_rollout(rollout: Rollout) -> Iterator[Problem]:
    if parse_duration(rollout.spec.health.deadline) <= 0:
        yield Problem("spec.health.deadline", "must be longer than 0")
