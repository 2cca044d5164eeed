"""The audit as a chain: what is altered, left out, cut off or written anew is found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.canonical import encode_canonical
from skerry.spec.audit import TRIMMED, AuditEntry
from skerry.trust.chain import MAX_FLAWS, AuditCheck, ChainHead, Flaw, digest_entry, trimmed_subject

pytestmark = pytest.mark.trust

NOTHING = ChainHead()
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def chain(length: int, *, who: str = "ann", before: ChainHead = NOTHING) -> list[AuditEntry]:
    """Return entries that follow on a head."""
    entries: list[AuditEntry] = []
    head = before
    for number in range(head.number + 1, head.number + length + 1):
        entry = AuditEntry(
            number=number,
            at=NOW + timedelta(seconds=number),
            who=who,
            action="site.remove",
            subject=f"site:s{number}",
            previous=head.digest,
        )
        entries.append(entry)
        head = ChainHead(number, digest_entry(entry))
    return entries


def head_of(entries: Sequence[AuditEntry]) -> ChainHead:
    return ChainHead(entries[-1].number, digest_entry(entries[-1])) if entries else ChainHead()


def flaws(
    entries: Sequence[AuditEntry], told: ChainHead | None = None, *anchors: ChainHead
) -> tuple[Flaw, ...]:
    check = AuditCheck(head_of(entries) if told is None else told, anchors)
    check.add(entries[: len(entries) // 2])
    check.add(entries[len(entries) // 2 :])
    return check.conclude()


def codes(
    entries: Sequence[AuditEntry], told: ChainHead | None = None, *anchors: ChainHead
) -> list[tuple[str, int]]:
    return [(flaw.code, flaw.number) for flaw in flaws(entries, told, *anchors)]


def test_the_digest_of_an_entry_is_that_of_its_canonical_json() -> None:
    first, second = chain(2)
    assert encode_canonical(first) == (
        b'{"action":"site.remove","at":"2026-03-01T12:00:01.123456Z","number":1,"subject":"site:s1","who":"ann"}'
    )
    digest = "sha256:f78d30b6c92db189c2e5520afdeded8ce7bb7ddfbd7b75b7b827772f53c402de"
    assert (digest_entry(first), first.previous, second.previous) == (digest, "", digest)


@given(st.integers(0, 8), st.data())
def test_a_whole_chain_has_no_flaw_and_every_head_of_it_is_an_anchor(
    length: int, data: st.DataObject
) -> None:
    entries = chain(length)
    heads = [head_of(entries[:count]) for count in range(length + 1)]
    anchors = data.draw(st.lists(st.sampled_from(heads), max_size=3))
    assert flaws(entries, None, *anchors) == ()


@pytest.mark.rule("AUDIT-1")
@given(st.integers(1, 8), st.data())
def test_an_entry_that_is_altered_left_out_put_in_or_moved_is_found(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    at = data.draw(st.integers(0, length - 1))
    how = data.draw(st.sampled_from(("who", "at", "why", "drop", "twice", "swap")))
    changed = list(entries)
    if how == "who":
        changed[at] = msgspec.structs.replace(entries[at], who="bob")
    elif how == "at":
        changed[at] = msgspec.structs.replace(entries[at], at=entries[at].at + timedelta(microseconds=1))
    elif how == "why":
        changed[at] = msgspec.structs.replace(entries[at], why="because")
    elif how == "drop":
        del changed[at]
    elif how == "twice":
        changed.insert(at, entries[at])
    else:
        other = data.draw(st.integers(0, length - 1))
        changed[at], changed[other] = changed[other], changed[at]
    if changed != entries:
        assert flaws(changed, head_of(entries))


@pytest.mark.rule("AUDIT-2")
@given(st.integers(2, 8), st.data())
def test_what_is_cut_off_or_written_anew_is_found_with_an_anchor_alone(
    length: int, data: st.DataObject
) -> None:
    entries = chain(length)
    kept = data.draw(st.integers(1, length))
    anchor = head_of(entries[:kept])
    cut = entries[: data.draw(st.integers(0, kept - 1))]
    assert codes(cut) == [], "its own head is of no help"
    assert codes(cut, None, anchor) == [("truncated", kept)]
    begun = data.draw(st.integers(0, kept - 1))
    anew = entries[:begun] + chain(length - begun, who="bob", before=head_of(entries[:begun]))
    assert codes(anew) == []
    assert codes(anew, None, anchor) == [("rewritten", kept)]


@pytest.mark.rule("AUDIT-3")
def test_what_was_forgotten_is_told_by_the_chain_itself() -> None:
    entries = chain(6)
    gone = head_of(entries[:3])
    assert codes(entries[3:]) == [("cut", 4)]
    said = AuditEntry(
        number=7,
        at=NOW,
        who="hub",
        action=TRIMMED,
        subject=trimmed_subject(gone),
        previous=head_of(entries).digest,
    )
    trimmed = [*entries[3:], said]
    assert codes(trimmed) == []
    assert codes(trimmed, None, gone, head_of(entries[:5])) == []
    assert codes(trimmed, None, head_of(entries[:2])) == [("out-of-reach", 2)]
    assert codes([*entries[4:], said]) == [("cut", 5)]


def test_a_hub_that_tells_of_more_than_it_hands_out_is_found_out() -> None:
    entries = chain(4)
    assert codes(entries[:3], head_of(entries)) == [("truncated", 4)]
    assert codes([], head_of(entries)) == [("truncated", 4)]
    other = ChainHead(4, digest_entry(entries[0]))
    assert codes(entries, other) == [("head", 4)]
    assert codes(entries, head_of(entries[:2])) == [], "some were added meanwhile"


def test_flaws_are_bounded() -> None:
    entries = [msgspec.structs.replace(one, previous="") for one in chain(MAX_FLAWS + 50)]
    assert len(flaws(entries)) == MAX_FLAWS
