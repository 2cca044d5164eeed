"""From the text of a Compose file to an Application, with everything that was noted and all problems at once.

Format: the Compose specification (compose-spec), whose keys stand in `skerry.client.compose.keys`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.client.compose.draft import Draft, Options
from skerry.client.compose.measures import convert_name
from skerry.client.compose.nodes import Node, Note, Reading
from skerry.client.compose.program import (
    read_commands,
    read_confinement,
    read_end,
    read_environment,
    read_health,
    read_image,
)
from skerry.client.compose.surroundings import (
    read_dependencies,
    read_devices,
    read_expose,
    read_gpus,
    read_limits,
    read_links,
    read_network,
    read_ports,
    read_tmpfs,
    read_volumes,
)
from skerry.client.compose.variables import Variables
from skerry.client.compose.writing import write_application
from skerry.spec.metadata import API_VERSION
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.yaml_tree import read_trees

DEFAULT_VERSION = "0.1.0"
MAX_PROBLEMS = 200


class Conversion(msgspec.Struct, frozen=True):
    """What became of a Compose file: the document and its text, both empty where there are problems."""

    document: dict[str, Any]
    text: str
    notes: tuple[Note, ...]
    problems: tuple[Problem, ...]


def convert_compose(text: str, variables: Variables, options: Options, *, file: str) -> Conversion:
    """Return the Application that a Compose file describes, or every reason why it is none.

    Nothing in the text makes it raise.
    """
    reading = Reading(file, variables)
    try:
        trees = read_trees(text, file=file)
    except DocumentRejected as error:
        return Conversion({}, "", (), error.problems)
    if len(trees) != 1:
        hint = "a Compose file is one document" if trees else "it begins with services:"
        return Conversion({}, "", (), (Problem("", f"{len(trees)} documents in it", hint, file),))
    reading.problems += trees[0].problems
    top = Node(trees[0].value, trees[0].place, (), reading)
    drafts, document = _application(top, options)
    written = ""
    if not reading.problems:
        written = write_application(document, reading.notes, file=file)
        reading.problems += _own_problems(written, drafts, file)
    if reading.problems:
        problems = sorted(reading.problems, key=lambda problem: problem.line)[:MAX_PROBLEMS]
        return Conversion({}, "", tuple(reading.notes), tuple(problems))
    return Conversion(document, written, tuple(reading.notes), ())


def _own_problems(text: str, drafts: Sequence[Draft], file: str) -> list[Problem]:
    """Return what our own check says of the Application, at the lines of the services that it came from."""
    try:
        parse_documents(text)
    except DocumentRejected as error:
        found: list[Problem] = []
        for problem in error.problems:
            line = next(
                (
                    draft.service.place.line
                    for index, draft in enumerate(drafts)
                    if problem.path.startswith(f"spec.components[{index}]")
                ),
                0,
            )
            found.append(msgspec.structs.replace(problem, file=file, line=line))
        return found
    return []


def _application(top: Node, options: Options) -> tuple[list[Draft], dict[str, Any]]:
    keys = top.mapped("")
    drafts = _drafts(keys["services"], options) if "services" in keys else []
    if not drafts:
        top.problem("has no services", "a Compose file begins with services:")
    _check_volumes(keys.get("volumes"), drafts)
    _share_devices(drafts)
    components = [draft.component() for draft in drafts]
    _check_networks(keys.get("networks"), drafts)
    named = convert_name(keys["name"].text()) if "name" in keys else ""
    name = options.name or named or options.folder or "application"
    spec = {"version": options.version or DEFAULT_VERSION, "components": components}
    document = {"apiVersion": API_VERSION, "kind": "Application", "metadata": {"name": name}, "spec": spec}
    return drafts, document


def _drafts(services: Node, options: Options) -> list[Draft]:
    drafts: list[Draft] = []
    first: dict[str, str] = {}
    for service, node in services.entries():
        name = convert_name(service)
        if not name:
            node.problem("no name of a component can be made of it", "letters, digits and hyphens")
            continue
        if name in first:
            node.problem(f"becomes the component {name}, as {first[name][:64]} does", "rename one of them")
            continue
        first[name] = service
        node.reading.component = name
        draft = Draft(name, node, options)
        if name != service:
            node.note(
                f"the service {service[:64]} is the component {name}: other components find it by that name"
            )
        _read_service(node, draft)
        drafts.append(draft)
    services.reading.component = ""
    return drafts


def _read_service(service: Node, draft: Draft) -> None:
    keys = service.mapped("services.*")
    if "image" in keys:
        read_image(keys["image"], draft, keys["platform"].text() if "platform" in keys else "")
    elif "build" not in dict(service.entries()):
        service.problem("has no image", "name one under image")
    read_commands(keys.get("entrypoint"), keys.get("command"), draft)
    read_confinement(keys, draft)
    read_end(keys, draft)
    read_limits(keys, draft)
    readers = {
        "environment": read_environment,
        "healthcheck": read_health,
        "ports": read_ports,
        "expose": read_expose,
        "volumes": read_volumes,
        "tmpfs": read_tmpfs,
        "devices": read_devices,
    }
    for key, read in readers.items():
        if key in keys:
            read(keys[key], draft)
    if "gpus" in keys:
        read_gpus(keys["gpus"], draft, "services.*.gpus[]")
    if "depends_on" in keys:
        read_dependencies(keys["depends_on"])
    if "links" in keys:
        read_links(keys["links"])
    draft.networks = list(read_network(keys, draft))


def _check_volumes(declared: Node | None, drafts: list[Draft]) -> None:
    names = dict(declared.entries()) if declared else {}
    for node in names.values():
        keys = node.mapped("volumes.*")
        if "driver" in keys and keys["driver"].text() not in ("", "local"):
            keys["driver"].problem(
                "has no counterpart in an Application", "volumes lie on the host's own disk"
            )
    users: dict[str, str] = {}
    for draft in drafts:
        for source, node in draft.volume_nodes.items():
            if source not in names:
                node.problem(
                    f"the volume {source[:64]} is not declared", "add it to volumes: at the top level"
                )
            if users.setdefault(source, draft.name) != draft.name:
                hint = "let one of them serve the data to the other"
                node.problem(f"the volume {source[:64]} is that of {users[source]} already", hint)


def _check_networks(declared: Node | None, drafts: list[Draft]) -> None:
    """One network beside the default one is the application's own; who is in which of several cannot be kept."""
    names = dict(declared.entries()) if declared else {}
    first = ""
    for draft in drafts:
        for name in draft.networks:
            if name == "default":
                continue
            first = first or name
            if name not in names:
                hint = "add it to networks: at the top level"
                draft.service.problem(f"the network {name[:64]} is not declared", hint)
            elif name != first:
                hint = "all components of an application share one network"
                draft.service.problem(f"a second network, {name[:64]}, beside {first[:64]}", hint)
    for name, node in names.items():
        if any(name in draft.networks for draft in drafts) or name == "default":
            keys = node.mapped("networks.*")
            if "driver" in keys and keys["driver"].text() not in ("", "bridge", "default"):
                keys["driver"].problem("has no counterpart in an Application", "leave it out")


def _share_devices(drafts: list[Draft]) -> None:
    """A device that several components name is shared; otherwise each host could run only one of them."""
    for draft in drafts:
        for device in draft.devices:
            others = (each["use"] for other in drafts if other is not draft for each in other.devices)
            if "/" in device["use"] and device["use"] in others:
                device["shared"] = True
