"""Real agents on a disk and its copy: found out, set apart, and put right; and a host that gets new keys as it runs."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.waiting import eventually_sync
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


def host(fleet: TestFleet) -> dict[str, Any]:
    found: dict[str, Any] = fleet.get("get", "hosts", "edge")
    return found


def in_step(fleet: TestFleet) -> bool:
    found = host(fleet)
    return not found.get("quarantined") and found["generation_held"] >= found["generation_wanted"] > 0


def change(fleet: TestFleet, greeting: str) -> None:
    """Have the hub issue something new, which only a host that it trusts can take."""
    path = fleet.folder / "site.yaml"
    path.write_text(
        "apiVersion: skerry/v1\nkind: Site\nmetadata: {name: harbour}\n"
        f"spec: {{variables: {{greeting: {greeting}}}}}\n"
    )
    fleet.run("apply", "-f", str(path))


@pytest.mark.slow
@pytest.mark.rule("IDENTITY-1")
@pytest.mark.rule("IDENTITY-4")
def test_a_copied_disk_is_found_out_and_new_keys_for_one_machine_lock_the_other_out(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    edge = fleet.add_agent("harbour", "edge")
    eventually_sync(lambda: in_step(fleet), what="the host is in step")
    copy = AgentProcess("copy", fleet.folder / "agents" / "copy", fleet.env, {})
    shutil.copytree(edge.data, copy.data)
    fleet.agents["copy"] = copy.start()
    quarantined = eventually_sync(lambda: host(fleet).get("quarantined"), what="the copy is found out")
    assert "a disk was copied" in quarantined["why"]
    assert "Quarantine:" in fleet.run("describe", "host", "edge")
    fleet.hub.stop()
    fleet.hub.start()  # it is not forgotten
    assert host(fleet)["quarantined"] == quarantined
    edge.stop()
    copy.stop()
    token = fleet.get("site", "token", "harbour", "--replace", "edge")["token"]
    fleet.run("agent", "join", "-", "--data", str(edge.data), stdin=token)
    edge.start()
    copy.start()
    change(fleet, "hello")
    eventually_sync(lambda: in_step(fleet), what="the host with new keys is in step")
    eventually_sync(lambda: "host.unknown" in copy.log.read_text(), what="the copy is refused")
    kinds = [view["event"]["kind"] for view in fleet.get("get", "events", "--host", "edge")]
    assert {"host.quarantined", "host.replaced"} <= set(kinds)


@pytest.mark.rule("IDENTITY-3")
def test_a_host_gets_new_keys_while_its_agent_runs_and_while_it_does_not(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    edge = fleet.add_agent("harbour", "edge")
    eventually_sync(lambda: in_step(fleet), what="the host is in step")
    keys = edge.data / "keys" / "sign.pem"
    before = keys.read_bytes()
    assert "has new keys" in fleet.run("agent", "rotate-keys", "--data", str(edge.data))
    middle = keys.read_bytes()
    assert middle != before
    change(fleet, "one")
    eventually_sync(lambda: in_step(fleet), what="the host is in step with its second keys")
    edge.stop()
    assert "has new keys" in fleet.run("agent", "rotate-keys", "--data", str(edge.data))
    assert keys.read_bytes() != middle
    change(fleet, "two")
    edge.start()
    eventually_sync(lambda: in_step(fleet), what="the host is in step with its third keys")
    assert "keys: file" in fleet.run("agent", "status", "--data", str(edge.data))
