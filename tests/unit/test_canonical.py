"""One value, one sequence of bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.canonical import encode_canonical
from skerry.spec.desired import Assignment, DesiredState, HealthPolicy
from skerry.spec.documents import AnyDocument
from skerry.spec.parsing import parse_documents
from skerry.spec.site import Site

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def site(text: str) -> AnyDocument:
    return parse_documents(text)[0].document


def test_a_default_that_is_written_out_changes_nothing() -> None:
    brief = site("{apiVersion: skerry/v1, kind: Site, metadata: {name: a}}")
    wordy = site(
        "{kind: Site, spec: {variables: {}, time_zone: UTC, offline_tolerance: 5m},"
        " metadata: {labels: {}, name: a, description: ''}, apiVersion: skerry/v1}"
    )
    assert encode_canonical(brief) == encode_canonical(wordy)
    assert encode_canonical(brief) == b'{"apiVersion":"skerry/v1","kind":"Site","metadata":{"name":"a"}}'


def test_a_document_says_what_it_is() -> None:
    state = DesiredState(site="a", generation=1, issued_at=NOW, expires_at=NOW)
    assert msgspec.json.decode(encode_canonical(state))["type"] == "desired-state"


@given(
    generation=st.integers(1, 1 << 40),
    deadline=st.sampled_from([300.0, 1.5, 60.0]),
    variables=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    attempt=st.integers(1, 3),
)
def test_encoding_loses_nothing_and_is_a_fixed_point(
    generation: int, deadline: float, variables: dict[str, str], attempt: int
) -> None:
    assignment = Assignment(
        application="x", release="x@1", attempt=attempt, health=HealthPolicy(deadline_s=deadline)
    )
    state = DesiredState(
        site="a",
        generation=generation,
        issued_at=NOW,
        expires_at=NOW,
        hosts={"h": (assignment,), "idle": ()},
        variables=variables,
    )
    content = encode_canonical(state)
    again = msgspec.json.decode(content, type=DesiredState)
    assert again == state
    assert encode_canonical(again) == content


def test_keys_are_sorted_and_there_is_no_white_space() -> None:
    assert encode_canonical({"b": 1, "a": [True, None, "ü"]}) == '{"a":[true,null,"ü"],"b":1}'.encode()
    assert isinstance(site("{kind: Site, metadata: {name: a}, apiVersion: skerry/v1}"), Site)
