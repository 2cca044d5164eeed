"""What the hub writes down of the topics of a site's hosts: only where something is to go from one to another."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from skerry.hub.bus_linking import link_buses
from skerry.hub.site_use import SiteUse
from skerry.ports.hub_store import HostRecord, SiteRecord
from skerry.spec.application import Application, ApplicationSpec, Component
from skerry.spec.desired import Assignment, DesiredState, SitePolicy
from skerry.spec.facts import Fact
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.topics import HostTopics, TopicsSpec
from tests.unit.upstream import NOW

LINE = TopicsSpec(publish=("plant/line1/#",))
RULES = TopicsSpec(subscribe=("plant/+/count",))


def linked(hosts: dict[str, tuple[str, ...]], *, policy: SitePolicy | None = None) -> dict[str, HostTopics]:
    """Return what is written down where hosts have these applications."""
    topics = {"line": LINE, "rules": RULES, "other": TopicsSpec(publish=("other",)), "none": TopicsSpec()}
    releases = {
        name: Release(
            application=Application(
                metadata=Metadata(name=name),
                spec=ApplicationSpec(
                    version="1.0.0", components=(Component(name="main", command=("run",)),), topics=topic
                ),
            )
        )
        for name, topic in topics.items()
    }
    records = [
        HostRecord(
            site="harbour",
            name=name,
            sign_key="k",
            seal_key="k",
            enrolled_at=NOW,
            facts={"bus_address": Fact(value=f"10.0.0.{number}:8884", source="test")},
        )
        for number, name in enumerate(hosts)
    ]
    site = SiteRecord(name="harbour", document=b"{}")
    use = SiteUse(site=site, hosts=records, applications=hosts, releases=releases, before=None)
    desired = DesiredState(
        site="harbour",
        generation=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=1),
        policy=policy or SitePolicy(),
        hosts={
            host: tuple(Assignment(application=name, release=f"{name}@1.0.0") for name in names)
            for host, names in hosts.items()
        },
    )
    found = link_buses(use, desired)
    assert msgspec.structs.replace(found, bus={}) == desired
    return found.bus


@pytest.mark.rule("BUS-5")
def test_hosts_that_share_topics_are_written_down_with_where_they_are() -> None:
    found = linked({"h0": ("line", "none"), "h1": ("rules",), "h2": ("other",)})
    assert found == {
        "h0": HostTopics(address="10.0.0.0:8884", publish=LINE.publish),
        "h1": HostTopics(address="10.0.0.1:8884", subscribe=RULES.subscribe),
    }


def test_a_site_in_which_nothing_crosses_has_the_document_it_had_before() -> None:
    assert linked({"h0": ("line", "rules")}) == {}
    assert linked({"h0": ("line",), "h1": ("other",)}) == {}
    assert linked({"h0": ("line",), "h1": ("rules",)}, policy=SitePolicy(broker="none")) == {}
