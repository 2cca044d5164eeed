"""What a release would come to on a whole fleet: who gets which variants, who gets none and why, where room lacks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from skerry.matching.answering import Previewer, PreviewHost
from skerry.matching.capacity import room_of
from skerry.spec.api import (
    FleetPreview,
    PreviewCombination,
    PreviewReason,
    PreviewRoom,
    PreviewShortfall,
)
from skerry.spec.release import Release

__all__ = ["PreviewHost", "preview_fleet"]

MAX_EXAMPLES = 5
MAX_SHORTFALLS = 20


def preview_fleet(release: Release, hosts: Mapping[str, PreviewHost]) -> FleetPreview:
    """Return what a release would come to on these hosts."""
    previewer = Previewer(release)
    tally = _Tally(previewer)
    for name, host in hosts.items():
        tally.count(name, host)
    return tally.preview(release.name)


class _Tally:
    """Counts the answers of hosts."""

    def __init__(self, previewer: Previewer) -> None:
        self._previewer = previewer
        self._sites: set[str] = set()
        self._hosts = self._unmatched = self._elsewhere = 0
        self._without: list[str] = []
        self._chosen: dict[tuple[int, ...], list[str]] = {}
        self._reasons: dict[str, list[str]] = {}
        self._elsewhere_reasons: dict[str, list[str]] = {}
        self._disk, self._memory = _Shortfalls(), _Shortfalls()
        self._oldest: datetime | None = None

    def count(self, name: str, host: PreviewHost) -> None:
        """Add one host."""
        self._hosts += 1
        self._sites.add(host.site)
        if not host.facts:
            self._without.append(name)
            return
        if host.as_of is not None and (self._oldest is None or host.as_of < self._oldest):
            self._oldest = host.as_of
        answer = self._previewer.answer(host)
        if answer.reasons:
            groups = self._elsewhere_reasons if answer.elsewhere else self._reasons
            self._elsewhere += answer.elsewhere
            self._unmatched += not answer.elsewhere
            for reason in answer.reasons:
                groups.setdefault(reason, []).append(name)
            return
        self._chosen.setdefault(answer.chosen, []).append(name)
        room, need = room_of(host.facts), self._previewer.need
        _, missing = self._previewer.missing_bytes(answer.chosen, host.holds)
        self._disk.note(name, host, missing, room.disk_bytes)
        left = None if room.memory_bytes is None else room.memory_bytes - host.reserved.memory_bytes
        self._memory.note(name, host, need.memory_bytes, left)

    def preview(self, release: str) -> FleetPreview:
        """Return what was counted."""
        combinations = [self._combination(chosen, names) for chosen, names in self._chosen.items()]
        return FleetPreview(
            release=release,
            sites=len(self._sites),
            hosts=self._hosts,
            matched=sum(map(len, self._chosen.values())),
            unmatched=self._unmatched,
            elsewhere=self._elsewhere,
            without_facts=len(self._without),
            combinations=tuple(
                sorted(
                    combinations, key=lambda c: (-c.hosts, sorted(c.models.items()), sorted(c.images.items()))
                )
            ),
            reasons=_reasons(self._reasons),
            elsewhere_reasons=_reasons(self._elsewhere_reasons),
            without_facts_examples=_examples(self._without),
            disk=self._disk.room(),
            memory=self._memory.room(),
            oldest_facts_at=self._oldest,
        )

    def _combination(self, chosen: tuple[int, ...], names: list[str]) -> PreviewCombination:
        slots = self._previewer.asked.slots
        pairs = [(slot, slot.candidates[n].name) for slot, n in zip(slots, chosen, strict=True)]
        return PreviewCombination(
            models={f"{slot.name} {slot.version}": name for slot, name in pairs if slot.kind == "model"},
            images={slot.name: name for slot, name in pairs if slot.kind == "image"},
            hosts=len(names),
            examples=_examples(names),
            size_bytes=self._previewer.missing_bytes(chosen, frozenset())[0],
        )


class _Shortfalls:
    """Hosts that lack one kind of room, the worst of them at hand."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, PreviewHost, int, int]] = []
        self._unknown = 0

    def note(self, name: str, host: PreviewHost, needed: int, left: int | None) -> None:
        if left is None:
            self._unknown += needed > 0
        elif needed > left and needed:
            self._found.append((left - needed, name, host, needed, left))

    def room(self) -> PreviewRoom:
        worst = sorted(self._found, key=lambda found: found[:2])[:MAX_SHORTFALLS]
        return PreviewRoom(
            lacking=len(self._found),
            worst=tuple(
                PreviewShortfall(
                    host=name, site=host.site, needed_bytes=needed, left_bytes=max(left, 0), as_of=host.as_of
                )
                for _, name, host, needed, left in worst
            ),
            unknown=self._unknown,
        )


def _reasons(groups: Mapping[str, list[str]]) -> tuple[PreviewReason, ...]:
    found = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return tuple(PreviewReason(reason=r, hosts=len(names), examples=_examples(names)) for r, names in found)


def _examples(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names)[:MAX_EXAMPLES])
