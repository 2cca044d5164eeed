"""Sites that are ahead of the hub's database, because it was restored or put back: found, held, and let go on.

- A host that holds a generation which this database never issued shows that its site knows more than the hub. From
  then on nothing is issued to that site, and nobody there is handed anything, until a person says what shall be:
  what the hosts run (`adopt`) or what the hub says (`reissue`). Either is issued above all generations seen.
- A restored hub issues above the time of its restore in seconds. So the numbers between what the backup knew and
  that time stay those of the time that was lost, also for hosts that come back much later.
- A report from before the restore may be a copy that somebody kept: it tells what happened, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.kit.errors import Conflict, Missing
from skerry.ports.clock import Clock
from skerry.ports.hub_store import (
    AssignmentRecord,
    Audit,
    HostRecord,
    HubStore,
    RecoveryRecord,
    ReleaseRecord,
    RolloutRecord,
)
from skerry.spec.report import ApplicationView, Report

_log = structlog.get_logger()

# What a host may be ahead by. A number beyond it is nonsense, and following it would use up the numbers there are.
MOST_AHEAD = 1_000_000


class Recovering:
    """What the hub knows of sites that are ahead of it. Its methods but `hold` are cheap, and usable anywhere."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._records = {record.site: record for record in store.recoveries()}
        self._holding = asyncio.Lock()
        mark = store.restored()
        self.restored_at: datetime | None = mark.restored_at if mark else None

    def held(self, site: str) -> RecoveryRecord | None:
        """Return why a site is held, None when it is not."""
        record = self._records.get(site)
        return record if record is not None and record.held_since is not None else None

    def guards(self, site: str) -> bool:
        """Tell whether a host of the site may be ahead without having said so."""
        return site in self._records

    def held_sites(self) -> list[str]:
        """Return the names of all held sites."""
        return sorted(site for site in self._records if self.held(site))

    def next_generation(self, site: str, stored: int) -> int:
        """Return the number of a site's next DesiredState."""
        record = self._records.get(site)
        return max(stored, record.base if record else 0) + 1

    def must_issue(self, site: str, stored: int) -> bool:
        """Tell whether a person has let the site go on, and what they decided has not been issued yet."""
        record = self._records.get(site)
        return record is not None and record.known == record.base > stored

    def is_lost(self, site: str, generation: int, stored: int) -> bool:
        """Tell whether a generation is one that this database did not issue."""
        return is_lost(self._records.get(site), generation, stored)

    def is_from_before(self, report: Report) -> bool:
        """Tell whether a report was made before the hub was restored."""
        return self.restored_at is not None and report.sent_at < self.restored_at

    async def look(self, report: Report, stored: int) -> None:
        """Hold the site of a report that shows it to be ahead; `stored` is the newest generation issued to it."""
        if not self.is_lost(report.site, report.generation, stored):
            return
        most = max(stored, int(self._clock.now().timestamp())) + MOST_AHEAD
        if report.generation > most:
            _log.warning("site.generation_absurd", site=report.site, host=report.host)
            return
        async with self._holding:
            await self._hold(report, stored)

    async def _hold(self, report: Report, stored: int) -> None:
        before = self._records.get(report.site)
        if before is None:
            before = RecoveryRecord(site=report.site, known=stored, base=stored)
        now = self._clock.now()
        first = before.held_since is None
        seen = max(before.seen, report.generation)
        if not first and seen == before.seen:
            return
        record = msgspec.structs.replace(
            before,
            base=max(before.base, seen),
            seen=seen,
            host=report.host if first else before.host,
            held_since=before.held_since or now,
        )
        found = f"held: it reports generation {report.generation}, known is {stored}"
        audit = Audit(
            at=now,
            who=f"host:{report.host}",
            action="site.hold",
            subject=f"site:{report.site}",
            outcome=found,
        )
        await asyncio.to_thread(self._store.put_recovery, record, audit if first else None)
        self._records[report.site] = record
        if first:
            _log.warning(
                "site.held", site=report.site, host=report.host, reported=report.generation, known=stored
            )

    async def settle(
        self, site: str, audit: Audit, *, stored: int, assign: Sequence[AssignmentRecord] | None = None
    ) -> int:
        """End the hold of a site and return the generation above which it goes on.

        Raises:
            Conflict: it is not held (`site.not_held`).
        """
        async with self._holding:
            before = self.held(site)
            if before is None:
                raise not_held(site)
            base = max(stored, before.base, before.seen)
            record = RecoveryRecord(site=site, known=base, base=base)
            await asyncio.to_thread(self._store.settle_site, record, audit, assign=assign)
            self._records[site] = record
        _log.info("site.released", site=site, action=audit.action, above=base)
        return base

    def forget(self, site: str) -> None:
        """Drop what is at hand of a removed site."""
        self._records.pop(site, None)


class Running(msgspec.Struct, frozen=True):
    """What hosts that are ahead run: by application, the release, and those of them the hub does not know.

    `untold` are hosts that have not said yet what they run under the generation they hold.
    """

    releases: dict[str, str]
    unknown: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


def is_lost(record: RecoveryRecord | None, generation: int, stored: int) -> bool:
    """Tell whether a generation is one that this database did not issue to a site."""
    if record is None:
        return generation > stored
    return generation > record.known and not record.base < generation <= stored


def find_running(
    record: RecoveryRecord, stored: int, hosts: Sequence[HostRecord], releases: Sequence[ReleaseRecord]
) -> Running:
    """Return what the hosts of a held site run that are ahead of the hub; the newest generation's word counts."""
    ahead = [host for host in hosts if is_lost(record, host.generation_held, stored)]
    told = [h for h in ahead if h.observed is not None and h.observed.generation == h.generation_held]
    names = {release.digest: release.name for release in releases}
    votes: dict[str, Counter[tuple[int, str]]] = {}
    for host in told:
        for application, view in (host.observed.applications if host.observed else {}).items():
            release = kept_release(view)
            if release:
                key = (host.generation_held, names.get(release, release))
                votes.setdefault(application, Counter())[key] += 1
    chosen = {
        application: max(counter, key=lambda key: (key[0], counter[key], key[1]))[1]
        for application, counter in sorted(votes.items())
    }
    known = {release.name for release in releases}
    return Running(
        releases=chosen,
        unknown=tuple(sorted({release for release in chosen.values() if release not in known})),
        untold=tuple(sorted({host.name for host in ahead} - {host.name for host in told})),
    )


def kept_release(view: ApplicationView) -> str:
    """Return the release a host keeps running, or the one it tries where it has no other."""
    return view.release or view.candidate


def adopted(
    site: str,
    running: Running,
    before: Sequence[AssignmentRecord],
    hosts: Sequence[HostRecord],
) -> list[AssignmentRecord]:
    """Return the assignments of a site that takes over what its hosts run.

    What is assigned and nobody there has any more is not assigned any more; a host that is not ahead counts, too.
    """
    held = {record.application: record for record in before}
    elsewhere = {name for host in hosts if host.observed for name in host.observed.applications}
    wanted = [record for name, record in held.items() if name not in running.releases and name in elsewhere]
    for application, release in running.releases.items():
        old = held.get(application)
        if old is not None and old.release == release:
            wanted.append(old)
            continue
        attempt = old.attempt + 1 if old else 1
        wanted.append(
            AssignmentRecord(site=site, application=application, release=release, rollout="", attempt=attempt)
        )
    return sorted(wanted, key=lambda record: record.application)


def left_by(rollout: RolloutRecord, site: str, why: str, now: datetime) -> RolloutRecord | None:
    """Return a running rollout without a site, where it was not done; None when nothing changes for it."""
    progress = rollout.sites.get(site)
    if progress is None or progress.state not in ("pending", "offered", "applying"):
        return None
    left = msgspec.structs.replace(progress, state="superseded", why=why, as_of=now)
    return msgspec.structs.replace(rollout, sites={**rollout.sites, site: left})


def refuse_unready(site: str, running: Running) -> None:
    """Raise when a site cannot be adopted yet.

    Raises:
        Missing: the hub lacks releases that run there (`site.unknown_releases`).
        Conflict: no host has told what it runs (`site.untold`).
    """
    if running.untold:
        message = f"{', '.join(running.untold)} of site {site} have not told yet what they run"
        hint = "a host tells it when it reaches the hub: wait until it is online"
        raise Conflict("site.untold", message, hint=hint)
    if running.unknown:
        message = f"site {site} runs what this hub does not know: {', '.join(running.unknown)}"
        hint = "push these releases again, then adopt; or `skerry site reissue` to do without them"
        raise Missing("site.unknown_releases", message, hint=hint)


def not_held(site: str) -> Conflict:
    """Return the error for a site that goes on as usual."""
    return Conflict("site.not_held", f"site {site} is not held: it goes on as usual")
