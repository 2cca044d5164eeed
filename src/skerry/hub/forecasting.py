"""Foresees what will run out: gathers what hosts hold and when they were silent, and asks `skerry.trust.forecast`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.hub.secret_keeping import SecretKeeper
from skerry.kit.quantities import parse_duration
from skerry.ports.hub_store import HostRecord, HubStore, SiteRecord
from skerry.ports.secrets import SecretRecord
from skerry.spec.api_forecast import ForecastView
from skerry.spec.report import Observed
from skerry.spec.site import Site
from skerry.trust.forecast import Expected, Life, RunsOut, expect_contact, find_end

INTERMEDIATE = "intermediate"
"""The name of the certificate that a host issues others with: without it, the site's others run out as well."""


def foresee(
    store: HubStore,
    keeper: SecretKeeper,
    hosts: Sequence[HostRecord],
    *,
    within: timedelta,
    now: datetime,
) -> list[ForecastView]:
    """Return what will run out at these hosts before they are expected back, or `within` that time.

    What ends first comes first. A host that has never been heard of holds nothing that could run out.
    """
    sites = {site.name: site for site in store.sites()}
    silences = store.silences()
    found: list[ForecastView] = []
    for host in hosts:
        site = sites.get(host.site)
        if site is None or host.last_seen_at is None or host.observed is None:
            continue
        tolerance = msgspec.json.decode(site.document, type=Site).spec.offline_tolerance
        expected = expect_contact(
            host.last_seen_at,
            silences.get(host.name, ()),
            tolerance=timedelta(seconds=parse_duration(tolerance)),
            now=now,
        )
        until = max(expected.by, now + within)
        found += _of_secrets(keeper, site, host, host.observed, expected=expected, until=until)
        found += _of_certificate(host, host.observed, expected=expected, until=until)
    return sorted(found, key=lambda view: (view.ends_at, view.site, view.host, view.name))


def _of_secrets(
    keeper: SecretKeeper,
    site: SiteRecord,
    host: HostRecord,
    observed: Observed,
    *,
    expected: Expected,
    until: datetime,
) -> Iterator[ForecastView]:
    for name, versions in keeper.known(observed.secrets, site.name).items():
        used = _life(versions, observed.secrets[name])
        if used is None:
            continue
        held = [_life(versions, version) for version in observed.secrets_next.get(name, ())]
        prepared = [_life_of(one) for one in keeper.offer(versions, site).given]
        end = find_end(used, [life for life in held if life is not None], prepared, until=until)
        if end is not None:
            view = _view(host, end, expected)
            yield msgspec.structs.replace(view, kind="secret", name=name, version=used.version)


def _of_certificate(
    host: HostRecord, observed: Observed, *, expected: Expected, until: datetime
) -> Iterator[ForecastView]:
    ends_at = observed.pki.not_after
    if ends_at is not None and ends_at <= until:
        why = observed.pki.trouble or "it is renewed when the host is heard of"
        yield _view(host, RunsOut(ends_at, why), expected)


def _view(host: HostRecord, end: RunsOut, expected: Expected) -> ForecastView:
    assert host.last_seen_at is not None
    return ForecastView(
        site=host.site,
        host=host.name,
        kind="certificate",
        name=INTERMEDIATE,
        ends_at=end.at,
        back_by=expected.by,
        why=(end.why, expected.why),
        last_seen_at=host.last_seen_at,
        held_at=host.observed_at,
    )


def _life(versions: Sequence[SecretRecord], version: int) -> Life | None:
    found = next((one for one in versions if one.version == version), None)
    return _life_of(found) if found is not None and found.revoked_at is None else None


def _life_of(record: SecretRecord) -> Life:
    return Life(version=record.version, begins_at=record.not_before, ends_at=record.expires_at)
