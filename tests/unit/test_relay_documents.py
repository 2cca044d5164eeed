"""Relays as people write them: what is refused, all of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from skerry.spec.checks_relay import find_circle
from skerry.spec.parsing import parse_raw
from skerry.spec.problems import DocumentRejected
from skerry.spec.relay import Relay


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "skerry/v1",
        "kind": "Relay",
        "metadata": {"name": "gate"},
        "spec": {"addresses": ["gate.example:8443"], **spec},
    }


def test_a_relay_with_all_that_it_can_say_is_taken() -> None:
    parsed = parse_raw(
        document(
            addresses=["gate.example:8443", "10.0.0.7", "[fd00::7]:8443"],
            upstreams=["above", "other"],
            cache="2GiB",
            queue="64MiB",
            link={"rate": "1MiB/s"},
            time_zone="Europe/Zurich",
            prefetch=False,
        )
    )
    assert isinstance(parsed, Relay)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "itself": ({"upstreams": ["gate"]}, "spec.upstreams"),
    "twice": ({"upstreams": ["a", "a"]}, "spec.upstreams[1]"),
    "no address": ({"addresses": []}, "spec.addresses"),
    "an address with a path": ({"addresses": ["gate.example/v1"]}, "spec.addresses[0]"),
    "an address with a user": ({"addresses": ["me@gate.example"]}, "spec.addresses[0]"),
    "no port": ({"addresses": ["gate.example:0"]}, "spec.addresses[0]"),
    "no such port": ({"addresses": ["[fd00::7]:70000"]}, "spec.addresses[0]"),
    "no zone": ({"time_zone": "Mars/Olympus"}, "spec.time_zone"),
    "a bad window": (
        {"link": {"windows": [{"cron": "hourly", "duration": "1h"}]}},
        "spec.link.windows[0].cron",
    ),
}


@pytest.mark.parametrize(("spec", "path"), tuple(WRONG.values()), ids=tuple(WRONG))
def test_a_relay_that_could_not_serve_is_refused_with_the_place(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentRejected) as caught:
        parse_raw(document(**spec))
    assert any(problem.path.startswith(path.partition("[")[0]) for problem in caught.value.problems)


def test_a_circle_of_upstreams_is_found_wherever_it_begins() -> None:
    ways = {"a": ("b", "x"), "b": ("c",), "c": ("x", "a"), "x": ()}
    assert find_circle(ways, "a") == ("a", "b", "c", "a")
    assert find_circle(ways, "x") == ()
    assert find_circle({**ways, "d": ("a",)}, "d") == (), "it leads into a circle, and is in none"
