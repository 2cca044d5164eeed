"""What every HubStore keeps of deltas: one record for each pair, the newest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import DeltaRecord, HubStore
from tests.contract.hub_records import NOW

pytestmark = pytest.mark.delivery

A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))


def record(base: str, target: str, *, delta: str = C, after_s: float = 0, size_bytes: int = 7) -> DeltaRecord:
    made_at = NOW + timedelta(seconds=after_s)
    return DeltaRecord(base=base, target=target, delta=delta, size_bytes=size_bytes, made_at=made_at)


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    yield opened
    opened.close()


def test_what_is_known_comes_back_as_it_was_put_the_oldest_first(store: HubStore) -> None:
    joined = "+".join(digest_of(str(number).encode()) for number in range(8))
    records = [
        record("", B, after_s=3, size_bytes=8 << 30),
        record(A, B, after_s=1, delta=""),
        record(joined, C, after_s=2.5),
        record(A, C, after_s=0.000001),
    ]
    assert store.deltas() == []
    for one in records:
        store.put_delta(one)
    assert store.deltas() == sorted(records, key=lambda one: one.made_at)


def test_a_pair_is_known_once_and_as_it_was_put_last(store: HubStore) -> None:
    first, second = record(A, B, delta=""), record(A, B, size_bytes=9, after_s=5)
    store.put_delta(first)
    store.put_delta(record("", B))
    store.put_delta(second)
    assert store.deltas() == [record("", B), second]


def test_a_pair_is_forgotten_and_no_other_and_again_is_fine(store: HubStore) -> None:
    for base, target in ((A, B), ("", B), (A, C), (B, A)):
        store.put_delta(record(base, target))
    for _ in range(2):
        store.remove_delta(A, B)
        assert {(one.base, one.target) for one in store.deltas()} == {("", B), (A, C), (B, A)}
    store.remove_delta("", B)
    store.remove_delta("", A)
    assert {(one.base, one.target) for one in store.deltas()} == {(A, C), (B, A)}


PAIRS = st.tuples(st.sampled_from(("", A, B, f"{A}+{B}")), st.sampled_from((A, B, C)))


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.one_of(st.tuples(st.just("put"), PAIRS), st.tuples(st.just("remove"), PAIRS)), max_size=12
    )
)
def test_it_keeps_what_a_dictionary_would(steps: list[tuple[str, tuple[str, str]]]) -> None:
    store, expected = SqlHubStore.open(None), dict[tuple[str, str], DeltaRecord]()
    for number, (kind, pair) in enumerate(steps):
        if kind == "put":
            expected[pair] = record(*pair, after_s=number, size_bytes=number)
            store.put_delta(expected[pair])
        else:
            expected.pop(pair, None)
            store.remove_delta(*pair)
    assert store.deltas() == sorted(expected.values(), key=lambda one: one.made_at)
    store.close()


def test_what_was_known_is_known_after_a_restart(tmp_path: Path) -> None:
    opened = SqlHubStore.open(tmp_path / "hub.db")
    opened.put_delta(record(A, B))
    opened.put_delta(msgspec.structs.replace(record(A, C), delta=""))
    before = opened.deltas()
    opened.close()
    again = SqlHubStore.open(tmp_path / "hub.db")
    assert again.deltas() == before
    again.close()
