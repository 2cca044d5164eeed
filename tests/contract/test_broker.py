"""What every broker of a host keeps, looked at by real clients."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.kit.errors import Denied, Rejected, Unavailable
from skerry.ports.broker import BusAccount
from skerry.testing.waiting import eventually
from tests.contract.bus_world import HERE, LINE, RULES, BusWorld, make_tls, mosquitto_sub, needs

pytestmark = pytest.mark.broker


@pytest.fixture(params=("memory", "nats", "mosquitto"))
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BusWorld]:
    needs(str(request.param))
    made = BusWorld(str(request.param), tmp_path)
    await made.apply()
    yield made
    await made.close()


@pytest.fixture(params=("nats", "mosquitto"))
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BusWorld]:
    needs(str(request.param))
    made = BusWorld(str(request.param), tmp_path)
    await made.apply()
    yield made
    await made.close()


def read_bytes(file: str) -> bytes:
    return Path(file).read_bytes()


def opened(world: BusWorld, account: BusAccount) -> bool:
    try:
        world.open(account)
    except Denied:
        return False
    return True


@pytest.mark.rule("BUS-1")
async def test_an_account_publishes_and_reads_what_it_may_and_nothing_else(world: BusWorld) -> None:
    rules, line = world.open(RULES), world.open(LINE)
    rules.client.subscribe(["plant/line1/#"])
    line.client.subscribe(["plant/orders"])
    for topic in ("plant/line2/count", "plant", "plant/orders", "other", "plant/line11/count"):
        line.client.publish(topic, b"beyond its pattern")
    line.client.publish("plant/line1/count", b"7")
    line.client.publish("plant/line1", b"8")
    rules.client.publish("plant/orders", b"stop")
    await rules.until(b"7", b"8")
    await line.until(b"stop")
    for pattern in ("#", "plant/#", "plant/orders/#", "plant/+", "plant/line2/count", "$SYS/#", "+/orders"):
        with pytest.raises(Denied):
            line.client.subscribe([pattern])


@pytest.mark.rule("BUS-1")
async def test_who_only_publishes_reads_nothing_and_who_only_reads_publishes_nothing(world: BusWorld) -> None:
    writer = BusAccount(user="writer", password="of-the-writer", publish=("plant/a",))
    reader = BusAccount(user="reader", password="of-the-reader", subscribe=("plant/a",))
    await world.apply(writer, reader)
    writes, reads = world.open(writer), world.open(reader)
    reads.client.subscribe(["plant/a"])
    for pattern in ("plant/a", "plant/#", "#"):
        with pytest.raises(Denied):
            writes.client.subscribe([pattern])
    reads.client.publish("plant/a", b"from who may not")
    writes.client.publish("plant/a", b"from who may")
    await reads.until(b"from who may")


@pytest.mark.rule("BUS-1")
async def test_nobody_is_let_in_without_an_account(world: BusWorld) -> None:
    for user, password in ((LINE.user, "wrong"), ("nobody", LINE.password), ("", ""), (LINE.user, "")):
        with pytest.raises(Denied) as caught:
            world.open(BusAccount(user=user, password=password))
        assert caught.value.code == "bus.refused"
        assert LINE.password not in str(caught.value)


@pytest.mark.rule("BUS-2")
async def test_accounts_change_and_others_stay_connected(world: BusWorld) -> None:
    rules, line = world.open(RULES), world.open(LINE)
    rules.client.subscribe(["plant/line1/#"])
    fresh = BusAccount(user="fresh", password="of-the-fresh", publish=("plant/line1/x",))
    await world.apply(LINE, RULES, fresh)
    added = world.open(fresh)
    added.client.publish("plant/line1/x", b"from the new one")
    await rules.until(b"from the new one")
    await world.apply(RULES, fresh)

    async def cut_off() -> bool:
        return not line.client.is_open

    await eventually(cut_off, what="the end of who is gone")
    assert not opened(world, LINE)
    added.client.publish("plant/line1/x", b"still here")
    await rules.until(b"from the new one", b"still here")


@pytest.mark.rule("BUS-2")
async def test_rights_that_are_taken_away_are_gone_for_who_has_them(world: BusWorld) -> None:
    rules, line = world.open(RULES), world.open(LINE)
    rules.client.subscribe(["plant/line1/#"])
    line.client.publish("plant/line1/a", b"before")
    await rules.until(b"before")
    less = msgspec.structs.replace(RULES, subscribe=("plant/line1/b",))
    await world.apply(LINE, less)
    line.client.publish("plant/line1/a", b"after")
    again = world.open(less)
    again.client.subscribe(["plant/line1/b"])
    with pytest.raises(Denied):
        again.client.subscribe(["plant/line1/#"])
    await world.apply(msgspec.structs.replace(LINE, publish=("plant/line1/b",)), less)
    line.client.publish("plant/line1/a", b"too late")
    line.client.publish("plant/line1/b", b"allowed")
    await again.until(b"allowed")
    assert rules.payloads[0] == b"before"
    assert not {b"after", b"too late"} & {*rules.payloads, *again.payloads}


async def test_another_password_is_another_account(world: BusWorld) -> None:
    other = msgspec.structs.replace(LINE, password="another")
    await world.apply(other, RULES)
    assert not opened(world, LINE)
    assert opened(world, other)


async def test_what_is_retained_comes_to_who_reads_later(world: BusWorld) -> None:
    world.open(LINE).client.publish("plant/line1/state", b"running", retain=True)
    rules = world.open(RULES)
    rules.client.subscribe(["plant/line1/+"])
    await rules.until(b"running")
    assert rules.came[0].retained


async def test_a_durable_reader_gets_what_came_while_it_was_away_until_it_acknowledges(
    world: BusWorld,
) -> None:
    line, before = world.open(LINE), await world.sockets()
    rules = world.open(RULES, client="rules", durable=True)
    rules.client.subscribe(["plant/line1/#"])
    rules.client.close()
    await world.until_left(before)
    line.client.publish("plant/line1/a", b"1")
    line.client.publish("plant/line1/a", b"2")
    rules = world.open(RULES, client="rules", durable=True)
    await rules.until(b"1", b"2")
    rules.acknowledges = False
    line.client.publish("plant/line1/a", b"3")
    await rules.until(b"1", b"2", b"3")
    rules.client.close()
    again = world.open(RULES, client="rules", durable=True)

    async def came_again() -> bool:
        # What was acknowledged a moment before the end may come once more as well.
        return b"3" in again.payloads

    await eventually(came_again, what="what was not acknowledged")


@pytest.mark.rule("BUS-1")
async def test_who_takes_anothers_session_gets_nothing_of_it(real: BusWorld) -> None:
    rules = real.open(RULES, client="session", durable=True)
    rules.client.subscribe(["plant/line1/#"])
    rules.client.close()
    real.open(LINE).client.publish("plant/line1/a", b"for the rules alone")
    stranger = BusAccount(user="stranger", password="of-a-stranger", subscribe=("elsewhere",))
    await real.apply(LINE, RULES, stranger)
    thief = real.open(stranger, client="session", durable=True)
    thief.client.subscribe(["elsewhere"])
    real.open(LINE).client.publish("plant/line1/b", b"this neither")
    reader = real.open(RULES)
    reader.client.subscribe(["plant/line1/c"])
    real.open(LINE).client.publish("plant/line1/c", b"past both")
    await reader.until(b"past both")
    assert thief.payloads == []


@pytest.mark.rule("BUS-4")
async def test_it_listens_beyond_this_host_with_tls_alone(world: BusWorld) -> None:
    for address in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(Rejected) as caught:
            await world.broker.apply(msgspec.structs.replace(world.settings, listen=address))
        assert caught.value.code == "broker.plain"
    assert opened(world, LINE), "and it goes on as it was"


@pytest.mark.rule("BUS-4")
async def test_with_tls_nobody_gets_in_without_it(real: BusWorld, tmp_path: Path) -> None:
    plain = real.settings
    real.settings = msgspec.structs.replace(plain, tls=make_tls(tmp_path))
    await real.apply()
    line = real.open(LINE)
    line.client.publish("plant/line1/a", b"over TLS", retain=True)
    found = await asyncio.to_thread(mosquitto_sub, real.settings, RULES, "plant/line1/#")
    assert found.stdout == "plant/line1/a over TLS\n"
    found = await asyncio.to_thread(mosquitto_sub, plain, RULES, "plant/line1/#", limit_s=2)
    assert found.returncode != 0
    tls, real.settings = real.settings, plain
    with pytest.raises(Unavailable):
        real.open(LINE)
    # Another certificate of another authority, and nobody who is connected notices.
    real.settings = msgspec.structs.replace(tls, tls=make_tls(tmp_path))
    await real.apply()
    assert opened(real, LINE)
    assert line.client.is_open


@pytest.mark.rule("BUS-3")
async def test_what_was_acknowledged_outlives_a_restart(real: BusWorld) -> None:
    line, rules = real.open(LINE), real.open(RULES, client="rules", durable=True)
    rules.client.subscribe(["plant/line1/#"])
    rules.client.close()
    line.client.publish("plant/line1/a", b"queued")
    line.client.publish("plant/line1/state", b"running", retain=True)
    await real.broker.stop()
    assert (await real.broker.state()).pid == 0
    await real.apply()
    await real.open(RULES, client="rules", durable=True).until(b"queued", b"running")
    later = real.open(RULES)
    later.client.subscribe(["plant/line1/state"])
    await later.until(b"running")


@pytest.mark.rule("BUS-3")
async def test_one_that_was_killed_comes_back_with_what_it_had_written(real: BusWorld) -> None:
    line = real.open(LINE)
    line.client.publish("plant/line1/state", b"kept by the broker", retain=True)
    if real.kind == "mosquitto":
        saved = real.root / "data" / "mosquitto.db"

        async def written() -> bool:
            return saved.exists() and b"kept by the broker" in saved.read_bytes()

        await eventually(written, what="what mosquitto writes every few seconds")
    await real.kill()
    await real.apply()
    rules = real.open(RULES)
    rules.client.subscribe(["plant/line1/state"])
    await rules.until(b"kept by the broker")


async def test_another_agent_finds_it_running_and_nobody_is_cut_off(real: BusWorld) -> None:
    line, pid = real.open(LINE), (await real.broker.state()).pid
    real.broker = real.another()
    await real.apply()
    assert (await real.broker.state()).pid == pid
    assert line.client.is_open
    await real.apply(RULES)
    assert not opened(real, LINE)


async def test_without_what_is_in_memory_it_begins_anew(real: BusWorld) -> None:
    shutil.rmtree(real.folder / "bus")
    real.broker = real.another()
    await real.apply()
    assert opened(real, LINE)


async def test_erased_it_keeps_nothing(real: BusWorld) -> None:
    real.open(LINE).client.publish("plant/line1/state", b"running", retain=True)
    await real.broker.erase()
    assert not (real.root / "data").exists()
    await real.apply()
    rules = real.open(RULES)
    rules.client.subscribe(["plant/line1/#"])
    real.open(LINE).client.publish("plant/line1/a", b"1")
    await rules.until(b"1")


async def test_its_files_open_to_nobody_else_and_arguments_hold_no_password(real: BusWorld) -> None:
    process = f"/proc/{(await real.broker.state()).pid}"
    words, environment = read_bytes(f"{process}/cmdline"), read_bytes(f"{process}/environ")
    for account in (LINE, RULES):
        assert account.password.encode() not in words + environment
        for file in (*(real.root / "data").rglob("*"), *(real.root / "processes").rglob("*")):
            assert not file.is_file() or account.password.encode() not in file.read_bytes()
    for file in (real.folder / "bus").iterdir():
        assert file.stat().st_mode & 0o077 == 0
    assert (real.folder / "bus").stat().st_mode & 0o077 == 0


async def test_a_port_that_is_taken_is_told(real: BusWorld) -> None:
    other = BusWorld(real.kind, real.root / "other")
    other.settings = msgspec.structs.replace(other.settings, port=real.settings.port, native_port=0)
    try:
        with pytest.raises(Unavailable) as caught:
            await other.apply(BusAccount(user="else", password="where"))
        assert caught.value.code == "broker.unready"
    finally:
        await other.close()
    assert real.settings.listen == HERE and opened(real, LINE)


class NatsReader:
    """A client of the protocol of NATS, as plain as it can be: lines of text over a connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def say(self, *lines: str, account: BusAccount) -> str:
        """Say lines as an account, and return what comes until everything was dealt with."""
        reader, writer = await asyncio.open_connection(HERE, self._port)
        hello = {"verbose": False, "pedantic": True, "user": account.user, "pass": account.password}
        text = "\r\n".join((f"CONNECT {json.dumps(hello)}", *lines, "PING", ""))
        writer.write(text.encode())
        came = b""
        while not came.endswith(b"PONG\r\n") and (some := await asyncio.wait_for(reader.read(4096), 10)):
            came += some
        writer.close()
        return came.decode()


@pytest.mark.rule("BUS-1")
async def test_an_account_has_the_same_rights_in_the_protocol_of_nats(tmp_path: Path) -> None:
    needs("nats")
    world = BusWorld("nats", tmp_path)
    try:
        await world.apply()
        rules = world.open(RULES)
        rules.client.subscribe(["plant/line1/#"])
        nats = NatsReader(world.settings.native_port)
        said = await nats.say("PUB plant.line1.a 5", "hello", account=LINE)
        assert "-ERR" not in said
        await rules.until(b"hello")
        for subject in ("plant.orders", "plant.line2", "$JS.API.INFO", "$MQTT.sub.x", "_INBOX.x"):
            said = await nats.say(f"PUB {subject} 1", "x", account=LINE)
            assert "Permissions Violation for Publish" in said, subject
        for subject in (
            ">",
            "plant.>",
            "$MQTT.>",
            "$MQTT.sub.>",
            "$SYS.>",
            "$JS.>",
            "_INBOX.>",
            "plant.line1.a",
        ):
            said = await nats.say(f"SUB {subject} 1", account=LINE)
            assert "Permissions Violation for Subscription" in said, subject
        wrong = msgspec.structs.replace(LINE, password="wrong")
        assert "Authorization Violation" in await nats.say(account=wrong)
    finally:
        await world.close()
