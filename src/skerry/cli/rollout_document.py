"""A rollout as it is about to begin: made from what a command was told, or read from a file, and checked with the hub.

Rules: all problems are told at once, those that only the hub can know of beside those of the document itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from skerry.cli.loading import load_documents
from skerry.cli.wave_preview import default_name
from skerry.client.client import Client
from skerry.kit.errors import Missing, Rejected, SkerryError
from skerry.kit.ids import split_release_name
from skerry.matching.selecting import check_selected
from skerry.matching.selector import parse_selector
from skerry.spec.api import FleetPreview, JsonDocument, SiteView
from skerry.spec.checks_gates import check_gates_told
from skerry.spec.metadata import API_VERSION
from skerry.spec.parsing import parse_raw
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout, RolloutSpec, Wave


class Foreseen(msgspec.Struct, frozen=True):
    """A rollout that may begin, with what the hub says of its release and its sites."""

    rollout: Rollout
    fleet: FleetPreview
    sites: list[SiteView]
    release: Release | None


def make_rollout(release: str, name: str, spec: Mapping[str, object]) -> JsonDocument:
    """Return the document of a rollout, with a name by its release if it has none. What is wrong is found later."""
    if not name:
        name = default_name(release) if split_release_name(release) else "unnamed"
    return {
        "apiVersion": API_VERSION,
        "kind": "Rollout",
        "metadata": {"name": name},
        "spec": {"release": release} | dict(spec),
    }


def read_rollout(file: str) -> JsonDocument:
    """Return the one rollout of a file as it is written there.

    Raises:
        Rejected: there is none, or are several.
        DocumentRejected: with every problem of the file.
    """
    found = [parsed.raw for parsed in load_documents([file]) if isinstance(parsed.document, Rollout)]
    if len(found) != 1:
        raise Rejected("rollout.one", f"{file} has {len(found)} rollouts, not one", hint="name another file")
    return found[0]


def refuse_wrong(client: Client, document: JsonDocument) -> None:
    """Refuse a rollout whose document is wrong by itself, with what the hub knows to be wrong as well.

    Raises:
        DocumentRejected: with every problem. What is right by itself is left to the hub to judge.
    """
    try:
        parse_raw(document)
    except DocumentRejected as error:
        found = list(error.problems)
        with contextlib.suppress(SkerryError):  # the hub cannot be asked; what is known is told
            found += _ask(client, document, {problem.path for problem in found}).problems
        raise DocumentRejected(found) from None


def foresee(client: Client, document: JsonDocument) -> Foreseen:
    """Return a rollout with what the hub says of its release and sites.

    Raises:
        DocumentRejected: with every problem of the document, and of what it names.
    """
    problems: list[Problem] = []
    rollout: Rollout | None = None
    try:
        parsed = parse_raw(document)
        assert isinstance(parsed, Rollout)
        rollout = parsed
    except DocumentRejected as error:
        problems += error.problems
    asked = _ask(client, document, {problem.path for problem in problems})
    problems += asked.problems
    if problems or rollout is None or asked.fleet is None:
        raise DocumentRejected(problems)
    return Foreseen(rollout, asked.fleet, asked.sites, asked.release)


MAX_SITES = 20


class _Asked(msgspec.Struct):
    problems: list[Problem]
    sites: list[SiteView]
    fleet: FleetPreview | None = None
    release: Release | None = None


def _ask(client: Client, document: JsonDocument, told: set[str]) -> _Asked:
    """Hold what a document names against the hub, as far as it can be read; what is `told` is wrong anyway."""
    spec = _read_loosely(document)
    found = _Asked([], [])
    try:
        parse_selector(spec.sites)
        selector = spec.sites
        found.sites = client.sites(selector)
    except Rejected:
        selector = "*"  # that it cannot be read is among the problems
    if "spec.release" not in told and split_release_name(spec.release):
        _ask_release(client, spec, selector, found)
    labels = {site.name: site.labels for site in found.sites}
    found.problems += [one for one in check_selected(spec, labels) if one.path not in told]
    if found.release is not None and not any(path.startswith("spec.gates") for path in told):
        found.problems += check_gates_told(spec.gates, found.release.application.spec)
    return found


def _ask_release(client: Client, spec: RolloutSpec, selector: str, found: _Asked) -> None:
    try:
        found.fleet = client.preview(spec.release, selector)
        found.sites = [site for site in found.sites if site.name not in found.fleet.excluded]
        found.problems += [_lacking(spec.release, *one) for one in found.fleet.lacking_secrets.items()]
        found.problems += [
            Problem(
                "spec.release", f"{why}: at {', '.join(sites[:MAX_SITES])}", "skerry get routes lists them"
            )
            for why, sites in found.fleet.route_conflicts.items()
        ]
        found.problems += [
            Problem(
                "spec.release", f"{why}: at {', '.join(sites[:MAX_SITES])}", "skerry describe site shows it"
            )
            for why, sites in found.fleet.binding_conflicts.items()
        ]
        found.problems += [
            Problem("spec.release", f"its configuration: {what}, at {', '.join(places)}")
            for what, places in found.fleet.misconfigured.items()
        ]
        content = client.release(spec.release).document if spec.gates else None
        found.release = msgspec.convert(content, type=Release) if content else None
    except Missing:
        known = ", ".join(view.name for view in client.releases()[-5:]) or "none"
        what = f"there is no release {spec.release}"
        found.problems.append(Problem("spec.release", what, f"the newest here: {known}"))
    except msgspec.ValidationError:
        pass  # of a hub that knows fields which this client does not; it judges the gates itself


def _lacking(release: str, secret: str, sites: Sequence[str]) -> Problem:
    told = ", ".join(sites[:MAX_SITES]) + (
        f" and {len(sites) - MAX_SITES} more" if len(sites) > MAX_SITES else ""
    )
    message = f"{release} uses secret {secret}, which has no value at {told}"
    return Problem("spec.release", message, f"skerry secret set {secret}; see skerry explain secret {secret}")


def _read_loosely(document: JsonDocument) -> RolloutSpec:
    """Return what can be read of a document that may be wrong."""
    try:
        return msgspec.convert(document, type=Rollout).spec
    except msgspec.ValidationError:
        spec = _mapping(document.get("spec"))
        waves = spec.get("waves")
        given = cast("Sequence[object]", waves) if isinstance(waves, list) else ()
        selectors = (_mapping(wave).get("sites") for wave in given)
        return RolloutSpec(
            release=str(spec.get("release", "")),
            sites=str(spec.get("sites", "")),
            waves=tuple(Wave(sites=one if isinstance(one, str) else "") for one in selectors),
        )


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
