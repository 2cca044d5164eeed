"""The planner on editions: a release with another configuration is another candidate, of the same files and family."""

from __future__ import annotations

import msgspec
import pytest

from skerry.kit.editions import (
    configuration_in,
    edition_name,
    edition_of,
    plain_release,
    release_in,
    revision_of,
)
from skerry.reconcile.plan import plan_host
from skerry.reconcile.records import (
    ApplicationRecord,
    Discard,
    InstanceFact,
    Memory,
    Plan,
    Refusal,
    ReleaseFact,
    Seen,
    StopInstance,
    TakeModels,
    Target,
)
from skerry.reconcile.view import view_applications
from skerry.spec.application import Component

pytestmark = pytest.mark.rollout

RELEASE = "sha256:" + "1" * 64
GOOD, NEXT = (edition_of(RELEASE, "sha256:" + digit * 64) for digit in "ab")


def fact(edition: str) -> ReleaseFact:
    component = Component(name="main", command=("./run",))
    return ReleaseFact(
        name=edition, digest=edition, components=(component,), prepared=True, family="kin", hot=True
    )


RUNNING = InstanceFact(
    state="running", application="app", component="main", release=GOOD, family="kin", started=True, ready=True
)
KEY = fact(GOOD).instance_id("app", "main")
SEEN = Seen(
    instances={KEY: RUNNING},
    releases={GOOD: fact(GOOD), NEXT: fact(NEXT)},
    laid_out=frozenset({RELEASE}),
    taken={"kin": GOOD},
)
TARGET = Target("app", "app@1#b", NEXT, soak_s=0.0)


def plan_twice(record: ApplicationRecord, seen: Seen) -> Plan:
    """Return the plan after the one that begins the trial."""
    first = plan_host({"app": TARGET}, {"app": record}, seen, Memory(), now=10.0)
    return plan_host({"app": TARGET}, first.records, seen, first.memory, now=11.0)


def test_another_configuration_is_taken_and_the_release_laid_out_once_stays() -> None:
    plan = plan_twice(ApplicationRecord("app", good=GOOD), SEEN)
    assert TakeModels("app", NEXT) in plan.actions
    assert not [action for action in plan.actions if isinstance(action, Discard | StopInstance)]


def test_the_files_of_the_release_before_stay_whatever_it_was_configured_with() -> None:
    other = "sha256:" + "2" * 64
    record = ApplicationRecord("app", good=GOOD, previous=edition_of(other, "sha256:" + "c" * 64))
    seen = msgspec.structs.replace(SEEN, laid_out=frozenset({RELEASE, other, "sha256:" + "3" * 64}))
    target = msgspec.structs.replace(TARGET, digest=GOOD)
    plan = plan_host({"app": target}, {"app": record}, seen, Memory(), now=10.0)
    assert [action.digest for action in plan.actions if isinstance(action, Discard)] == ["sha256:" + "3" * 64]


@pytest.mark.rule("CONFIG-1")
def test_what_is_to_be_restarted_proves_nothing_of_its_new_configuration() -> None:
    record = ApplicationRecord("app", good=GOOD, candidate=NEXT)
    taken = msgspec.structs.replace(SEEN, taken={"kin": NEXT})
    plan = plan_twice(record, msgspec.structs.replace(taken, outdated={KEY: "its configuration has changed"}))
    assert (plan.records["app"].good, plan.records["app"].candidate) == (GOOD, NEXT)
    assert [action.instance for action in plan.actions if isinstance(action, StopInstance)] == [KEY]
    assert plan_twice(record, taken).records["app"].good == NEXT


def test_who_goes_by_a_refused_configuration_is_said_to_return_until_it_has_the_good_one() -> None:
    record = ApplicationRecord("app", good=GOOD, refused={NEXT: Refusal("app@1#b", "answered 500", 1)})

    def phase(taken: str) -> str:
        seen = msgspec.structs.replace(SEEN, taken={"kin": taken})
        return view_applications({"app": TARGET}, {"app": record}, seen, Memory(), {})["app"].phase

    assert (phase(NEXT), phase(GOOD)) == ("returning", "running")


def test_names_and_identities_of_editions_lead_back_to_what_they_are_made_of() -> None:
    assert (release_in(GOOD), configuration_in(GOOD)) == (RELEASE, "sha256:" + "a" * 64)
    assert (release_in(RELEASE), configuration_in(RELEASE), edition_of(RELEASE, "")) == (RELEASE, "", RELEASE)
    name = edition_name("camera@1.2.0", "0123456789ab")
    assert (plain_release(name), revision_of(name)) == ("camera@1.2.0", "0123456789ab")
    assert (plain_release("camera@1"), revision_of("camera@1"), edition_name("camera@1", "")) == (
        "camera@1",
        "",
        "camera@1",
    )
