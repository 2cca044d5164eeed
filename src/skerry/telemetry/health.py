"""How a site is, in one word: from what its hosts last said, how old that is, and how often it is usually heard of.

- Each fact gives at most one reason, and each reason a word; the site's is the worst of them. So one more trouble, or
  more time without a word, never makes a site look better.
- Silence is no failure and no health. Within what is usual of the site it is `expected-silent`, and what was last said
  goes on counting, with its age; beyond it, it is `silent`.
- A host that is silent while others of its site are heard of is a trouble of the site, not its silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import get_args

import msgspec

from skerry.kit.editions import plain_release, revision_of
from skerry.kit.quantities import format_duration
from skerry.spec.api_health import MAX_REASONS, HealthReason, HealthView, HealthWord
from skerry.spec.report import ApplicationView, Observed

LINKED = timedelta(minutes=5)
"""Who was heard of within this time is linked; a host that waits at the hub is heard of twice a minute."""
RECENT = timedelta(days=1)
"""For how long a loss of telemetry is told."""

_ranks: Mapping[HealthWord, int] = {word: rank for rank, word in enumerate(get_args(HealthWord))}
_unhealthy = frozenset({"unready", "backoff", "exited"})
_settled = frozenset({"running", "returning"})


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a host uses and that ends before the host is expected back: `what` it is, when, and why."""

    what: str
    at: datetime
    why: str = ""


class HostCondition(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a host. `heard_at` is when it joined, of one that was never heard of since.

    `silences` are how long it was silent before, those worth remembering. `lost_at` is when it last told that it had
    dropped telemetry. Why it is in `quarantine`, if it is.
    """

    name: str
    heard_at: datetime
    observed_at: datetime | None = None
    observed: Observed | None = None
    silences: tuple[timedelta, ...] = ()
    endings: tuple[Ending, ...] = ()
    lost_at: datetime | None = None
    quarantine: str = ""


class SiteCondition(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a site. `wanted` is the release that is assigned of each application.

    It is `carried` when it is reached by bundles alone, and `held` when nothing is issued to it.
    """

    tolerance: timedelta
    hosts: tuple[HostCondition, ...] = ()
    wanted: Mapping[str, str] = {}
    carried: bool = False
    held: bool = False


def decide_health(site: SiteCondition, *, now: datetime) -> HealthView:
    """Return how a site is, and why."""
    reasons = sorted(
        _reasons(site, now), key=lambda one: (-_ranks[one.word], one.host, one.application, one.code)
    )
    return HealthView(
        word=reasons[0].word if reasons else "ok",
        reasons=tuple(reasons[:MAX_REASONS]),
        left_out=max(0, len(reasons) - MAX_REASONS),
        as_of=max((host.heard_at for host in site.hosts), default=None),
    )


def is_worse(word: HealthWord, than: HealthWord) -> bool:
    """Tell whether a word is worse than another."""
    return _ranks[word] > _ranks[than]


def usual_silence(silences: Sequence[timedelta], tolerance: timedelta) -> timedelta:
    """Return how long a host may be silent before that is unusual.

    It is the longest silence that was reached twice: one alone is an incident and no pattern.
    """
    second = sorted(silences)[-2] if len(silences) > 1 else timedelta()
    return max(second, tolerance)


def _reasons(site: SiteCondition, now: datetime) -> Iterator[HealthReason]:
    if not site.hosts:
        yield HealthReason(code="site.empty", word="expected-silent", message="no host has joined")
    else:
        yield from _silence(site, now)
    if site.held:
        message = "held: its hosts know more than this hub, and nothing is issued to it"
        yield HealthReason(code="site.held", word="degraded", message=message)
    for host in site.hosts:
        if host.quarantine:
            message = f"in quarantine: {host.quarantine}"
            yield _of(host, "host.quarantined", "failing", message, at=host.heard_at)
        yield from _observed(site, host, now)
        yield from _endings(host, now)
        if host.lost_at is not None and now - host.lost_at < RECENT:
            message = "dropped telemetry for want of room"
            yield _of(host, "telemetry.dropped", "degraded", message, at=host.lost_at)


def _silence(site: SiteCondition, now: datetime) -> Iterator[HealthReason]:
    newest = max(host.heard_at for host in site.hosts)
    usual = max(usual_silence(host.silences, site.tolerance) for host in site.hosts)
    away = now - newest
    told = f"silent for {_told(away)}"
    if site.carried:
        if away > min(site.tolerance, LINKED):
            message = f"{told}; it is reached by bundles"
            yield HealthReason(code="site.carried", word="expected-silent", message=message, as_of=newest)
        return
    told = f"{told}; up to {_told(usual)} is usual there"
    if away > usual:
        yield HealthReason(code="site.silent", word="silent", message=told, as_of=newest)
        return
    if away > min(site.tolerance, LINKED):
        yield HealthReason(code="site.expected_silent", word="expected-silent", message=told, as_of=newest)
    for host in site.hosts:
        away, usual = now - host.heard_at, usual_silence(host.silences, site.tolerance)
        if away > usual:
            message = f"silent for {_told(away)}; up to {_told(usual)} is usual of it"
            yield _of(host, "host.silent", "degraded", message, at=host.heard_at)


def _observed(site: SiteCondition, host: HostCondition, now: datetime) -> Iterator[HealthReason]:
    observed, at = host.observed, host.observed_at
    if observed is None:
        return
    for name, view in sorted(observed.applications.items()):
        for reason in _application(name, view, site.wanted.get(name, "")):
            yield msgspec.structs.replace(reason, host=host.name, as_of=at)
    for name, binding in sorted(observed.bindings.items()):
        if binding.state == "absent" and binding.used_by:
            used = ", ".join(binding.used_by)
            yield _of(host, "binding.absent", "degraded", f"{name} is not there, used by {used}", at=at)
    for route in observed.routes:
        if route.state == "refused":
            message = f"route {route.route} is refused: {route.why}"
            reason = _of(host, "route.refused", "degraded", message, at=at)
            yield msgspec.structs.replace(reason, application=route.application)
    if observed.bus is not None and observed.bus.trouble:
        yield _of(host, "bus.trouble", "degraded", f"message bus: {observed.bus.trouble}", at=at)
    if observed.pki.trouble:
        yield _of(host, "pki.trouble", "degraded", f"certificates: {observed.pki.trouble}", at=at)
    expires_at = observed.metadata.expires_at
    if expires_at is not None and expires_at <= now:
        message = "its signed metadata has expired, so that it takes nothing new"
        yield _of(host, "metadata.expired", "degraded", message, at=at)


def _application(name: str, view: ApplicationView, wanted: str) -> Iterator[HealthReason]:
    """Say what is wrong with an application. What is on trial is judged by its host, which goes back by itself."""
    ill = [
        f"{component} is {seen.state}" + (f" ({seen.message})" if seen.message else "")
        for component, seen in sorted(view.components.items())
        if seen.state in _unhealthy
    ]
    if view.phase in ("stopping", "standing-by"):
        ill = []
    if view.phase == "stopped":
        yield _app(name, "app.stopped", "failing", f"{name} does not run: {view.why or 'refused here'}")
    elif ill:
        # A component of the release on trial fails the trial; one of the release that is kept fails the application.
        on_trial = view.phase in ("starting", "soaking") and bool(view.release)
        yield _app(name, "app.unhealthy", "degraded" if on_trial else "failing", f"{name}: {'; '.join(ill)}")
    elif view.phase == "returning":
        yield _app(
            name, "app.returning", "degraded", f"{name} is being started again: {view.why}".rstrip(": ")
        )
    if view.phase in _settled and not view.candidate and view.refused and _differs(view.release, wanted):
        reason = next(reversed(view.refused.values()))
        message = f"{wanted} was refused, {view.release} goes on: {reason}"
        yield _app(name, "release.refused", "degraded", message)
    for variant, reason in sorted(view.failed_variants.items()):
        yield _app(name, "variant.failed", "degraded", f"variant {variant} failed its self-test: {reason}")


def _endings(host: HostCondition, now: datetime) -> Iterator[HealthReason]:
    for ending in host.endings:
        why = f"; {ending.why}" if ending.why else ""
        if ending.at <= now:
            message = f"{ending.what} has ended, as far as is known{why}"
            yield _of(host, "ending.passed", "failing", message, at=host.observed_at)
        else:
            message = f"{ending.what} ends in {_told(ending.at - now)}, before the host is expected back{why}"
            yield _of(host, "ending.near", "degraded", message, at=host.observed_at)


def _differs(runs: str, wanted: str) -> bool:
    if not wanted:
        return False
    revisions = revision_of(runs), revision_of(wanted)
    return plain_release(runs) != plain_release(wanted) or (all(revisions) and revisions[0] != revisions[1])


def _told(span: timedelta) -> str:
    return format_duration(max(0, round(span.total_seconds())))


def _of(
    host: HostCondition, code: str, word: HealthWord, message: str, *, at: datetime | None
) -> HealthReason:
    return HealthReason(code=code, word=word, message=message, host=host.name, as_of=at)


def _app(name: str, code: str, word: HealthWord, message: str) -> HealthReason:
    return HealthReason(code=code, word=word, message=message, application=name)
