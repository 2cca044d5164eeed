"""Tells what bringing a release takes: against another release, and over the links of selected sites."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from skerry.delivery.budget import BudgetState, forecast_arrival, own_share, site_policy
from skerry.delivery.costs import Cost, FileCost, Pair, Sizes, cost_files, pairs_of, sum_costs
from skerry.delivery.relatives import Base, PlacedFile, find_bases, place_files
from skerry.delivery.release_diff import (
    ChangedFile,
    diff_fields,
    diff_files,
    own_files,
    wanted_pairs,
)
from skerry.hub.previewing import Previewing
from skerry.hub.services import Hub
from skerry.kit.errors import Missing
from skerry.matching.answering import Answer, Previewer, PreviewHost
from skerry.matching.selector import Selector, parse_selector
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.spec.api_delivery import (
    DeltaOrder,
    DeltaOrdered,
    FieldChange,
    FileChange,
    FileDelivery,
    HostDelivery,
    ReleaseDiff,
    SiteTraffic,
    TrafficPreview,
    VariantCost,
)
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.spec.site import Site


async def diff_releases(hub: Hub, old: str, new: str) -> ReleaseDiff:
    """Return what changed between two releases and what the changed files cost, by the deltas there are."""
    before, after = await asyncio.to_thread(
        lambda: (load_release(hub.store, old), load_release(hub.store, new))
    )
    owned = own_files(before, after)
    pairs = wanted_pairs(owned)
    sizes = await hub.deltas.sizes(pairs)
    everywhere = frozenset(file.digest for one in owned for file in one.old)
    parts = [(one, *diff_files(one, everywhere, sizes)) for one in owned]
    return ReleaseDiff(
        old=old,
        new=new,
        fields=tuple(FieldChange(path=path, before=b, after=a) for path, b, a in diff_fields(before, after)),
        files=tuple(_file_change(change) for _, changed, _ in parts for change in changed),
        variants=tuple(_variant_cost(one.owner, cost) for one, _, cost in parts if one.new),
        unchanged_files=sum(
            len(one.new) - sum(change.change != "removed" for change in changed) for one, changed, _ in parts
        ),
        pending=sum(size is None for size in sizes.values()),
        left_s=hub.deltas.left_s(pairs),
    )


async def order_deltas(hub: Hub, release: str, order: DeltaOrder) -> DeltaOrdered:
    """Have the deltas made that a diff, or a preview of traffic, tells the sizes of."""
    pairs = await asyncio.to_thread(_ordered_pairs, hub, release, order)
    await hub.deltas.prepare(pairs)
    sizes = await hub.deltas.sizes(pairs)
    pending = sum(size is None for size in sizes.values())
    return DeltaOrdered(deltas=len(pairs), pending=pending, left_s=hub.deltas.left_s(pairs))


async def forecast_traffic(hub: Hub, release: str, selector: str) -> TrafficPreview:
    """Return what the sites' hosts would fetch of a release, by what they last reported and the deltas there are."""
    traffic = await asyncio.to_thread(_Traffic, hub, release, parse_selector(selector))
    pairs = traffic.pairs
    sizes = await hub.deltas.sizes(pairs)
    sites = await asyncio.to_thread(lambda: list(traffic.forecast(sizes, hub.clock.now())))
    return TrafficPreview(
        release=release,
        selector=selector,
        sites=tuple(sorted(sites, key=_slowest_first)),
        size_bytes=sum(site.size_bytes for site in sites),
        full_bytes=sum(site.full_bytes for site in sites),
        pending=sum(size is None for size in sizes.values()),
        left_s=hub.deltas.left_s(pairs),
        oldest_facts_at=traffic.oldest_facts_at,
    )


async def explain_delivery(hub: Hub, release: str, host: str) -> HostDelivery:
    """Return, file by file, how a release would come to a host."""
    record = await asyncio.to_thread(hub.store.host, host)
    if record is None:
        raise Missing("host.missing", f"there is no host {host}", hint="skerry get hosts lists them")
    traffic = await asyncio.to_thread(_Traffic, hub, release, parse_selector(f"name={record.site}"))
    sizes = await hub.deltas.sizes(traffic.pairs)
    return traffic.explain(record, sizes)


def load_release(store: HubStore, name: str) -> Release:
    """Return a release; `Missing` when there is none."""
    record = store.release(name)
    if record is None:
        raise Missing("release.missing", f"there is no release {name}", hint="skerry get releases lists them")
    return msgspec.json.decode(record.document, type=Release)


def _ordered_pairs(hub: Hub, release: str, order: DeltaOrder) -> list[Pair]:
    if order.old:
        return wanted_pairs(own_files(load_release(hub.store, order.old), load_release(hub.store, release)))
    return _Traffic(hub, release, parse_selector(order.selector)).pairs


class _Move(msgspec.Struct, frozen=True):
    """What a host goes from (a release and its choices there) and to, and what it holds beside."""

    before: str
    choices: tuple[VariantChoice, ...]
    chosen: tuple[int, ...]
    holds: frozenset[str]


class _Traffic:
    """A release on its way to selected sites; hosts with the same move are looked at once."""

    def __init__(self, hub: Hub, release: str, selector: Selector) -> None:
        self._store = hub.store
        self._release = load_release(hub.store, release)
        self._previewer = Previewer(self._release)
        application = self._release.application.metadata.name
        known = Previewing(hub.store).hosts(application, selector)
        self._reasons: dict[str, tuple[str, ...]] = {}
        self._hosts = [host for host in hub.store.hosts() if host.name in known]
        self._moves = {host.name: self._move(host, known[host.name], application) for host in self._hosts}
        self.oldest_facts_at = min((host.as_of for host in known.values() if host.as_of), default=None)

    @cached_property
    def files(self) -> dict[_Move, tuple[list[PlacedFile], list[PlacedFile]]]:
        """What each move wants, and what of the release before deltas may be made from."""
        return {move: self._files(move) for move in dict.fromkeys(self._moves.values()) if move is not None}

    @property
    def pairs(self) -> list[Pair]:
        """Every delta that could help, the most promising first."""
        by_rank = [pairs_of(wanted, held) for wanted, held in self.files.values()]
        return list(dict.fromkeys(pair for pairs in by_rank for pair in pairs))

    def forecast(self, sizes: Sizes, now: datetime) -> Iterator[SiteTraffic]:
        """Yield what each site takes."""
        costs = {
            move: sum_costs(cost_files(wanted, held, move.holds, sizes))
            for move, (wanted, held) in self.files.items()
        }
        by_site: dict[str, list[Cost]] = {}
        unmatched: dict[str, int] = {}
        for host in self._hosts:
            move = self._moves[host.name]
            by_site.setdefault(host.site, []).extend([costs[move]] if move is not None else [])
            unmatched[host.site] = unmatched.get(host.site, 0) + (move is None)
        for record in self._store.sites():
            if record.name in by_site:
                site = msgspec.json.decode(record.document, type=Site)
                yield _site_traffic(site, by_site[record.name], unmatched[record.name], now)

    def explain(self, host: HostRecord, sizes: Sizes) -> HostDelivery:
        """Return how each file would come to a host."""
        move = self._moves.get(host.name)
        if move is None:
            reasons = self._reasons.get(host.name, ("it is not known yet",))
            return HostDelivery(
                host=host.name,
                release=self._release.name,
                before="",
                files=(),
                here=0,
                size_bytes=0,
                full_bytes=0,
                reasons=reasons,
            )
        wanted, held = self.files[move]
        costs = cost_files(wanted, held, move.holds, sizes)
        bases = find_bases(wanted, held)
        total = sum_costs(costs)
        return HostDelivery(
            host=host.name,
            release=self._release.name,
            before=move.before,
            files=tuple(_file_delivery(cost, bases.get(cost.file.digest, ())) for cost in costs),
            here=len({file.digest for file in wanted}) - len(costs),
            size_bytes=total.size_bytes,
            full_bytes=total.full_bytes,
            as_of=host.observed_at,
        )

    def _move(self, host: HostRecord, known: PreviewHost, application: str) -> _Move | None:
        answer = self._previewer.answer(known) if known.facts else Answer(reasons=("no facts yet",))
        if answer.reasons:
            self._reasons[host.name] = answer.reasons
            return None
        view = host.observed.applications.get(application) if host.observed else None
        if view is None:
            return _Move("", (), answer.chosen, known.holds)
        # Why a host chose differs between hosts that chose alike.
        choices = tuple(msgspec.structs.replace(choice, why=()) for choice in view.choices)
        return _Move(view.release, choices, answer.chosen, known.holds)

    def _files(self, move: _Move) -> tuple[list[PlacedFile], list[PlacedFile]]:
        slots = zip(self._previewer.asked.slots, move.chosen, strict=True)
        choices = [
            VariantChoice(
                kind=slot.kind, model=slot.name, version=slot.version, variant=slot.candidates[number].name
            )
            for slot, number in slots
        ]
        record = self._store.release(move.before) if move.before else None
        before = msgspec.json.decode(record.document, type=Release) if record else None
        held = list(place_files(before, move.choices)) if before else []
        return list(place_files(self._release, choices)), held


def _site_traffic(site: Site, costs: list[Cost], unmatched: int, now: datetime) -> SiteTraffic:
    most = max((cost.size_bytes for cost in costs), default=0)
    duration_s, never = _duration(site, len(costs) + unmatched, most, now)
    return SiteTraffic(
        site=site.metadata.name,
        hosts=len(costs),
        size_bytes=sum(cost.size_bytes for cost in costs),
        full_bytes=sum(cost.full_bytes for cost in costs),
        pending=max((cost.pending for cost in costs), default=0),
        duration_s=duration_s,
        never=never,
        unmatched=unmatched,
    )


def _duration(site: Site, hosts: int, size: int, now: datetime) -> tuple[float | None, bool]:
    """Return how long the host with most to fetch takes, and whether that is for ever."""
    link = site_policy(site.spec, hosts=hosts).link
    if link is None or not size:
        return None, False
    zone = ZoneInfo(site.spec.time_zone)
    arrival = forecast_arrival(own_share(link), BudgetState(), now, zone, size)
    if arrival is None:
        return None, True
    return (arrival - now).total_seconds() or None, False


def _slowest_first(site: SiteTraffic) -> tuple[bool, float, int, str]:
    return not site.never, -(site.duration_s or 0.0), -site.size_bytes, site.site


def _file_change(change: ChangedFile) -> FileChange:
    cost = change.cost
    return FileChange(
        owner=change.owner,
        path=change.file.place,
        change=change.change,
        size_bytes=change.file.size_bytes,
        compressed_bytes=cost.compressed_bytes if cost else None,
        delta_bytes=cost.delta_bytes if cost else None,
        pending=cost.pending if cost else False,
    )


def _file_delivery(cost: FileCost, bases: tuple[Base, ...]) -> FileDelivery:
    ways: list[tuple[int, Literal["delta", "compressed", "full"]]] = [(cost.file.size_bytes, "full")]
    if cost.compressed_bytes is not None:
        ways.append((cost.compressed_bytes, "compressed"))
    if cost.delta_bytes is not None:
        ways.append((cost.delta_bytes, "delta"))
    way_bytes, way = min(ways, key=lambda found: found[0])
    return FileDelivery(
        owner=cost.file.group,
        path=cost.file.place,
        size_bytes=cost.file.size_bytes,
        way=way,
        way_bytes=way_bytes,
        bases=max(map(len, bases), default=0),
        compressed_bytes=cost.compressed_bytes,
        delta_bytes=cost.delta_bytes,
        pending=cost.pending,
    )


def _variant_cost(owner: str, cost: Cost) -> VariantCost:
    return VariantCost(
        owner=owner,
        files=cost.files,
        full_bytes=cost.full_bytes,
        size_bytes=cost.size_bytes,
        pending=cost.pending,
    )
