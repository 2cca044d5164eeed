"""When a host makes its own values: one at once, the next ahead of its time, and one however long it was off."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.secret import Making
from skerry.trust.secret_choice import HeldVersion, InUse, choose_version
from skerry.trust.secret_making import make_value
from skerry.trust.secret_rounds import CLOCK_WAS_WRONG, HeldRound, RoundPlan, plan_round

pytestmark = pytest.mark.secrets

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def planned(*held: HeldRound, now: datetime = NOW, every: timedelta | None = DAY) -> RoundPlan | None:
    return plan_round(held, rotate_every=every, not_before=None, now=now)


def test_the_first_value_is_made_at_once_and_begins_when_the_order_says() -> None:
    assert planned() == RoundPlan(1)
    assert planned(every=None) == RoundPlan(1)
    later = plan_round((), rotate_every=DAY, not_before=NOW + DAY, now=NOW)
    assert later == RoundPlan(1, NOW + DAY)
    assert planned(HeldRound("a", 1, NOW + 9 * DAY)) is None, "what is to come far ahead is what was ordered"


def test_without_a_period_there_is_one_value() -> None:
    assert planned(HeldRound("a", 1), every=None, now=NOW + 999 * DAY) is None


def test_the_next_value_is_made_when_the_one_before_it_begins_to_be_used() -> None:
    first = HeldRound("a", 1)
    assert planned(first) == RoundPlan(2, NOW + DAY)
    second = HeldRound("b", 2, NOW + DAY)
    assert planned(first, second, now=NOW + DAY - timedelta(seconds=1)) is None
    assert planned(first, second, now=NOW + DAY) == RoundPlan(3, NOW + 2 * DAY)
    assert planned(second, now=NOW + 100 * DAY) == RoundPlan(3, NOW + 101 * DAY), "one is made up for"


def test_a_next_value_of_a_clock_that_was_far_ahead_is_made_again() -> None:
    wrong = HeldRound("b", 2, NOW + 3650 * DAY)
    assert planned(HeldRound("a", 1), wrong) == RoundPlan(2, NOW + DAY, "b")
    near = HeldRound("b", 2, NOW + DAY + CLOCK_WAS_WRONG)
    assert planned(HeldRound("a", 1), near) is None


@pytest.mark.rule("SECRET-3")
@given(st.lists(st.integers(-400, 400), max_size=30), st.integers(1, 60))
def test_whatever_the_clock_does_there_is_a_value_and_a_next_one_not_too_far_ahead(
    leaps: list[int], days: int
) -> None:
    now, every = NOW, timedelta(days=days)
    held: dict[str, HeldRound] = {}
    use: InUse | None = None
    for leap in [0, *leaps]:
        now = max(NOW, now + timedelta(days=leap))
        before = use
        plan = plan_round(list(held.values()), rotate_every=every, not_before=None, now=now)
        if plan is not None:
            held.pop(plan.instead, None)
            drawn = f"{len(held)}-{plan.round}-{now}"
            held[drawn] = HeldRound(drawn, plan.round, plan.not_before)
        versions = [HeldVersion(one.id, 1, one.not_before, one.round) for one in held.values()]
        use = choose_version(versions, use, now=now, clock=now)
        assert use is not None
        assert before is None or held[use.id].round >= held[before.id].round, "it never goes back"
        held = {key: one for key, one in held.items() if one.round >= held[use.id].round}
        newest = max(held.values(), key=lambda one: one.round)
        assert newest.not_before is None or newest.not_before <= now + every + CLOCK_WAS_WRONG


@pytest.mark.parametrize(
    ("alphabet", "pattern"),
    (
        ("base64url", r"[A-Za-z0-9_-]{64}"),
        ("alphanumeric", r"[A-Za-z0-9]{48}"),
        ("hex", r"[0-9a-f]{48}"),
        ("digits", r"[0-9]{48}"),
    ),
)
def test_random_text_is_of_its_alphabet_and_length_and_never_the_same(alphabet: str, pattern: str) -> None:
    making = Making(kind="random", length=48, alphabet=alphabet)  # type: ignore[arg-type]
    made = {make_value(making).value for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(pattern, value.decode()) for value in made)
    assert len({character for value in made for character in value}) > 8
    assert "..." in repr(make_value(making))


@pytest.mark.parametrize(
    ("algorithm", "kind"), (("ed25519", Ed25519PrivateKey), ("p256", ec.EllipticCurvePrivateKey))
)
def test_a_pair_of_keys_is_a_private_key_and_its_public_half(algorithm: str, kind: type) -> None:
    made = make_value(Making(kind="keypair", algorithm=algorithm))  # type: ignore[arg-type]
    private = load_pem_private_key(made.value, password=None)
    assert isinstance(private, kind)
    public = load_der_public_key(base64.b64decode(made.public))
    whole = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert private.public_key().public_bytes(*whole) == public.public_bytes(*whole)
