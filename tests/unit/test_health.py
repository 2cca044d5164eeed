"""How a site is, in one word: never better for more trouble or a longer silence, and the same to everybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.hub.api.app import API_PATH
from skerry.ports.hub_store import AppliedReport
from skerry.spec.api_health import MAX_REASONS, HealthWord
from skerry.spec.binding import BindingView
from skerry.spec.ingress import RouteView
from skerry.spec.pki import HostPki
from skerry.spec.report import ApplicationView, ComponentState, ComponentView, MetadataHeld, Observed, Phase
from skerry.spec.telemetry import Losses, TelemetryBatch
from skerry.spec.topics import BusView
from skerry.telemetry.blocks import Block, encode_block
from skerry.telemetry.health import (
    LINKED,
    Ending,
    HostCondition,
    SiteCondition,
    decide_health,
    is_worse,
    usual_silence,
)
from tests.unit.test_hub_secrets import Vaulted

pytestmark = pytest.mark.telemetry

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TOLERANCE = 5 * MINUTE


def host(name: str = "edge-1", *, away: timedelta = timedelta(), **known: Any) -> HostCondition:
    seen = Observed(**known.pop("observed", {}))
    return HostCondition(name=name, heard_at=NOW - away, observed_at=NOW - away, observed=seen, **known)


def site(*hosts: HostCondition, tolerance: timedelta = TOLERANCE, **known: Any) -> SiteCondition:
    return SiteCondition(tolerance=tolerance, hosts=hosts, **known)


def word(*hosts: HostCondition, **known: Any) -> HealthWord:
    return decide_health(site(*hosts, **known), now=NOW).word


def codes(*hosts: HostCondition, **known: Any) -> list[str]:
    return [reason.code for reason in decide_health(site(*hosts, **known), now=NOW).reasons]


def application(phase: Phase = "running", state: ComponentState = "ready", **more: Any) -> HostCondition:
    more.setdefault("release", "reader@1")
    view = ApplicationView(phase=phase, components={"main": ComponentView(state=state)}, **more)
    return host(observed={"applications": {"reader": view}})


# ── silence ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("HEALTH-2")
def test_a_silence_is_expected_as_long_as_it_is_usual_and_silent_after_that() -> None:
    assert word(host(away=MINUTE)) == "ok"
    assert word(host(away=5 * MINUTE)) == "ok"
    assert word(host(away=6 * MINUTE)) == "silent"
    assert word(host(away=6 * MINUTE), tolerance=3 * DAY) == "expected-silent"
    assert word(host(away=3 * DAY), tolerance=3 * DAY) == "expected-silent"
    assert word(host(away=3 * DAY + MINUTE), tolerance=3 * DAY) == "silent"
    often = (9 * HOUR, 8 * HOUR, 2 * HOUR)
    assert word(host(away=8 * HOUR, silences=often)) == "expected-silent"
    assert word(host(away=8 * HOUR + MINUTE, silences=often)) == "silent"


def test_one_long_silence_is_an_incident_and_no_pattern() -> None:
    assert usual_silence((), TOLERANCE) == TOLERANCE
    assert usual_silence((30 * DAY,), TOLERANCE) == TOLERANCE
    assert usual_silence((30 * DAY, 2 * HOUR), TOLERANCE) == 2 * HOUR
    assert word(host(away=DAY, silences=(30 * DAY,))) == "silent"


def test_a_site_that_is_reached_by_bundles_is_expected_to_be_silent_for_as_long_as_it_is() -> None:
    assert word(host(away=90 * DAY), carried=True) == "expected-silent"
    assert word(host(), carried=True) == "ok"
    assert word() == "expected-silent"
    assert codes() == ["site.empty"]


@pytest.mark.rule("HEALTH-2")
def test_what_a_silent_site_last_said_goes_on_counting_with_its_age() -> None:
    ill = msgspec.structs.replace(application("returning", "backoff"), heard_at=NOW - DAY)
    ill = msgspec.structs.replace(ill, observed_at=NOW - DAY)
    found = decide_health(site(ill, tolerance=3 * DAY), now=NOW)
    assert [(reason.word, reason.as_of) for reason in found.reasons] == [
        ("failing", NOW - DAY),
        ("expected-silent", NOW - DAY),
    ]
    assert found.as_of == NOW - DAY
    later = decide_health(site(ill), now=NOW)
    assert [reason.word for reason in later.reasons] == ["silent", "failing"]


def test_a_host_that_is_silent_beside_others_is_a_trouble_of_the_site() -> None:
    found = decide_health(site(host("a"), host("b", away=DAY)), now=NOW)
    assert [(reason.code, reason.word, reason.host) for reason in found.reasons] == [
        ("host.silent", "degraded", "b")
    ]
    assert "silent for 1d; up to 5m is usual of it" in found.reasons[0].message


@pytest.mark.rule("HEALTH-1")
def test_a_host_that_is_overdue_stays_a_trouble_when_the_one_that_is_often_away_leaves_as_well() -> None:
    overdue, often = host("a", away=10 * MINUTE), (3 * DAY, 3 * DAY)
    assert word(overdue, host("b", silences=often)) == "degraded"
    assert word(overdue, host("b", away=HOUR, silences=often)) == "degraded"


# ── troubles ────────────────────────────────────────────────────────────────────────────────────────

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("ill", "expected", "code"),
    (
        (application(), "ok", ""),
        (application("fetching"), "ok", ""),
        (application("standing-by", "waiting"), "ok", ""),
        (application("stopped", refused={DIGEST: "too slow"}, release=""), "failing", "app.stopped"),
        (application("returning", "backoff"), "failing", "app.unhealthy"),
        (application("returning", "unready"), "failing", "app.unhealthy"),
        (application("returning", "starting"), "degraded", "app.returning"),
        (application("fetching", "unready"), "failing", "app.unhealthy"),
        (application("soaking", "unready"), "degraded", "app.unhealthy"),
        (application("starting", "unready", release=""), "failing", "app.unhealthy"),
        (application(failed_variants={"int8": "wrong answer"}), "degraded", "variant.failed"),
        (host(quarantine="two machines"), "failing", "host.quarantined"),
        (host(lost_at=NOW - HOUR), "degraded", "telemetry.dropped"),
        (host(lost_at=NOW - DAY), "ok", ""),
        (host(endings=(Ending(what="secret a", at=NOW + HOUR),)), "degraded", "ending.near"),
        (host(endings=(Ending(what="secret a", at=NOW),)), "failing", "ending.passed"),
        (host(observed={"pki": HostPki(trouble="no root")}), "degraded", "pki.trouble"),
        (host(observed={"bus": BusView(broker="nats", trouble="port taken")}), "degraded", "bus.trouble"),
        (host(observed={"metadata": MetadataHeld(expires_at=NOW)}), "degraded", "metadata.expired"),
        (
            host(observed={"bindings": {"cam": BindingView(state="absent", used_by=("reader",))}}),
            "degraded",
            "binding.absent",
        ),
        (host(observed={"bindings": {"cam": BindingView(state="absent")}}), "ok", ""),
        (
            host(
                observed={
                    "routes": (
                        RouteView(
                            application="reader",
                            route="web",
                            component="main",
                            state="refused",
                            why="name taken",
                        ),
                    )
                }
            ),
            "degraded",
            "route.refused",
        ),
    ),
)
def test_each_trouble_has_its_word_and_its_reason(ill: HostCondition, expected: str, code: str) -> None:
    found = decide_health(site(ill), now=NOW)
    assert (found.word, [reason.code for reason in found.reasons]) == (expected, [code] if code else [])
    assert all(reason.message and reason.as_of for reason in found.reasons)


def test_a_refused_release_counts_while_it_is_the_one_that_is_wanted() -> None:
    goes_on = application(refused={DIGEST: "crashed in its trial"})
    assert codes(goes_on, wanted={"reader": "reader@2"}) == ["release.refused"]
    assert codes(goes_on, wanted={"reader": "reader@1"}) == []
    assert codes(goes_on) == []
    assert codes(application(), wanted={"reader": "reader@2"}) == [], "not offered yet"
    configured = application(refused={DIGEST: "crashed"}, release="reader@1#aa")
    assert codes(configured, wanted={"reader": "reader@1#bb"}) == ["release.refused"]


def test_reasons_are_bounded_and_the_worst_come_first() -> None:
    hosts = [host(f"h{number:03}", away=DAY) for number in range(MAX_REASONS + 20)]
    found = decide_health(site(host("alive"), *hosts, host("zz", quarantine="two machines")), now=NOW)
    assert len(found.reasons) == MAX_REASONS
    assert found.left_out == 21
    assert found.reasons[0].code == "host.quarantined"


# ── for whatever is known ───────────────────────────────────────────────────────────────────────────

TROUBLES: tuple[dict[str, Any], ...] = (
    {"quarantine": "two machines"},
    {"endings": (Ending(what="certificate", at=NOW + HOUR),)},
    {"endings": (Ending(what="certificate", at=NOW - HOUR),)},
    {"lost_at": NOW},
    {"observed": application("returning", "backoff").observed},
    {"observed": application("stopped").observed},
    {"observed": Observed(bus=BusView(trouble="port taken"))},
)
# Few spans, so that they often lie on both sides of one another.
spans = st.sampled_from((timedelta(), 3 * MINUTE, 6 * MINUTE, HOUR, DAY, 3 * DAY, 10 * DAY))


@st.composite
def sites(draw: st.DrawFn) -> SiteCondition:
    hosts = [
        msgspec.structs.replace(
            host(f"h{number}", away=draw(spans), silences=tuple(draw(st.lists(spans, max_size=4)))),
            **draw(st.sampled_from(({}, *TROUBLES))),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    return site(*hosts, tolerance=draw(spans), carried=draw(st.booleans()), held=draw(st.booleans()))


@pytest.mark.rule("HEALTH-1")
@given(sites(), st.data())
def test_more_trouble_never_gives_a_better_word(before: SiteCondition, data: st.DataObject) -> None:
    if not before.hosts:
        return
    number = data.draw(st.integers(0, len(before.hosts) - 1))
    old = before.hosts[number]
    worse = data.draw(
        st.sampled_from(
            (
                msgspec.structs.replace(old, quarantine="two machines"),
                msgspec.structs.replace(old, endings=(*old.endings, Ending(what="secret", at=NOW - MINUTE))),
                msgspec.structs.replace(old, lost_at=NOW),
                msgspec.structs.replace(old, heard_at=old.heard_at - data.draw(spans)),
            )
        )
    )
    hosts = (*before.hosts[:number], worse, *before.hosts[number + 1 :])
    after = msgspec.structs.replace(before, hosts=hosts)
    words: list[HealthWord] = [decide_health(one, now=NOW).word for one in (before, after)]
    assert not is_worse(words[0], than=words[1]), words
    held = decide_health(msgspec.structs.replace(before, held=True), now=NOW).word
    assert not is_worse(words[0], than=held)


@pytest.mark.rule("HEALTH-1")
@given(sites(), spans)
def test_time_without_a_word_never_gives_a_better_word(before: SiteCondition, later: timedelta) -> None:
    hosts = tuple(msgspec.structs.replace(one, lost_at=None) for one in before.hosts)
    quiet = msgspec.structs.replace(before, hosts=hosts)
    words: list[HealthWord] = [decide_health(quiet, now=moment).word for moment in (NOW, NOW + later)]
    assert not is_worse(words[0], than=words[1]), words


@pytest.mark.rule("HEALTH-1")
@given(sites(), st.randoms())
def test_the_order_in_which_hosts_are_known_changes_nothing(before: SiteCondition, random: Any) -> None:
    hosts = list(before.hosts)
    random.shuffle(hosts)
    assert decide_health(before, now=NOW) == decide_health(
        msgspec.structs.replace(before, hosts=tuple(hosts)), now=NOW
    )


@pytest.mark.rule("HEALTH-2")
@given(sites())
def test_no_site_is_silent_that_is_heard_of_and_none_is_fine_that_should_be(known: SiteCondition) -> None:
    found = decide_health(known, now=NOW).word
    away = min((NOW - one.heard_at for one in known.hosts), default=None)
    if away is None or known.carried or away <= known.tolerance:
        assert found != "silent"
    if away is not None and away > min(known.tolerance, LINKED):
        assert found != "ok"


# ── the hub ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Vaulted]:
    made = Vaulted(tmp_path)
    yield made
    made.hub.store.close()


def tells(world: Vaulted, sequence: int, **observed: Any) -> None:
    now = world.clock.now()
    world.hub.store.apply_reports(
        [
            AppliedReport(
                host="edge-1",
                site="harbour",
                sequence=sequence,
                seen_at=now,
                sent_at=now,
                generation=1,
                clock_offset_s=0.0,
                observed=Observed(**observed),
            )
        ]
    )


async def asked(world: Vaulted, path: str) -> Any:
    return (await world.ask("viewer", f"{API_PATH}{path}")).json()


@pytest.mark.rule("HEALTH-3")
async def test_sites_and_health_say_the_same_from_what_hosts_told(world: Vaulted) -> None:
    tells(world, 2)
    (one,) = await asked(world, "/health?site=harbour")
    assert one["health"]["word"] == "ok"
    view = ApplicationView(phase="stopped", why="reader@1 was refused: too slow")
    tells(world, 3, applications={"reader": view}, pki=HostPki(not_after=world.clock.now()))
    (one,) = await asked(world, "/health?site=harbour")
    assert one["health"]["word"] == "failing"
    assert {reason["code"] for reason in one["health"]["reasons"]} == {"app.stopped", "ending.passed"}
    assert (await asked(world, "/sites/harbour"))["health"] == one["health"]
    listed = {view["name"]: view["health"] for view in await asked(world, "/sites")}
    assert listed == {found["site"]: found["health"] for found in await asked(world, "/health")}
    world.clock.advance(DAY.total_seconds())
    (one,) = await asked(world, "/health?site=harbour")
    assert one["health"]["word"] == "silent"
    assert (await world.ask("viewer", f"{API_PATH}/health?site=nowhere")).status_code == 404


async def test_a_host_that_dropped_telemetry_is_degraded_for_a_day(world: Vaulted) -> None:
    tells(world, 2)

    async def batch(number: int, **dropped: int) -> None:
        empty = encode_block(Block(60, {}))
        await world.hub.backend.hearing.telemetry.take(
            "edge-1",
            "harbour",
            TelemetryBatch(
                host="edge-1", site="harbour", sequence=number, stream="s", number=number, block=empty,
                losses=Losses(dropped=dropped),
            ),
        )  # fmt: skip

    await batch(1)
    assert (await asked(world, "/health?site=harbour"))[0]["health"]["word"] == "ok"
    await batch(2, app=5)
    world.clock.advance(HOUR.total_seconds())
    tells(world, 3)
    await batch(3, app=5)
    (one,) = await asked(world, "/health?site=harbour")
    assert [reason["code"] for reason in one["health"]["reasons"]] == ["telemetry.dropped"]
    world.clock.advance(DAY.total_seconds())
    tells(world, 4)
    assert (await asked(world, "/health?site=harbour"))[0]["health"]["word"] == "ok"
