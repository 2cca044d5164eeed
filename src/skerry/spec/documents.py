"""The kinds by name, and the checks that types alone cannot state.

`check_document` returns all problems of one document; it is pure and knows nothing of files or lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from zoneinfo import available_timezones

from skerry.kit.quantities import parse_duration
from skerry.spec.application import Application, Placement
from skerry.spec.checks_bindings import check_bindings, check_needs
from skerry.spec.checks_certificates import check_site_networks
from skerry.spec.checks_components import check_components
from skerry.spec.checks_configuration import check_application_config, check_configuration
from skerry.spec.checks_disk import check_site_disk
from skerry.spec.checks_files import check_file, check_files, check_unique
from skerry.spec.checks_images import check_pinned_images
from skerry.spec.checks_ingress import check_ingress
from skerry.spec.checks_link import check_site_link
from skerry.spec.checks_quality import check_reference
from skerry.spec.checks_relay import check_relay
from skerry.spec.checks_requirements import check_preferences, check_requirements
from skerry.spec.checks_rollout import check_rollout_waves
from skerry.spec.checks_topics import check_topics
from skerry.spec.configuration import Configuration
from skerry.spec.gates import check_gates
from skerry.spec.metadata import API_VERSION
from skerry.spec.model import Evaluation, Model
from skerry.spec.policy import Policy, check_policy
from skerry.spec.problems import Problem
from skerry.spec.relay import Relay
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.sink import Sink, check_sink
from skerry.spec.site import Site

AnyDocument = Model | Application | Site | Rollout | Policy | Relay | Configuration | Sink
KINDS: dict[str, type[AnyDocument]] = {
    "Model": Model,
    "Application": Application,
    "Site": Site,
    "Rollout": Rollout,
    "Policy": Policy,
    "Relay": Relay,
    "Configuration": Configuration,
    "Sink": Sink,
}


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
        Policy: check_policy,
        Relay: _check_relay,
        Configuration: check_configuration,
        Sink: check_sink,
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
    problems.extend(check_pinned_images(release))
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
    yield from check_unique("spec.variants", "variant", (v.name for v in model.spec.variants))
    for index, variant in enumerate(model.spec.variants):
        path = f"spec.variants[{index}]"
        yield from check_requirements(f"{path}.requires", variant.requires)
        yield from check_preferences(f"{path}.prefer", variant.prefer)
        yield from check_files(f"{path}.files", variant.files)
    if model.spec.self_test:
        cases = model.spec.self_test.cases
        yield from check_unique("spec.self_test.cases", "case", (case.name for case in cases))
        most = model.spec.self_test.max_latency
        if most is not None and parse_duration(most) <= 0:
            yield Problem("spec.self_test.max_latency", "must be longer than 0")
        for index, case in enumerate(cases):
            yield from check_file(f"spec.self_test.cases[{index}].input", case.input)
            yield from check_file(f"spec.self_test.cases[{index}].expected", case.expected)
    if model.spec.reference:
        yield from check_reference("spec.reference", model.spec.reference)
    if model.spec.evaluation:
        yield from _check_evaluation(model.spec.evaluation, has_self_test=model.spec.self_test is not None)


def _check_evaluation(evaluation: Evaluation, *, has_self_test: bool) -> Iterator[Problem]:
    path = "spec.evaluation"
    if not evaluation.metrics and not has_self_test:
        hint = "write metrics: {accuracy: {worse_by: 0.002}}, or give the model a self_test"
        yield Problem(path, "judges nothing", hint)
    if parse_duration(evaluation.timeout) <= 0:
        yield Problem(f"{path}.timeout", "must be longer than 0")
    for index, argument in enumerate(evaluation.command):
        if "\0" in argument:
            yield Problem(f"{path}.command[{index}]", "contains a NUL character")
    if not evaluation.command[0].strip():
        yield Problem(f"{path}.command[0]", "names no program", "such as python3")


def _check_application(application: Application) -> Iterator[Problem]:
    yield from check_topics(application.spec)
    yield from check_components(application.spec)
    yield from check_application_config(application.spec)
    yield from check_ingress(application.spec)
    yield from check_needs(application.spec)
    yield from _check_placement(application.metadata.name, application.spec.placement)


def _check_placement(application: str, placement: Placement) -> Iterator[Problem]:
    path, default = "spec.placement", Placement()
    if placement.mode != "count" and placement.count != default.count:
        yield Problem(f"{path}.count", f"means nothing with mode: {placement.mode}", "write mode: count")
    if placement.mode == "each":
        for name in ("standby", "takeover", "split"):
            if getattr(placement, name) != getattr(default, name):
                hint = "every host runs it, so none stands by: write mode: one or mode: count"
                yield Problem(f"{path}.{name}", "means nothing with mode: each", hint)
    if parse_duration(placement.takeover) <= 0:
        yield Problem(f"{path}.takeover", "must be longer than 0")
    yield from check_requirements(f"{path}.requires", placement.requires)
    yield from check_preferences(f"{path}.prefer", placement.prefer)
    for name, others in (("near", placement.near), ("apart", placement.apart)):
        yield from check_unique(f"{path}.{name}", "application", others)
        if application in others:
            yield Problem(f"{path}.{name}", f"names {application} itself", "name other applications")
    for both in sorted(set(placement.near) & set(placement.apart)):
        yield Problem(f"{path}.apart", f"{both} cannot be near and apart", "leave out one")


@cache
def _time_zones() -> frozenset[str]:
    # Reads a directory of some 600 files: once per process, not once per site.
    return frozenset(available_timezones())


def _check_zone(name: str) -> Iterator[Problem]:
    if name not in _time_zones():
        yield Problem("spec.time_zone", f"unknown time zone {name!r}", "such as Europe/Zurich")


def _check_relay(relay: Relay) -> Iterator[Problem]:
    yield from _check_zone(relay.spec.time_zone)
    yield from check_relay(relay)


def _check_site(site: Site) -> Iterator[Problem]:
    yield from _check_zone(site.spec.time_zone)
    yield from check_site_link(site.spec)
    yield from check_site_disk(site.spec)
    yield from check_site_networks(site.spec)
    yield from check_bindings(site.spec.bindings)


def _check_rollout(rollout: Rollout) -> Iterator[Problem]:
    if parse_duration(rollout.spec.health.deadline) <= 0:
        yield Problem("spec.health.deadline", "must be longer than 0")
    yield from check_gates("spec.gates", rollout.spec.gates)
    yield from check_rollout_waves(rollout.spec)
