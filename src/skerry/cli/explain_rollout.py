"""Why a rollout, a wave or a site of it stands where it does, in sentences: first the answer, then the facts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from skerry.cli.rollout_picture import count_sites, spec_of_view, wave_note
from skerry.cli.text import age, plural
from skerry.kit.errors import Missing
from skerry.rollout.facts import WavePlan
from skerry.rollout.reading import read_waves
from skerry.spec.api import RolloutView
from skerry.spec.api_rollout import SiteProgress

_meanings = {
    "pending": "has not been offered the release yet",
    "offered": "has been offered the release, but no host there has said that it knows",
    "downloading": "fetches and checks it",
    "ready": "has it ready and waits for its turn there",
    "waiting_window": "has it ready and waits for a maintenance window",
    "held": "has it ready, and somebody there holds updates",
    "applying": "is at work on it",
    "soaking": "tries it",
    "succeeded": "runs it for good",
    "failed": "refused it and went back",
    "rolled_back": "went back to what it had, as it was told to",
    "unreachable": "has not been heard of for longer than its tolerance",
    "superseded": "is no longer this rollout's business",
}


def only_site(view: RolloutView, site: str) -> RolloutView:
    """Return a rollout with one of its sites alone; with all of them where none is named.

    Raises:
        Missing: the rollout does not concern the site.
    """
    if not site:
        return view
    if site not in view.sites:
        hint = "its selector is " + str(view.document.get("spec", {}).get("sites", ""))
        raise Missing("site.not_in_rollout", f"rollout {view.name} does not concern site {site}", hint=hint)
    return msgspec.structs.replace(view, sites={site: view.sites[site]})


def rollout_sentences(view: RolloutView, site: str, *, at: datetime) -> Iterator[str]:
    """Yield why a rollout, or one site of it, stands where it does.

    Raises:
        Missing: the rollout does not concern the site.
    """
    if site:
        progress = only_site(view, site).sites[site]
        yield _site_sentence(view, site, progress, at)
        yield f"Rollout {view.name} is {view.state}: {view.why}."
        if 0 <= progress.wave < len(view.waves):
            yield _wave_sentence(view, progress.wave, at)
        return
    ended = f", ended {age(view.ended_at, at)}" if view.ended_at else ""
    started = f"started {age(view.created_at, at)} by {view.created_by}{ended}"
    yield f"Rollout {view.name} brings {view.release} to {plural(len(view.sites), 'site')}; it was {started}."
    yield f"It is {view.state}: {view.why}."
    for number in range(len(view.waves)):
        yield _wave_sentence(view, number, at)
    for name, progress in sorted(view.sites.items()):
        yield _site_sentence(view, name, progress, at)


def why_pending(view: RolloutView, progress: SiteProgress, at: datetime) -> str:
    """Return why a site has not been offered the release yet: what is waited for before it is its turn."""
    control = view.control
    if control and control.paused:
        return f"the rollout is paused: {control.paused}"
    if view.halt:
        return f"the rollout is halted: {view.halt.why}"
    number = next((n for n, wave in enumerate(view.waves) if wave.state != "passed"), None)
    if view.state != "running" or (progress.wave < 0 and number is None):
        return f"the rollout is {view.state}: {view.why}"
    if progress.wave < 0 and number is not None:
        return f"no wave has drawn it, and wave {_wave_text(view, number, at)}"
    plan = _plan(view, progress.wave)
    name = view.waves[progress.wave].name if progress.wave < len(view.waves) else ""
    counts = count_sites(view.sites, progress.wave)
    if plan and counts.at_work >= (most := max(1, plan.max_in_flight.of(counts.members))):
        return f"it is in wave {name}, of which {counts.at_work} are at work and no more than {most} may be"
    if plan and plan.group:
        return f"it is in wave {name}, and of its group ({plan.group}) as many are at work as may be"
    return f"it is in wave {name}: {view.why}"


def _site_sentence(view: RolloutView, name: str, progress: SiteProgress, at: datetime) -> str:
    before = f" Before, it ran {progress.previous}." if progress.previous else ""
    as_of = f" (as of {age(progress.as_of, at)})" if progress.as_of else ""
    why = (
        f"{progress.why}: {why_pending(view, progress, at)}" if progress.state == "pending" else progress.why
    )
    return f"{name} {_meanings[progress.state]}{as_of}: {why}.{before}"


def _wave_sentence(view: RolloutView, number: int, at: datetime) -> str:
    return f"Wave {_wave_text(view, number, at)}."


def _wave_text(view: RolloutView, number: int, at: datetime) -> str:
    wave = view.waves[number]
    note = wave_note(view, number, _plan(view, number), at)
    return f"{wave.name} ({plural(wave.members, 'site')}) is {wave.state}" + (f": {note}" if note else "")


def _plan(view: RolloutView, number: int) -> WavePlan | None:
    spec = spec_of_view(view.document)
    plans = read_waves(spec) if spec else ()
    return plans[number] if number < len(plans) else None
