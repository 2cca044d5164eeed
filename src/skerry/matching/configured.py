"""What the configuration of a release comes to for a host, and everything that speaks against issuing it.

Pure: the same function answers when a configuration is applied, when a rollout is made, when a site is issued its
desired state, and when somebody asks what it would be. What has a trouble is never issued.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from skerry.kit.canonical import encode_canonical
from skerry.matching.filling import Known, fill_values
from skerry.matching.layering import Laid, Layer, Spot, choose_layers, lay
from skerry.spec.checks_configuration import unknown_locals
from skerry.spec.configuration import MAX_VALUES_BYTES, Configuration, Configured
from skerry.spec.configuration_schema import check_values
from skerry.spec.problems import Problem
from skerry.spec.references import value_at
from skerry.spec.release import Release


class Trouble(msgspec.Struct, frozen=True):
    """What is wrong with the values at a path, and which layer that value is from; empty when none says it."""

    path: str
    message: str
    hint: str = ""
    source: str = ""
    of_schema: bool = False

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" (from {self.source})" if self.source else "")


class Answer(msgspec.Struct, frozen=True):
    """What it comes to, of which layers, and what is wrong with it."""

    configured: Configured
    layers: tuple[Layer, ...]
    laid: Laid
    troubles: tuple[Trouble, ...] = ()


def configure(
    release: Release, configurations: Iterable[Configuration], known: Known, *, revision: str = ""
) -> Answer:
    """Return the configuration of a release for a host, or for the site alone where `known` names no host."""
    spot = Spot(known.site, known.labels, known.host)
    layers = choose_layers(release.application, configurations, spot)
    laid = lay(layers)
    filled = fill_values(laid.values, known)
    configured = Configured(revision=revision, values=filled.values, facts=dict(filled.facts))
    troubles = [
        Trouble(one.path, f"${{{one.name}}}: {one.why}", source=_source(laid, one.path))
        for one in filled.unfilled
    ]
    config = release.application.spec.config
    if config is not None and config.schema is not None:
        troubles += [_broken(laid, problem) for problem in check_values(filled.values, config.schema)]
    troubles += _local(release, configured, laid)
    if len(encode_canonical(configured)) > 2 * MAX_VALUES_BYTES:
        troubles.append(Trouble("", f"more than {2 * MAX_VALUES_BYTES} bytes together"))
    return Answer(configured, layers, laid, tuple(troubles))


def _broken(laid: Laid, problem: Problem) -> Trouble:
    message = f"breaks the schema: {problem.message}"
    return Trouble(problem.path, message, problem.hint, _source(laid, problem.path), of_schema=True)


def _local(release: Release, configured: Configured, laid: Laid) -> Iterator[Trouble]:
    """Yield references to what a component that would be told of them has not."""
    spec = release.application.spec
    for component in spec.components:
        if component.config is None:
            continue
        parts: Sequence[str] = (*(file.of for file in component.config.files), *component.config.env.values())
        seen: set[tuple[str, str]] = set()
        for part in parts:
            for path, name in unknown_locals(component, value_at(configured.values, part), spec.needs):
                where = f"{part}.{path}" if part and path else part or path
                if (where, name) not in seen:
                    seen.add((where, name))
                    message = f"${{{name}}}: component {component.name} has no such thing"
                    yield Trouble(where, message, source=_source(laid, where))


def _source(laid: Laid, path: str) -> str:
    """Return which layer the value at a path is from: that of the nearest one above, or below."""
    found = path.partition("[")[0]
    while found:
        if found in laid.origins:
            return laid.origins[found]
        found = found.rpartition(".")[0]
    below = {source for leaf, source in laid.origins.items() if path and leaf.startswith(f"{path}.")}
    return below.pop() if len(below) == 1 else ""
