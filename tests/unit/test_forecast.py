"""What runs out before its host is heard of again: by what is held there, and by how long it is usually silent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.api.app import API_PATH
from skerry.ports.hub_store import AppliedReport
from skerry.ports.presence import MAX_SILENCES
from skerry.spec.pki import HostPki
from skerry.spec.report import Observed
from skerry.trust.forecast import Life, expect_contact, find_end
from tests.unit.test_hub_backend import Harbour
from tests.unit.test_hub_backend import harbour as harbour  # noqa: PLC0414 - a fixture
from tests.unit.test_hub_secrets import Vaulted

pytestmark = pytest.mark.secrets

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def expected(away: timedelta, *silences: timedelta, tolerance: timedelta = HOUR) -> tuple[timedelta, str]:
    found = expect_contact(NOW - away, silences, tolerance=tolerance, now=NOW)
    return found.by - NOW, found.why


def test_a_host_is_expected_back_after_its_longest_silence_or_its_site_s_tolerance() -> None:
    assert expected(timedelta()) == (HOUR, "it is heard of; its site's offline tolerance is 1h")
    assert expected(timedelta(), 2 * DAY, 5 * DAY, DAY)[0] == 5 * DAY
    assert expected(DAY, 5 * DAY) == (4 * DAY, "silent for 1d; its longest silence is 5d")
    assert expected(9 * DAY, 5 * DAY) == (
        5 * DAY,
        "silent for 9d, longer than expected; its longest silence is 5d",
    )
    assert expected(DAY, HOUR, tolerance=3 * DAY)[0] == 3 * DAY, "a short silence is ordinary"


def life(version: int, begins: float | None = None, ends: float | None = None) -> Life:
    return Life(
        version=version,
        begins_at=None if begins is None else NOW + begins * DAY,
        ends_at=None if ends is None else NOW + ends * DAY,
    )


def test_what_lasts_or_is_followed_by_what_is_held_does_not_run_out() -> None:
    until = NOW + 30 * DAY
    assert find_end(life(1), (), (), until=until) is None
    assert find_end(life(1, ends=31), (), (), until=until) is None
    assert find_end(life(1, ends=10), (life(2, 5),), (), until=until) is None
    assert find_end(life(1, ends=10), (life(2, 5, 20), life(3, 15)), (), until=until) is None


@pytest.mark.rule("SECRET-7")
@pytest.mark.parametrize(
    ("held", "prepared", "day", "why"),
    (
        ((), (), 10, "no later version is prepared"),
        ((), (life(1, ends=10),), 10, "no later version is prepared"),
        ((), (life(2, 5),), 10, "version 2 has not reached the host, as far as it has told"),
        ((), (life(2, 11),), 10, "version 2 begins only at 2026-03-12 00:00 UTC"),
        ((life(2, 11),), (life(2, 11),), 10, "version 2 begins only at 2026-03-12 00:00 UTC"),
        ((life(2, 5, 20),), (life(2, 5, 20),), 20, "no later version is prepared"),
        ((life(2, 5, 9),), (), 10, "no later version is prepared"),
    ),
)
def test_what_is_followed_by_nothing_in_time_runs_out_and_is_told_why(
    held: tuple[Life, ...], prepared: tuple[Life, ...], day: int, why: str
) -> None:
    found = find_end(life(1, ends=10), held, prepared, until=NOW + 30 * DAY)
    assert found is not None
    assert (found.at, found.why) == (NOW + day * DAY, why)


@pytest.mark.rule("SECRET-7")
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 60)).map(lambda t: (t[0], t[0] + t[1])), max_size=8
    ),
    st.integers(1, 60),
)
def test_a_host_of_which_nothing_is_said_has_a_value_at_every_moment(
    spans: list[tuple[int, int]], until: int
) -> None:
    held = [life(number + 2, begins, ends) for number, (begins, ends) in enumerate(spans)]
    found = find_end(life(1, ends=10), held, held, until=NOW + until * DAY)
    all_lives = [life(1, -1, 10), *held]
    last = until if found is None else (found.at - NOW).days - 1
    for day in range(last):
        moment = NOW + day * DAY
        assert any(
            (one.begins_at is None or one.begins_at <= moment) and one.ends_at and moment < one.ends_at
            for one in all_lives
        )
    if found is not None:
        assert found.at <= NOW + until * DAY


# ── the hub ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Vaulted]:
    made = Vaulted(tmp_path)
    yield made
    made.hub.store.close()


def tells(world: Vaulted, sequence: int, **observed: Any) -> None:
    """Let the host at the harbour tell what it holds."""
    now = world.clock.now()
    report = AppliedReport(
        host="edge-1",
        site="harbour",
        sequence=sequence,
        seen_at=now,
        sent_at=now,
        generation=1,
        clock_offset_s=0.0,
        observed=Observed(generation=1, **observed),
    )
    world.hub.store.apply_reports([report])


async def foreseen(world: Vaulted, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await world.ask("operator", f"{API_PATH}/forecast{query}")).json()
    return found


@pytest.mark.rule("SECRET-7")
async def test_an_operator_is_told_what_no_host_has_a_later_version_of_until_it_has_told_of_one(
    world: Vaulted,
) -> None:
    now = world.clock.now()
    await world.set(expires_at=(now + 10 * DAY).isoformat())
    assert await foreseen(world, "?within_s=9999999") == [], "nobody has it yet"
    tells(world, 2, secrets={"db-password": 1})
    assert await foreseen(world) == [], "the site is expected back long before"
    (one,) = await foreseen(world, f"?within_s={20 * 86400}&site=harbour")
    assert (one["site"], one["host"], one["kind"], one["name"]) == (
        "harbour",
        "edge-1",
        "secret",
        "db-password",
    )
    assert one["why"][0] == "no later version is prepared"
    await world.set("next", not_before=(now + 5 * DAY).isoformat())
    await world.issued()
    (one,) = await foreseen(world, f"?within_s={20 * 86400}")
    assert one["why"][0] == "version 2 has not reached the host, as far as it has told"
    tells(world, 3, secrets={"db-password": 1}, secrets_next={"db-password": (2,)})
    assert await foreseen(world, f"?within_s={20 * 86400}") == []
    assert await foreseen(world, "?site=pier&within_s=9999999") == []
    answer = await world.ask("operator", f"{API_PATH}/forecast?site=nowhere")
    assert answer.status_code == 404
    assert (await world.ask("operator", f"{API_PATH}/forecast?within_s=-1")).status_code == 400


async def test_a_host_that_was_away_for_long_is_expected_to_be_again_and_its_certificate_counts_as_well(
    world: Vaulted,
) -> None:
    now = world.clock.now()
    tells(world, 2, pki=HostPki(serial="aa", not_after=now + 20 * DAY))
    assert await foreseen(world) == []
    world.hub.store.note_silence("edge-1", now - 40 * DAY, now - 10 * DAY)
    (one,) = await foreseen(world)
    assert (one["kind"], one["name"], one.get("version")) == ("certificate", "intermediate", None)
    assert one["why"][1] == "it is heard of; its longest silence is 30d"


# ── what is remembered ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ("memory", "file"))
def test_silences_are_kept_once_and_the_newest_of_each_host(tmp_path: Path, place: str) -> None:
    store = SqlHubStore.open(None if place == "memory" else tmp_path / "hub.db")
    assert store.silences() == {}
    for number in range(MAX_SILENCES + 5):
        begun = NOW + number * DAY
        for _ in range(2):
            store.note_silence("edge", begun, begun + number * HOUR)
    store.note_silence("other", NOW, NOW + HOUR)
    kept = [number * HOUR for number in range(5, MAX_SILENCES + 5)]
    assert store.silences() == {"edge": kept, "other": [HOUR]}
    store.close()


async def test_a_silence_of_an_hour_is_noted_when_it_ends_also_by_a_hub_that_has_just_begun(
    harbour: Harbour,
) -> None:
    member = await harbour.join()
    await harbour.sync(member.signed(2))
    harbour.clock.advance(1800.0)
    await harbour.sync(member.signed(3))
    assert harbour.store.silences() == {}
    harbour.clock.advance(2 * 86400.0)
    await harbour.sync(member.signed(4))
    assert harbour.store.silences() == {"edge": [2 * DAY]}
    harbour.clock.advance(7200.0)
    harbour.store.note_seen({"edge": harbour.clock.now()})
    await harbour.sync(member.signed(5))
    assert harbour.store.silences() == {"edge": [2 * DAY]}, "another replica has seen it meanwhile"
    harbour.clock.advance(3600.0)
    harbour.hub.backend.hearing.forget("edge")
    await harbour.sync(member.signed(6))
    assert harbour.store.silences() == {"edge": [2 * DAY, HOUR]}
