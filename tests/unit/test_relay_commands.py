"""`skerry relay`: joining, and what is shown at the relay itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from skerry.cli.relay import relay as command
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.relay.commands import status_of, status_text
from skerry.relay.identity import Place, load_identity, save_place
from skerry.relay.joining import join_as_relay
from skerry.relay.standing import write_status
from skerry.relay.wiring import parse_listen
from skerry.spec.carrier import JoinToken
from skerry.testing.clock import SimulatedClock
from skerry.trust.tokens import encode_join_token
from tests.unit.relay_world import World

pytestmark = pytest.mark.delivery


def token(**changes: str) -> str:
    now = SimulatedClock().now()
    fields = {
        "hub": "https://127.0.0.1:1",
        "site": "",
        "root": "sha256:" + "0" * 64,
        "secret": "s",
        **changes,
    }
    return encode_join_token(JoinToken(expires_at=now + timedelta(days=1), **fields))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


def test_a_token_for_hosts_makes_no_relay(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        join_as_relay(tmp_path, token(site="harbour"))
    assert caught.value.code == "join.not_for_relays"


def test_a_directory_belongs_to_one_relay(tmp_path: Path) -> None:
    save_place(tmp_path, Place("l3", "https://hub:8443", "sha256:" + "0" * 64), b"{}")
    with pytest.raises(Conflict) as caught:
        join_as_relay(tmp_path, token(relay="l4"))
    assert caught.value.code == "relay.joined"


def test_where_nothing_has_joined_nothing_stands_and_nothing_is_served(tmp_path: Path) -> None:
    for ask in (status_of, load_identity):
        with pytest.raises(Missing) as caught:
            ask(tmp_path)
        assert caught.value.code == "relay.not_joined"


def test_keys_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    save_place(tmp_path, Place("l3", "https://hub:8443", "sha256:" + "0" * 64), b"{}")
    with pytest.raises(Missing) as caught:
        load_identity(tmp_path)
    assert caught.value.code == "relay.keys_lost"


@pytest.mark.parametrize("listen", ("8443", "host:", "host:99999", "host:port"))
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(Rejected):
        parse_listen(listen)


def test_addresses_are_read() -> None:
    assert parse_listen("0.0.0.0:8443") == ("0.0.0.0", 8443)
    assert parse_listen("[::1]:1") == ("::1", 1)


async def test_how_a_relay_stands_is_told_to_people_and_programs(world: World) -> None:
    relay = await world.add_relay("l3")
    await relay.poll()
    host = await world.join("edge", relay)
    host.tell("one")
    await host.sync()
    relay.process.standing.serving = "0.0.0.0:8443"
    write_status(relay.data, relay.process.standing.status())
    done = CliRunner().invoke(command, ["status", "--data", str(relay.data), "-o", "json"])
    found = json.loads(done.stdout)
    assert found["relay"] == "l3"
    assert found["running"] is False
    assert found["queue"]["reports"] == 2
    assert found["hosts"] == {"edge": 0}
    assert found["sites"] == 1
    assert found["cache"]["limit_bytes"] == 20 << 30
    assert found["trouble"] == "the relay does not run"
    text = "\n".join(status_text(status_of(relay.data)))
    assert "process: NOT running" in text
    assert "queue: 2 reports" in text
    assert "host edge: heard 0 s ago" in text
    shown = CliRunner().invoke(command, ["status", "--data", str(relay.data)])
    assert shown.stdout.splitlines()[0] == "relay l3, upstream https://hub.example:8443"
