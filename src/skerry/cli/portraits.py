"""Views as lines of text that say everything about one thing, each figure with its age; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from skerry.cli.binding_portraits import host_binding_lines, site_binding_lines
from skerry.cli.proofs import evidence_lines, override_lines
from skerry.cli.text import age, download, local_time, plural
from skerry.kit.digests import short
from skerry.kit.quantities import format_size
from skerry.matching.requirements import clauses_of
from skerry.spec.api import (
    AppView,
    EventView,
    HostView,
    JsonDocument,
    ModelView,
    ReleaseView,
    RolloutView,
    SiteView,
)
from skerry.spec.api_health import HealthView
from skerry.spec.api_identity import QuarantineView
from skerry.spec.api_recovery import HeldView
from skerry.spec.application import ApplicationSpec, Component, Placement
from skerry.spec.hardware import Expectation, Requirements
from skerry.spec.hold import hold_text
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, ComponentView, MetadataHeld

Lines = Iterator[str]
_HEAD_WIDTH = 15
_FREE_PORT = "(chosen by the host)"
_DISK = (("keep_free", "left free"), ("blobs", "for blobs at the most"))
_BUDGETS = (("per_day", "per day"), ("per_month", "per month"))


def field(head: str, text: str) -> str:
    """Return one line `Head:  text`, aligned with its neighbours."""
    return f"{head + ':':<{_HEAD_WIDTH}}{text or '-'}"


def indent(lines: Iterable[str], by: int = 2) -> Lines:
    """Yield lines further to the right."""
    for line in lines:
        yield " " * by + line


def site_lines(
    view: SiteView, hosts: Sequence[HostView], events: Sequence[EventView], *, at: datetime
) -> Lines:
    """Say everything about a site."""
    spec = view.document.get("spec", {})
    yield field("Site", view.name)
    yield field("State", _seen(view, at))
    if view.health:
        yield from health_lines(view.health, at=at)
    if view.held:
        yield from _held_lines(view.name, view.held, at)
    yield field("Labels", _pairs(view.labels))
    yield field("Time zone", str(spec.get("time_zone", "UTC")))
    if spec.get("host_network"):
        yield field("Policy", "containers may use their host's own network")
    if link := spec.get("link"):
        yield from _link_lines(link)
    for window in spec.get("switch_windows", ()):
        yield field("Switches", f"at {window['cron']} for {window['duration']}")
    if disk := spec.get("disk"):
        limits = [f"{disk[key]} {words}" for key, words in _DISK if key in disk]
        yield field("Disk", ", ".join(limits))
    if variables := spec.get("variables"):
        yield field("Variables", _pairs(variables))
    yield from site_binding_lines(spec.get("bindings", ()), hosts, at=at)
    yield field("Generation", str(view.generation))
    yield field("Assigned", ", ".join(sorted(view.assignments.values())))
    yield field("Hosts", f"{view.hosts_online} of {view.hosts} online")
    for host in hosts:
        runs = ", ".join(f"{v.release or name} ({v.phase})" for name, v in sorted(host.applications.items()))
        state = "in quarantine, " if host.quarantined else ""
        yield f"  {host.name}: {state}{_seen(host, at)}; runs {runs or 'nothing'}"
    yield from event_lines(events)


def health_lines(view: HealthView, *, at: datetime) -> Lines:
    """Say how a site is, and why, each reason with its age."""
    yield field("Health", view.word)
    for reason in view.reasons:
        subject = f"{reason.host}: " if reason.host else ""
        as_of = f", as of {age(reason.as_of, at)}" if reason.as_of else ""
        yield f"  {reason.word}: {subject}{reason.message}{as_of}"
    if view.left_out:
        yield f"  and {plural(view.left_out, 'more reason')}"


def host_lines(view: HostView, events: Sequence[EventView], *, at: datetime) -> Lines:
    """Say everything about a host: what it runs, which variants and why, what it refused, its facts."""
    yield field("Host", view.name)
    yield field("Site", view.site)
    yield field("State", _seen(view, at))
    if view.quarantined:
        yield from _quarantine_lines(view.name, view.site, view.quarantined, at)
    yield field("Enrolled", age(view.enrolled_at, at))
    yield field("Desired state", _step(view))
    if view.clock_offset_s is not None and abs(view.clock_offset_s) >= 1:
        yield field("Clock", f"off by {view.clock_offset_s:+.0f} s")
    yield field("Applications", f"as of {age(view.observed_at, at)}" if view.applications else "none")
    for name, application in sorted(view.applications.items()):
        yield from indent(application_lines(name, application))
    for hold in view.holds:
        yield field("Hold", f"{hold.application or 'all applications'}, {hold_text(hold)}")
    if view.secrets:
        used = (f"{name} {version}" for name, version in sorted(view.secrets.items()))
        yield field("Secrets", f"{', '.join(used)}, as of {age(view.observed_at, at)}")
    yield from host_binding_lines(view, at=at)
    if view.ahead:
        yield "Fetched ahead:"
        yield from indent(f"{release}: {how}" for release, how in sorted(view.ahead.items()))
    yield from _metadata_lines(view.metadata, at)
    if view.facts:
        yield "Facts:"
        for name, fact in sorted(view.facts.items()):
            value = ", ".join(fact.value) if isinstance(fact.value, tuple) else _fact(name, fact.value)
            yield f"  {name}: {value}  [{fact.source}]"
    yield from event_lines(events)


def _metadata_lines(held: MetadataHeld | None, at: datetime) -> Lines:
    """Say which signed metadata a host holds, and what follows where it is not fit."""
    if held is None or held.expires_at is None:
        return
    until = f"{held.expires_at:%Y-%m-%d %H:%MZ}"
    holds = (
        f"expired at {until}: nothing new is taken there" if at >= held.expires_at else f"holds until {until}"
    )
    yield field("Signed metadata", f"root {held.root}, snapshot {held.snapshot}; {holds}")
    if held.trouble:
        yield f"  newer could not be had: {held.trouble}"


def application_lines(name: str, view: ApplicationView) -> Lines:
    """Say how one application stands on its host."""
    trying = f", trying {view.candidate}" if view.candidate else ""
    duty = f", {view.duty}" if view.duty else ""
    yield f"{name}: {view.phase} {view.release or 'nothing yet'}{trying}{duty}"
    if view.why:
        yield f"  {view.why}"
    if view.fetch:
        yield f"  {download(msgspec.to_builtins(view.fetch))}"
    for component, seen in sorted(view.components.items()):
        yield from indent(_component_lines(component, seen))
    for choice in view.choices:
        of = (
            f"model {choice.model} {choice.version}" if choice.kind == "model" else f"image of {choice.model}"
        )
        yield f"  {of}: variant {choice.variant or 'none'}"
        yield from indent(choice.why, 4)
    for variant, reason in sorted(view.failed_variants.items()):
        yield f"  variant {variant} failed its self-test: {reason}"
    for digest, reason in sorted(view.refused.items()):
        yield f"  refused release {short(digest)}: {reason}"


def app_lines(
    view: AppView, releases: Sequence[ReleaseView], hosts: Sequence[HostView], *, at: datetime
) -> Lines:
    """Say everything about an application over the fleet."""
    yield field("Application", view.name)
    yield "Releases:" if view.releases else field("Releases", "none")
    for release in sorted(releases, key=lambda release: release.created_at, reverse=True):
        count = plural(view.running.get(release.name, 0), "host")
        yield f"  {release.name}: pushed {age(release.created_at, at)} by {release.created_by}, runs on {count}"
    running = [(host, host.applications[view.name]) for host in hosts if view.name in host.applications]
    yield field("Hosts", str(len(running)))
    for host, seen in running:
        trying = f", trying {seen.candidate}" if seen.candidate else ""
        as_of = age(host.observed_at, at)
        yield f"  {host.name} ({host.site}): {seen.phase} {seen.release or 'nothing yet'}{trying}, as of {as_of}"


def model_lines(views: Sequence[ModelView], hosts: Sequence[HostView], *, at: datetime) -> Lines:
    """Say everything about a model: its versions, and which host runs which variant."""
    yield field("Model", views[0].name)
    for view in views:
        yield f"Version {view.version}:"
        yield f"  variants: {', '.join(view.variants)}"
        yield f"  releases: {', '.join(view.releases) or 'none'}"
        for host in hosts:
            for seen in host.applications.values():
                for choice in seen.choices:
                    if (choice.model, choice.version) == (view.name, view.version):
                        as_of = age(host.observed_at, at)
                        yield f"  {host.name} ({host.site}): {choice.variant or 'no variant fits'}, as of {as_of}"


def release_lines(view: ReleaseView, *, at: datetime) -> Lines:
    """Say everything about a release."""
    yield field("Release", view.name)
    yield field("Digest", view.digest)
    yield field("Pushed", f"{age(view.created_at, at)} by {view.created_by}")
    yield field("Signed by", view.publisher or "nobody")
    if view.revoked:
        yield field("Revoked", f"{age(view.revoked.at, at)}: {view.revoked.why}")
    yield field("Size", f"{format_size(view.size_bytes)} over all variants")
    yield from evidence_lines(view.evidence)
    release = _release(view.document)
    if release is None:
        return
    yield from _placement_lines(release.application.spec)
    for component in release.application.spec.components:
        yield f"Component {component.name}:"
        yield from indent(_written_lines(component))
    for model in release.models:
        yield f"Model {model.metadata.name} {model.spec.version}:"
        if model.spec.self_test:
            most = model.spec.self_test.max_latency
            slow = f", {most} for an answer at the most" if most else ""
            yield f"  self-test: {plural(len(model.spec.self_test.cases), 'golden case')}{slow}"
        for variant in model.spec.variants:
            kind = "/".join(part for part in (variant.format, variant.precision) if part)
            yield f"  variant {variant.name} ({kind}){_needs(variant.requires)}{_expects(variant.expects)}"
            if how := variant.snapped:
                error = f"no weight by more than {how.largest_error:.2g} of its size"
                yield f"    snapped to {how.release} by {how.bits} bits, {error}"
            yield from indent(_file_lines(variant.files), 4)


def rollout_lines(view: RolloutView, *, at: datetime) -> Lines:
    """Say everything about a rollout: where each site is, since when, and why."""
    spec = view.document.get("spec", {})
    yield field("Rollout", view.name)
    yield field("Release", view.release)
    yield field("State", f"{view.state}: {view.why}")
    yield field("Selector", str(spec.get("sites", "")))
    yield field("Started", f"{age(view.created_at, at)} by {view.created_by}")
    if view.ended_at:
        yield field("Ended", age(view.ended_at, at))
    if view.attempt > 1:
        yield field("Attempt", str(view.attempt))
    if view.override:
        yield from override_lines(view.override, at=at)
    if view.halt:
        yield field("Halted", f"{age(view.halt.at, at)}: {view.halt.why}; {view.halt.then}")
    if view.control and view.control.paused:
        yield field("Paused", view.control.paused)
    for number, wave in enumerate(view.waves, 1):
        done = sum(p.state == "succeeded" for p in view.sites.values() if p.wave == number - 1)
        passed = f", passed {age(wave.passed_at, at)}" if wave.passed_at else ""
        why = f": {wave.why}" if wave.why else ""
        yield f"Wave {number} {wave.name}: {wave.state}{passed}, {done} of {wave.members} sites{why}"
    yield field("Sites", str(len(view.sites)) if view.sites else "none match yet")
    for name, progress in sorted(view.sites.items()):
        before = f" (before: {progress.previous})" if progress.previous else ""
        as_of = f", as of {age(progress.as_of, at)}" if progress.as_of else ""
        yield f"  {name}: {progress.state}{as_of}: {progress.why}{before}"


def event_lines(events: Sequence[EventView]) -> Lines:
    """Say what happened last, the newest first."""
    if events:
        yield "Events:"
    for view in sorted(events, key=lambda view: view.event.at, reverse=True):
        subject = "/".join(part for part in (view.host, view.event.application, view.event.component) if part)
        message = f": {view.event.message}" if view.event.message else ""
        yield f"  {local_time(view.event.at)}  {subject}  {view.event.kind}{message}"


def _component_lines(name: str, view: ComponentView) -> Lines:
    restarts = f", {plural(view.restarts, 'restart')}" if view.restarts else ""
    code = f", exit code {view.exit_code}" if view.exit_code is not None else ""
    yield f"component {name}: {view.state}{restarts}{code}"
    if view.message:
        yield f"  {view.message}"
    if view.image:
        yield f"  image: {short(view.image)}"
    for port, place in sorted(view.endpoints.items()):
        yield f"  {port}: {place}"
    for limit, how in sorted(view.limits.items()):
        yield f"  limit {limit}: {how}"


def _seen(view: SiteView | HostView, at: datetime) -> str:
    if view.last_seen_at is None:
        return "never seen"
    return f"{view.presence}, last seen {age(view.last_seen_at, at)}"


def _held_lines(site: str, held: HeldView, at: datetime) -> Lines:
    """Say why nothing is issued to a site, and what can be done."""
    yield field("Held", f"since {age(held.since, at)}: nothing is issued to this site")
    yield f"  {held.host} reported generation {held.generation_seen}; this hub knows {held.generation_known}"
    for name, release in sorted(held.running.items()):
        yield f"  {name}: {release} runs there{', unknown here' if release in held.unknown else ''}"
    if held.untold:
        yield f"  not told yet what they run: {', '.join(held.untold)}"
    yield f"  to take over what runs there:  skerry site adopt {site}"
    yield f"  to issue what this hub says:   skerry site reissue {site}"


def _quarantine_lines(host: str, site: str, quarantined: QuarantineView, at: datetime) -> Lines:
    """Say why nothing is taken from a host, and what can be done."""
    yield field("Quarantine", f"since {age(quarantined.since, at)}: {quarantined.why}")
    yield "  its reports are not taken and it is handed nothing; what it runs, it runs on"
    yield f"  to give one machine new keys and refuse the others:  skerry site token {site} --replace {host}"
    yield f"  to go on, once only one of them is left:             skerry host readmit {host}"


def _step(view: HostView) -> str:
    if view.generation_held >= view.generation_wanted:
        return f"in step, generation {view.generation_held}"
    return (
        f"queued: holds generation {view.generation_held}, generation {view.generation_wanted} waits for it"
    )


def _fact(name: str, value: object) -> str:
    return format_size(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _link_lines(link: Mapping[str, Any]) -> Lines:
    """Say a link budget as it was written."""
    budgets = [f"{link[key]} {words}" for key, words in _BUDGETS if key in link]
    if budgets and "carry_over" in link:
        budgets.append(f"up to {link['carry_over']} saved up")
    yield field("Link", ", ".join([str(link.get("rate", "unlimited")), *budgets]))
    for window in link.get("windows", ()):
        rate = window.get("rate", "unlimited")
        yield f"  at {window['cron']} for {window['duration']}: {rate}"
    if link.get("metered"):
        most = f", {link['metered_per_day']} per day" if "metered_per_day" in link else ""
        yield field("Link metered", f"{link.get('metered_rate', 'unlimited')}{most}")


def _pairs(pairs: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(pairs.items()))


def _release(document: JsonDocument | None) -> Release | None:
    """A hub of another version may know fields that this client does not; then less is told, not nothing."""
    try:
        return msgspec.convert(document, type=Release) if document else None
    except msgspec.ValidationError:
        return None


def _file_lines(files: Sequence[FileSpec]) -> Lines:
    for file in files:
        yield f"file {file.path}: {format_size(file.size_bytes)}, {short(file.digest or '')}"


def _placement_lines(spec: ApplicationSpec) -> Lines:
    placement = spec.placement
    if spec.update != "recreate":
        yield field("Update", spec.update)
    if placement == Placement():
        return
    hosts = {"each": "each host that fits", "one": "one host", "count": plural(placement.count, "host")}
    standby = (
        "" if placement.mode == "each" else f", {placement.standby} standing by, {placement.takeover} silence"
    )
    yield field("Placement", f"{hosts[placement.mode]}{standby}{_needs(placement.requires)}")


def _written_lines(component: Component) -> Lines:
    """Say how a component is written; what it leaves to the defaults is not said."""
    if component.command or component.args:
        yield f"command: {' '.join((*component.command, *component.args))}"
    if component.ports:
        yield f"ports: {', '.join(f'{port.name} {port.port or _FREE_PORT}' for port in component.ports)}"
    for mount in component.models:
        yield f"model {mount.name} {mount.version}, by {mount.objective}"
    for device in component.devices:
        yield f"device {device.name}: {device.use}{', shared' if device.shared else ''}"
    for volume in component.volumes:
        yield f"volume {volume.name}{f' at {volume.path}' if volume.path else ''}, {volume.size or 'no limit'}"
    if component.image and component.container.network != "application":
        yield f"network: {component.container.network}"
    if component.bundle:
        yield from _file_lines(component.bundle.files)
    for image in component.image.variants if component.image else ():
        size = format_size(sum(layer.size_bytes for layer in image.layers))
        identity = short(image.config.digest or "") if image.config else "not pinned"
        yield f"image {image.name} ({image.platform or 'any platform'}): {size}, {identity}{_needs(image.requires)}"
        if image.manifest:
            yield f"  manifest {image.manifest.digest}"
        for model, variants in sorted(image.models.items()):
            yield f"  goes with {model} {' or '.join(variants)}"


def _needs(requires: Requirements) -> str:
    wants = ", ".join(clause.wants for clause in clauses_of(requires))
    return f", needs {wants}" if wants else ""


def _expects(expects: Expectation) -> str:
    texts = [f"latency {expects.latency}"] if expects.latency else []
    texts += [f"memory {expects.memory}"] if expects.memory else []
    texts += [f"accuracy {expects.accuracy:g}"] if expects.accuracy is not None else []
    return f", expects {', '.join(texts)}" if texts else ""
