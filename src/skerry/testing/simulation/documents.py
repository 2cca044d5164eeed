"""What people write for a simulation: the fleet it runs on, and what happens there.

Neither kind is known to a hub. All problems of a file are told at once, with path and line, as of other documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, cast

import jsonschema_rs
import msgspec
from msgspec import Meta

from skerry.kit.quantities import parse_duration, parse_rate, parse_size
from skerry.spec.checks_files import check_unique
from skerry.spec.documents import check_document
from skerry.spec.facts import Fact, FactValue, HostFacts
from skerry.spec.metadata import API_VERSION, Document, Duration, Metadata, Name, Part, Size
from skerry.spec.metrics import Finite, MetricName, Quality
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.rollout import Share
from skerry.spec.schema import DIALECT, Schema
from skerry.spec.site import RateText, Site, SiteSpec
from skerry.spec.wording import closest, problems_of, shown
from skerry.spec.yaml_tree import Place, read_trees
from skerry.testing.simulation.profiles import LinkProfile

Behaviour = Literal["healthy", "crashes", "never-ready", "cannot-start", "fails-self-test"]
PerWeek = Annotated[float, Meta(ge=0, le=10_000)]


class SiteGroup(Part, frozen=True, kw_only=True):
    """Sites that are alike: `share` of all, with so many `hosts` each.

    Their labels are `labels`, `group` (the group's name), `link` and `hardware`, and of each label in `spread` one of
    its values, in turn. `rate` is what the link carries, `latency` how long a message takes. `site` is as in a Site
    document. A host's clock is wrong by up to `clock_skew` from each power cut until it hears of its hub.
    `crashes_per_week` and `power_cuts_per_week` are means, for each host. `facts` are those of the hosts, by which
    variants are chosen.
    """

    name: Name
    share: Share = "100%"
    hosts: Annotated[int, Meta(ge=1, le=100)] = 1
    labels: Annotated[dict[str, str], Meta(max_length=32)] = {}
    spread: Annotated[dict[str, Annotated[tuple[str, ...], Meta(min_length=1)]], Meta(max_length=8)] = {}
    hardware: Annotated[str, Meta(max_length=63)] = "pc"
    link: LinkProfile = "always-on"
    rate: RateText = "10Mbit/s"
    latency: Duration = "100ms"
    clock_skew: Duration = "0s"
    crashes_per_week: PerWeek = 0.0
    power_cuts_per_week: PerWeek = 0.0
    facts: Annotated[dict[str, FactValue], Meta(max_length=256)] = {}
    site: SiteSpec = SiteSpec()

    @property
    def host_facts(self) -> HostFacts:
        """The facts as a host would report them."""
        return {name: Fact(value=value, source="stated") for name, value in self.facts.items()}


class SimulatedFleetSpec(Part, frozen=True, kw_only=True):
    """Groups of sites whose shares make 100%; `previous` is the release they run before."""

    groups: Annotated[tuple[SiteGroup, ...], Meta(min_length=1, max_length=100)]
    previous: Annotated[str, Meta(max_length=128)] = ""


class SimulatedFleet(Document, frozen=True, kw_only=True, tag="SimulatedFleet"):
    """A fleet that exists in a simulation only."""

    spec: SimulatedFleetSpec


class Fault(Part, frozen=True, kw_only=True):
    """The release fails on `share` of the hosts of a `hardware` class, of all where none is named; `how` says how."""

    how: Literal["crashes", "never-ready", "cannot-start", "fails-self-test"] = "crashes"
    share: Share = "100%"
    hardware: Annotated[str, Meta(max_length=63)] = ""


class SimulatedMetric(Part, frozen=True, kw_only=True):
    """A figure that hosts measure: `typical` of the old release, `becomes` of the new one.

    A `rate` is the share of bad samples, a `quantile` has `typical` as its median, a `mean` lies between `low` and
    `high`. `hardware` restricts the change to a class. Each site measures `per_hour` samples.
    """

    name: MetricName
    kind: Quality
    typical: Finite
    becomes: Finite | None = None
    hardware: Annotated[str, Meta(max_length=63)] = ""
    per_hour: Annotated[int, Meta(ge=1, le=10_000)] = 60
    low: Finite = 0.0
    high: Finite = 1.0


class SimulatedRelease(Part, frozen=True, kw_only=True):
    """What of the release matters: bytes that a site fetches, how long its steps take, and what is wrong with it."""

    size: Size = "200MiB"
    prepare: Duration = "20s"
    self_test: Duration = "10s"
    start: Duration = "10s"
    faults: Annotated[tuple[Fault, ...], Meta(max_length=32)] = ()


class ScenarioSpec(Part, frozen=True, kw_only=True):
    """What happens: for how long, from when, with which release, and what people do.

    Waves that need an approval get it `approve_after` they could begin, or never. After `abort_after` somebody aborts
    the rollout, as `abort` says. The rollout's gates judge `metrics`.
    """

    duration: Duration = "14d"
    starts_at: Annotated[datetime, Meta(tz=True)] | None = None
    release: SimulatedRelease = SimulatedRelease()
    metrics: Annotated[tuple[SimulatedMetric, ...], Meta(max_length=32)] = ()
    approve_after: Duration | None = None
    abort_after: Duration | None = None
    abort: Literal["revert", "keep"] = "revert"


class Scenario(Document, frozen=True, kw_only=True, tag="Scenario"):
    """What happens in a simulation."""

    spec: ScenarioSpec = ScenarioSpec()


Written = SimulatedFleet | Scenario
W = TypeVar("W", bound=Written)

DEFAULT_FLEET = SimulatedFleet(
    metadata=Metadata("default"),
    spec=SimulatedFleetSpec(
        groups=(
            SiteGroup(name="office", share="65%", spread={"region": ("north", "south")}, rate="20Mbit/s"),
            SiteGroup(
                name="shop", share="20%", spread={"region": ("north", "south")}, link="business-hours",
                rate="8Mbit/s", power_cuts_per_week=0.2,
            ),
            SiteGroup(
                name="cabin", share="10%", spread={"region": ("north", "south")}, link="satellite",
                rate="4Mbit/s", latency="800ms", hardware="jetson", power_cuts_per_week=0.5, clock_skew="10m",
            ),
            SiteGroup(
                name="remote", share="5%", spread={"region": ("north", "south")}, link="dead-for-a-week",
                rate="2Mbit/s", latency="800ms", hardware="jetson", crashes_per_week=2.0,
            ),
        )
    ),
)  # fmt: skip
DEFAULT_SCENARIO = Scenario(metadata=Metadata("good"))
MAX_DURATION_S = 366 * 86400.0


def read_document(text: str, kind: type[W], *, file: str = "") -> W:
    """Return the one document of a text.

    Raises:
        DocumentRejected: with all its problems.
    """
    trees = read_trees(text, file=file)
    if len(trees) != 1:
        raise DocumentRejected(
            [Problem("", f"expected one {kind.__name__}, found {len(trees)} documents", "", file)]
        )
    tree = trees[0]
    document, found = _convert(tree.value, tree.place, kind)
    told = {problem.path for problem in tree.problems}
    found = [msgspec.structs.replace(problem, file=file) for problem in found if problem.path not in told]
    problems = sorted([*tree.problems, *found], key=lambda problem: problem.line)
    if document is None or problems:
        raise DocumentRejected(problems)
    return document


def _convert(value: Any, place: Place, kind: type[W]) -> tuple[W | None, list[Problem]]:
    if not isinstance(value, dict):
        message = f"expected a document, got {shown(value)}"
        return None, [Problem("", message, "it begins with apiVersion: and kind:", line=place.line)]
    written = cast("dict[str, object]", value).get("kind")
    if written != kind.__name__:
        hint = closest(str(written), [kind.__name__])
        return None, [
            Problem(
                "kind", f"expected {kind.__name__}, got {shown(written)}", hint, line=place.find("kind").line
            )
        ]
    schema = _schema(kind)
    errors = jsonschema_rs.validator_for(schema).iter_errors(value)
    problems = [problem for error in errors for problem in problems_of(error, schema, place)]
    if problems:
        return None, problems
    try:
        document = msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        return None, [Problem("", str(error), line=place.line)]
    return document, [
        msgspec.structs.replace(problem, line=place.find(problem.path).line) for problem in _check(document)
    ]


def _schema(kind: type[Document]) -> Schema:
    _, definitions = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    return {"$schema": DIALECT, "$ref": f"#/$defs/{kind.__name__}", "$defs": definitions}


def _check(document: Written) -> Iterator[Problem]:
    if document.api_version != API_VERSION:
        yield Problem(
            "apiVersion", f"unknown version {document.api_version!r}", f"write apiVersion: {API_VERSION}"
        )
    if isinstance(document, Scenario):
        yield from _check_scenario(document.spec)
    else:
        yield from _check_groups(document.spec.groups)


def _check_groups(groups: Sequence[SiteGroup]) -> Iterator[Problem]:
    total = sum(float(group.share[:-1]) for group in groups)
    if abs(total - 100) > 0.01:
        yield Problem("spec.groups", f"the shares make {total:g}%, not 100%", "give each group its share")
    seen: set[str] = set()
    for index, group in enumerate(groups):
        path = f"spec.groups[{index}]"
        if group.name in seen:
            yield Problem(f"{path}.name", f"{group.name} is there twice", "give each group its own name")
        seen.add(group.name)
        if parse_rate(group.rate) == 0:
            yield Problem(
                f"{path}.rate", "nothing would ever arrive", "use link: dead for sites that are away"
            )
        labels = group.labels | {name: value for name, values in group.spread.items() for value in values[:1]}
        site = Site(metadata=Metadata(group.name, labels), spec=group.site)
        for problem in check_document(site):
            where = problem.path.replace("metadata.labels", "labels", 1).replace("spec", "site", 1)
            yield msgspec.structs.replace(problem, path=f"{path}.{where}")


def _check_scenario(spec: ScenarioSpec) -> Iterator[Problem]:
    if not 0 < parse_duration(spec.duration) <= MAX_DURATION_S:
        yield Problem("spec.duration", "must be longer than 0 and at most 366d")
    if parse_size(spec.release.size) <= 0:
        yield Problem("spec.release.size", "must be more than 0")
    yield from check_unique("spec.metrics", "metric", (metric.name for metric in spec.metrics))
    for index, metric in enumerate(spec.metrics):
        yield from _check_metric(f"spec.metrics[{index}]", metric)


def _check_metric(path: str, metric: SimulatedMetric) -> Iterator[Problem]:
    if not metric.low < metric.high:
        yield Problem(f"{path}.high", "must be more than low")
    for name, value in (("typical", metric.typical), ("becomes", metric.becomes)):
        if value is None:
            continue
        if metric.kind == "rate" and not 0 <= value <= 1:
            yield Problem(f"{path}.{name}", f"a rate lies between 0 and 1, got {value:g}", "5 % is 0.05")
        if metric.kind == "quantile" and value <= 0:
            yield Problem(f"{path}.{name}", f"expected more than 0, got {value:g}")
        if metric.kind == "mean" and not metric.low <= value <= metric.high:
            yield Problem(f"{path}.{name}", f"{value:g} is not between low and high")
