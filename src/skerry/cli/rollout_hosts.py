"""What each host of a rollout would run and why: which variants fit it, and where it is placed.

The same functions choose here as on hosts, by the facts that they last reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.cli.text import age, plural
from skerry.cli.wave_preview import WaveMembers
from skerry.client.client import Client
from skerry.matching.placement import Placed, SiteState, place_application
from skerry.matching.releases import match_release
from skerry.spec.api import HostView, SiteView
from skerry.spec.desired import SitePlacement, SitePolicy
from skerry.spec.release import Release


class HostChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a host would run: variants by what they are of. Without `fits`, `why` says what speaks against it.

    `part` is what becomes of the host where the release is placed. `as_of` is when the hub heard its facts.
    """

    host: str
    site: str
    wave: str
    fits: bool
    part: str = ""
    variants: Mapping[str, str] = {}
    why: tuple[str, ...] = ()
    as_of: datetime | None = None


def host_choices(
    client: Client, release: str, sites: Sequence[SiteView], waves: Sequence[WaveMembers]
) -> Iterator[HostChoice]:
    """Yield every host of these sites, by wave, site and name.

    Raises:
        msgspec.ValidationError: the hub knows fields of releases that this client does not.
    """
    document = msgspec.convert(client.release(release).document, type=Release)
    by_name = {site.name: site for site in sites}
    hosts: dict[str, list[HostView]] = {}
    for host in client.hosts(sites[0].name if len(sites) == 1 else ""):
        hosts.setdefault(host.site, []).append(host)
    for wave in waves:
        for name in wave.members:
            issued = _issued(client, name, document)
            there = sorted(hosts.get(name, ()), key=lambda host: host.name)
            yield from _of_site(document, by_name[name], there, issued, wave.name)


def host_lines(hosts: Sequence[HostChoice], limit: int, *, at: datetime) -> Iterator[str]:
    """Yield what each host would run and why, for people; the hosts of so many sites, 0 for all."""
    sites = list(dict.fromkeys(host.site for host in hosts))
    shown = set(sites[: limit or None])
    yield "Host by host:" if hosts else "No host is there yet."
    for host in hosts:
        if host.site in shown:
            told = ", ".join(f"{of}: {variant}" for of, variant in host.variants.items())
            what = (told or "runs it, with no variants to choose from") if host.fits else "gets nothing"
            part = f"; {host.part}" if host.part else ""
            yield f"  {host.host} ({host.site}, {host.wave}, facts of {age(host.as_of, at)}): {what}{part}"
            yield from (f"    {line}" for line in host.why)
    if len(sites) > len(shown):
        yield f"and the hosts of {plural(len(sites) - len(shown), 'site')} more"


def _issued(client: Client, site: str, release: Release) -> SitePlacement | None:
    """Return where the application is placed there now: hosts that have a place keep it."""
    if release.application.spec.placement.mode == "each":
        return None
    name = release.application.metadata.name
    return next((view.issued for view in client.placements(site) if view.application == name), None)


def _of_site(
    release: Release, site: SiteView, hosts: Sequence[HostView], issued: SitePlacement | None, wave: str
) -> Iterator[HostChoice]:
    policy = SitePolicy(host_network=bool(site.document.get("spec", {}).get("host_network", False)))
    application = release.application.metadata.name
    failed = {
        host.name: host.applications[application].failed_variants
        for host in hosts
        if application in host.applications
    }
    parts: Mapping[str, str] = {}
    if release.application.spec.placement.mode != "each":
        state = SiteState(hosts={host.name: host.facts for host in hosts}, policy=policy, failed=failed)
        placed = place_application(release, state, previous=issued)
        parts = placed.why if isinstance(placed, Placed) else {}
    for host in hosts:
        known = HostChoice(
            host=host.name,
            site=site.name,
            wave=wave,
            fits=False,
            as_of=host.last_seen_at,
        )
        if not host.facts:
            yield msgspec.structs.replace(known, why=("it has not reported its facts yet",))
            continue
        match = match_release(release, host.facts, policy=policy, failed=failed.get(host.name, {}))
        if match.reasons:
            yield msgspec.structs.replace(known, why=match.reasons)
            continue
        variants = {
            f"model {choice.model} {choice.version}"
            if choice.kind == "model"
            else f"image of {choice.model}": choice.variant
            for choice in match.choices
        }
        why = tuple(reason for choice in match.choices for reason in choice.why)
        part = parts.get(host.name, "")
        yield msgspec.structs.replace(
            known, fits=True, part=part, variants=variants, why=(*why, *match.notes)
        )
