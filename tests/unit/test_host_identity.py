"""Who a host is to its hub: copied disks, quarantine, new keys, and a machine that takes another's place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.agent.keys import KeyFiles
from skerry.agent.rotating import KeyRotation, RotationAnswer, answer_of, request_of
from skerry.hub.identities import Identities
from skerry.kit.errors import Conflict, Denied, Missing, Unauthenticated, Unavailable, Untrusted
from skerry.ports.hub_store import JoinTokenRecord
from skerry.spec.carrier import KeyChange, KeyChangeRequest
from skerry.testing.waiting import eventually
from skerry.trust.key_change import sign_key_change, verify_key_change
from skerry.trust.keys import SigningKey, new_sealing_key
from skerry.trust.tokens import hash_secret
from tests.unit.identity_world import Machine
from tests.unit.test_hub_backend import Harbour

pytestmark = pytest.mark.trust


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


async def joined(harbour: Harbour, folder: Path, name: str = "edge") -> Machine:
    machine = Machine(harbour, folder, name)
    await machine.join(harbour.token(f"secret of {name}"))
    machine.start()
    assert await machine.exchange() == ""
    return machine


def replacing(harbour: Harbour, host: str, secret: str) -> str:
    now = harbour.clock.now()
    record = JoinTokenRecord(
        hash=hash_secret(secret),
        site="harbour",
        created_at=now,
        expires_at=now.replace(year=now.year + 1),
        uses_left=1,
        replaces=host,
    )
    harbour.store.add_join_token(record, harbour.audit())
    return secret


def restart_hub(harbour: Harbour) -> None:
    harbour.backend.hearing._hosts.clear()
    harbour.backend.hearing._reload_at = 0.0
    harbour.backend.hearing.identities = Identities(harbour.store, harbour.clock)


async def is_waiting(harbour: Harbour) -> bool:
    return bool(harbour.notifier._waiting)


async def meet(*machines: Machine, rounds: int = 6) -> None:
    """Let machines exchange by turns until one of them is refused."""
    for _ in range(rounds):
        for machine in machines:
            if await machine.exchange():
                return


def kinds(harbour: Harbour, prefix: str) -> list[str]:
    found = [record.event.kind for record in reversed(harbour.store.events(limit=1000))]
    return [kind for kind in found if kind.startswith(prefix)]


def actions(harbour: Harbour) -> list[str]:
    return [entry.action for entry in reversed(harbour.store.audits(1000))]


# ── a copied disk ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("IDENTITY-1")
@pytest.mark.parametrize("running", (True, False), ids=("of a running host", "of one that is off"))
async def test_a_copied_disk_is_found_out_and_the_host_is_in_quarantine(
    harbour: Harbour, tmp_path: Path, running: bool
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    copy = edge.copied(tmp_path / "copy")
    copy.start()
    if not running:
        edge.start()
    await meet(copy, edge)
    record = harbour.backend.identities.quarantine("edge")
    assert record is not None
    assert "machines aaaaaaaa and bbbbbbbb" in record.why
    assert [await machine.exchange() for machine in (edge, copy)] == ["host.quarantined"] * 2
    assert kinds(harbour, "host.") == ["host.quarantined"]
    assert actions(harbour)[-1] == "host.quarantine"


@pytest.mark.rule("IDENTITY-2")
async def test_from_a_host_in_quarantine_nothing_is_taken_and_nothing_is_given_to_it(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    other = await joined(harbour, tmp_path / "other", "other")
    token = harbour.backend.hearing.blob_token(harbour.backend.hearing._hosts[edge.files.load().key_id])
    assert harbour.backend.check_blob_token(token) == "edge"
    copy = edge.copied(tmp_path / "copy")
    copy.start()
    await meet(copy, edge)
    restart_hub(harbour)
    before = harbour.store.host("edge")
    harbour.change("harbour", greeting="hello")
    await harbour.hub.issuer.issue("harbour")
    edge.agent.note("test.happened")
    edge.agent.tell(edge.agent._observed, {})
    held = edge.agent.desired
    assert await edge.exchange() == "host.quarantined"
    assert harbour.store.host("edge") == before
    assert edge.agent.desired == held
    with pytest.raises(Denied, match="quarantine"):
        harbour.backend.check_blob_token(token)
    with pytest.raises(Denied, match="quarantine"):
        await edge.settle()
    assert await other.exchange() == ""  # another host of the site goes on
    assert other.agent.desired is not None
    assert held is not None
    assert other.agent.desired.generation > held.generation


@pytest.mark.rule("IDENTITY-2")
async def test_a_person_ends_a_quarantine_and_two_machines_are_found_again(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    with pytest.raises(Conflict, match="not in quarantine"):
        await harbour.backend.identities.readmit("edge", harbour.audit())
    copy = edge.copied(tmp_path / "copy")
    copy.start()
    await meet(copy, edge)
    edge.agent.note("test.happened")
    edge.agent.tell(edge.agent._observed, {})
    await harbour.backend.identities.readmit("edge", harbour.audit())
    restart_hub(harbour)
    for _ in range(4):
        assert await edge.exchange() == ""
    assert kinds(harbour, "test.") == ["test.happened"]  # what happened meanwhile was kept, and is told
    await meet(copy, edge)
    assert harbour.backend.identities.quarantine("edge") is not None
    assert kinds(harbour, "host.") == ["host.quarantined", "host.readmitted", "host.quarantined"]


@pytest.mark.rule("IDENTITY-1")
async def test_a_host_that_waits_is_asked_at_once_when_another_run_reports_with_its_keys(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    copy = edge.copied(tmp_path / "copy")
    waiting = asyncio.create_task(edge.agent.exchange(240.0))
    await eventually(lambda: is_waiting(harbour))
    copy.start()
    await copy.exchange()
    await asyncio.wait_for(waiting, 10)


@pytest.mark.rule("IDENTITY-1")
async def test_restarts_a_lost_database_and_a_disk_put_back_raise_no_alarm(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    old = edge.copied(tmp_path / "backup").store
    for number in range(30):
        match number % 3:
            case 0:
                edge.start()
            case 1:
                edge.store = type(edge.store)()
                edge.start()
            case _:
                edge.store = old
                edge.start()
        for _ in range(3):
            assert await edge.exchange() == ""
        edge.agent.note("test.happened", str(number))
        edge.agent.tell(edge.agent._observed, {})
        assert await edge.exchange() == ""
    events = [record.event for record in reversed(harbour.store.events(limit=1000))]
    told = [event.message for event in events if event.kind == "test.happened"]
    assert told == [str(number) for number in range(30)]
    others = {event.kind for event in events} - {"test.happened"}
    assert "chain.restarted" in others and all(kind.startswith("chain.") for kind in others)


# ── new keys ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("IDENTITY-3")
async def test_new_keys_take_the_place_of_the_old_and_the_old_are_refused(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    old, seal = edge.files.load(), (edge.files.folder / "seal.pem").read_bytes()
    stolen = edge.copied(tmp_path / "stolen")
    edge.agent.note("test.happened")
    edge.agent.tell(edge.agent._observed, {})  # queued, and signed by the old key
    waiting = asyncio.create_task(edge.agent.exchange(240.0))
    await eventually(lambda: is_waiting(harbour))
    await edge.settle()
    harbour.notifier.notify("harbour")
    await asyncio.wait_for(waiting, 10)  # who waited under the old key is not refused
    edge.agent.note("test.happened")
    edge.agent.tell(edge.agent._observed, {})
    assert await edge.exchange() == ""
    assert kinds(harbour, "test.") == ["test.happened"] * 2
    stolen.start()
    assert await stolen.exchange() == "host.unknown"
    record = harbour.store.host("edge")
    assert record is not None
    assert record.sign_key == edge.files.load().public != old.public
    assert (edge.files.folder / "previous-seal.pem").read_bytes() == seal
    assert kinds(harbour, "host.") == ["host.keys_changed"]
    assert actions(harbour)[-1] == "host.change_keys"
    restart_hub(harbour)
    assert await edge.exchange() == ""


@pytest.mark.rule("IDENTITY-3")
async def test_what_is_queued_under_the_old_key_is_told_under_the_new_one(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    edge.agent.note("test.happened")
    edge.agent.tell(edge.agent._observed, {})
    now = harbour.clock.now()
    edge.agent._outbox.collect(
        sent_at=now, clock=now, generation=0, observed=None, facts=None
    )  # sent, and lost
    await edge.settle()
    edge.start()
    assert await edge.exchange() == ""
    assert kinds(harbour, "test.") == ["test.happened"]


LAST_STEP = 18


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.rule("IDENTITY-3")
@pytest.mark.parametrize("step", range(LAST_STEP + 1))
async def test_a_host_killed_at_any_step_of_the_change_has_working_keys(
    harbour: Harbour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    steps = iter(range(1000))

    def count(*_: object) -> None:
        if next(steps) == step:
            raise Killed

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def first_count(*given: Any, **more: Any) -> None:
            count()
            call(*given, **more)

        return first_count

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", counted(os.replace))
        patched.setattr(os, "fsync", counted(os.fsync))
        edge.link.cut = count
        try:
            await edge.settle()
            finished = True
        except Killed:
            finished = False
        edge.link.cut = lambda _: None
    assert finished == (next(steps) <= step)
    assert finished or step < LAST_STEP
    restart_hub(harbour)
    again = Machine(harbour, edge.folder)
    again.store = edge.store
    again.start()
    rotation = KeyRotation(
        again.files,
        again.place,
        again.link,
        harbour.clock,
        on_key=again.agent.take_key,
        failing=lambda: again.agent.failing,
    )
    await rotation.look()
    assert await again.exchange() == ""
    assert not again.files.pending
    record = harbour.store.host("edge")
    assert record is not None
    assert (record.sign_key, record.seal_key) == (
        again.files.load().public,
        again.files.make().seal_public,
    )


@pytest.mark.rule("IDENTITY-3")
async def test_a_hub_from_before_the_change_is_shown_it_again(harbour: Harbour, tmp_path: Path) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    before = harbour.store.host("edge")
    assert before is not None
    await edge.settle()
    harbour.store.remove_host("edge", harbour.audit())
    harbour.store.enroll_host(hash_secret(replacing(harbour, "edge", "as it was")), before, harbour.audit())
    harbour.backend.forget_host("edge")
    restart_hub(harbour)
    assert await edge.exchange() == "host.unknown"
    rotation = KeyRotation(
        edge.files,
        edge.place,
        edge.link,
        harbour.clock,
        on_key=edge.agent.take_key,
        failing=lambda: "host.unknown",
    )
    harbour.clock.advance(2)
    await rotation.look()
    assert await edge.exchange() == ""


async def test_a_running_agent_changes_its_keys_when_it_is_asked_and_says_what_became_of_it(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    old = edge.files.load().key_id
    taken: list[SigningKey] = []
    rotation = KeyRotation(
        edge.files, edge.place, edge.link, harbour.clock, on_key=taken.append, failing=lambda: ""
    )
    await rotation.look()
    assert not taken
    request_of(edge.files).touch()

    def away(_: str) -> None:
        raise Unavailable("link.unreachable", "no way up")

    edge.link.cut = away
    with pytest.raises(Unavailable):
        await rotation.look()
    assert edge.files.pending
    assert edge.files.load().key_id == old  # until the hub has confirmed it, the old one holds
    edge.link.cut = lambda _: None
    await rotation.look()
    answer = msgspec.json.decode(answer_of(edge.files).read_bytes(), type=RotationAnswer)
    assert [key.key_id for key in taken] == [edge.files.load().key_id] == [answer.key]
    assert not request_of(edge.files).exists()


KEYS = [SigningKey.generate() for _ in range(3)]


@pytest.mark.rule("IDENTITY-3")
async def test_a_change_of_keys_takes_both_signatures_and_the_right_host(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    own, (new, other, stranger) = edge.files.load(), KEYS
    change = KeyChange(
        host="edge",
        site="harbour",
        old_key=own.public,
        sign_key=new.public,
        seal_key=new_sealing_key()[1],
    )
    good = sign_key_change(change, own, new)
    assert verify_key_change(good, own.public) == change
    assert verify_key_change(good, new.public) == change
    bad = {
        "the new key did not sign": sign_key_change(change, own, other),
        "the old key did not sign": sign_key_change(change, stranger, new),
        "one signature": {**good, "signatures": good["signatures"][:1]},
        "one signature twice": {**good, "signatures": [good["signatures"][0]] * 2},
        "three": {**good, "signatures": [*good["signatures"], good["signatures"][0]]},
        "the same key": sign_key_change(msgspec.structs.replace(change, sign_key=own.public), own, own),
        "another host": sign_key_change(msgspec.structs.replace(change, host="other"), own, new),
        "another site": sign_key_change(msgspec.structs.replace(change, site="airport"), own, new),
        "keys of others": sign_key_change(msgspec.structs.replace(change, old_key=other.public), own, new),
        "no sealing key": sign_key_change(msgspec.structs.replace(change, seal_key="AAAA"), own, new),
    }
    for name, envelope in bad.items():
        harbour.clock.advance(2)
        with pytest.raises((Untrusted, Unauthenticated)):
            await harbour.backend.change_keys(KeyChangeRequest(change=envelope))
        record = harbour.store.host("edge")
        assert record is not None
        assert record.sign_key == own.public, name
    for _ in range(2):  # again is fine
        assert (await harbour.backend.change_keys(KeyChangeRequest(change=good))).sign_key == new.public


# ── a machine that takes another's place ─────────────────────────────────────────────────────────────────


@pytest.mark.rule("IDENTITY-4")
async def test_another_machine_takes_a_name_only_with_a_token_that_says_so(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    spare = Machine(harbour, tmp_path / "spare")
    with pytest.raises(Conflict, match="another host is named edge"):
        await spare.join(harbour.token("ordinary"))
    stranger = Machine(harbour, tmp_path / "stranger", "stranger")
    secret = replacing(harbour, "edge", "for edge")
    with pytest.raises(Denied, match="replaces host edge"):
        await stranger.join(secret)
    await spare.join(secret)
    spare.start()
    assert await spare.exchange() == ""
    assert await edge.exchange() == "host.unknown"
    await spare.join(secret)  # the answer may have been lost
    with pytest.raises(Denied, match="used up"):
        await Machine(harbour, tmp_path / "third").join(secret)
    assert kinds(harbour, "host.") == ["host.replaced"]
    assert "host.replace" in actions(harbour)


@pytest.mark.rule("IDENTITY-4")
async def test_new_keys_for_the_rightful_machine_end_a_quarantine_and_lock_the_copy_out(
    harbour: Harbour, tmp_path: Path
) -> None:
    edge = await joined(harbour, tmp_path / "edge")
    copy = edge.copied(tmp_path / "copy")
    copy.start()
    await meet(copy, edge)
    await edge.join(replacing(harbour, "edge", "for edge"), staged=True)
    edge.start()
    restart_hub(harbour)
    assert await edge.exchange() == ""
    assert edge.agent.desired is not None
    harbour.clock.advance(2)
    assert await copy.exchange() == "host.unknown"


def test_keys_that_are_gone_are_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="is not there") as caught:
        KeyFiles(tmp_path).load()
    assert "--replace" in caught.value.hint
