"""Heartbeats: who is believed, and that nothing is believed twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.agent.acquaintance import PROOF_S, SENT_KEPT, WORDS_KEPT, Acquaintance, SentLog
from skerry.agent.neighbourhood import VERIFIED_PER_S, AppStatus, Neighbourhood
from skerry.kit.errors import Untrusted
from skerry.spec.desired import Neighbour
from skerry.trust.heartbeat import (
    MAX_DATAGRAM_BYTES,
    Heartbeat,
    Verifier,
    Word,
    key_tag,
    sign_heartbeat,
    verify_heartbeat,
)
from skerry.trust.keys import SigningKey
from tests.unit.lan_world import APP, KEYS, Lan

pytestmark = pytest.mark.trust

KEY, OTHER = KEYS[0], KEYS[1]
KNOWN = {
    key_tag(KEY.key_id): Verifier("edge-0", KEY.verifier),
    key_tag(OTHER.key_id): Verifier("edge-1", OTHER.verifier),
}
BEAT = Heartbeat(
    site="harbour",
    host="edge-0",
    to="edge-9",
    session="0" * 16,
    counter=7,
    generation=3,
    address="192.0.2.4:7946",
    heard_session="1" * 16,
    heard_counter=12,
    words={"reader": Word("claim", 1, 4, 2)},
)


def verify(datagram: bytes) -> Heartbeat:
    return verify_heartbeat(datagram, KNOWN, site="harbour", host="edge-9")


def signed(key: SigningKey = KEY, /, **changes: object) -> bytes:
    datagram = sign_heartbeat(msgspec.structs.replace(BEAT, **changes), key)
    assert datagram is not None
    return datagram


def refusal(datagram: bytes) -> str:
    with pytest.raises(Untrusted) as caught:
        verify(datagram)
    return caught.value.code


def test_a_heartbeat_comes_back_as_it_was_signed() -> None:
    assert verify(signed()) == BEAT
    assert len(signed()) < 400


def test_one_of_an_unknown_key_is_refused() -> None:
    assert refusal(signed(SigningKey.generate())) == "heartbeat.unknown_key"


def test_one_that_a_neighbour_signed_in_the_name_of_another_is_refused() -> None:
    assert refusal(signed(OTHER)) == "heartbeat.misdirected"
    forged = bytearray(signed(OTHER))
    forged[4:12] = key_tag(KEY.key_id)
    assert refusal(bytes(forged)) == "heartbeat.bad_signature"


@pytest.mark.parametrize("field", ("site", "to"))
def test_one_for_another_site_or_host_is_refused(field: str) -> None:
    assert refusal(signed(**{field: "elsewhere"})) == "heartbeat.misdirected"


@pytest.mark.rule("STANDBY-3")
@given(st.integers(0, len(signed()) - 1), st.integers(1, 255))
def test_one_that_was_altered_anywhere_is_refused(place: int, change: int) -> None:
    datagram = bytearray(signed())
    datagram[place] ^= change
    assert refusal(bytes(datagram)).startswith("heartbeat.")


@given(st.binary(max_size=1400))
def test_anything_else_is_refused(datagram: bytes) -> None:
    assert refusal(datagram) in ("heartbeat.malformed", "heartbeat.too_large", "heartbeat.unknown_key")


def test_one_that_is_too_large_is_neither_made_nor_looked_at() -> None:
    words = {f"application-{number}": Word("able", 1) for number in range(64)}
    assert sign_heartbeat(msgspec.structs.replace(BEAT, words=words), KEY) is None
    assert refusal(signed() + b" " * MAX_DATAGRAM_BYTES) == "heartbeat.too_large"


@pytest.mark.parametrize(
    "payload", (b"{}", b"[]", b"null", b'{"counter":0}', b"\xff", b"[" * 900), ids=lambda p: str(p[:12])
)
def test_what_a_neighbour_signed_and_is_no_heartbeat_is_refused(payload: bytes) -> None:
    signature = KEY.sign_raw(b"skerry heartbeat v1\n" + payload)
    assert refusal(b"SKH1" + key_tag(KEY.key_id) + signature + payload) == "heartbeat.malformed"


def test_a_field_of_a_later_version_is_passed_over() -> None:
    payload = msgspec.json.encode({**msgspec.to_builtins(BEAT), "invented_later": 1})
    signature = KEY.sign_raw(b"skerry heartbeat v1\n" + payload)
    assert verify(b"SKH1" + key_tag(KEY.key_id) + signature + payload) == BEAT


# ── freshness ────────────────────────────────────────────────────────────────────────────────────────


def acquaintance() -> tuple[Acquaintance, SentLog]:
    sent = SentLog()
    for second in range(20):
        sent.next(float(second))
    return Acquaintance("edge-0", Neighbour(sign_key=KEY.public)), sent


def take(known: Acquaintance, sent: SentLog, now: float, **changes: object) -> str:
    beat = msgspec.structs.replace(BEAT, **changes)
    return known.take(beat, session="1" * 16, sent=sent, now=now)


@pytest.mark.rule("STANDBY-3")
def test_a_heartbeat_is_taken_once_and_never_after_a_newer_one() -> None:
    known, sent = acquaintance()
    assert take(known, sent, 20.0, counter=7) == "first"
    assert take(known, sent, 20.0, counter=8) == "next"
    for counter in (8, 7, 1):
        assert take(known, sent, 21.0, counter=counter) == "replayed"
    assert known.heard_at == 20.0


@pytest.mark.rule("STANDBY-3")
def test_a_new_session_must_repeat_what_this_host_sent_a_moment_ago() -> None:
    known, sent = acquaintance()
    assert take(known, sent, 11.0 + PROOF_S + 0.1) == "unproven"  # counter 12 was sent at 11
    assert take(known, sent, 20.0, heard_session="2" * 16) == "unproven"
    assert take(known, sent, 20.0, heard_counter=999) == "unproven"
    assert known.heard_at is None
    assert known.echo() == ("0" * 16, 7)
    assert take(known, sent, 20.0) == "first"


@pytest.mark.rule("STANDBY-3")
def test_a_session_that_was_left_is_never_taken_again() -> None:
    known, sent = acquaintance()
    take(known, sent, 20.0)
    assert take(known, sent, 20.0, session="a" * 16, counter=1) == "first"
    assert take(known, sent, 20.0, counter=99) == "replayed"


def test_a_recording_does_not_hide_from_a_neighbour_that_it_is_heard() -> None:
    known, sent = acquaintance()
    take(known, sent, 20.0)
    for number in range(10):
        take(known, sent, 20.0, session=f"{number:016x}", heard_session="2" * 16, counter=50 + number)
        known.echo()
    for _ in range(4):
        known.echo()
    assert known.echo() == ("0" * 16, 50)  # session 0 is the one that was taken, and went on


def test_what_a_neighbour_knew_of_an_earlier_start_of_this_agent_does_not_count() -> None:
    known, sent = acquaintance()
    take(known, sent, 20.0)
    assert (known.words[APP].knows, known.words[APP].knows_at) == (2, 11.0)
    take(known, sent, 20.0, counter=8, heard_session="2" * 16, words={APP: Word("able", 1, 4, 99)})
    assert (known.words[APP].says, known.words[APP].knows, known.words[APP].knows_at) == ("able", 2, 11.0)


def test_what_is_remembered_of_a_neighbour_is_bounded() -> None:
    known, sent = acquaintance()
    for number in range(10):
        words = {f"application-{number}-{part}": Word("able", 1) for part in range(64)}
        take(known, sent, 20.0, counter=10 + number, words=words)
    assert len(known.words) == WORDS_KEPT
    for _ in range(2 * SENT_KEPT):
        sent.next(1.0)
    assert sent.when(1) is None


# ── the neighbourhood ────────────────────────────────────────────────────────────────────────────────


def recorded(lan: Lan, source: str, target: str) -> list[bytes]:
    """Return what goes from one host to another while a lan runs for a while."""
    seen: list[bytes] = []
    agent = lan.machines[target].agent
    assert agent is not None
    take = agent.receive

    def spy(datagram: bytes, now: float) -> str:
        if datagram[4:12] == key_tag(lan.machines[source].key.key_id):
            seen.append(datagram)
        return take(datagram, now)

    agent.receive = spy  # type: ignore[method-assign]
    lan.run(10)
    return seen


@pytest.mark.rule("STANDBY-3")
@pytest.mark.parametrize("restarted", (False, True))
def test_a_recording_does_not_keep_a_silent_host_alive(restarted: bool) -> None:
    lan = Lan(2)
    tape = recorded(lan, "edge-0", "edge-1")
    assert tape
    if restarted:
        lan.boot("edge-1")
        lan.run(1)
    lan.crash("edge-0")
    for _ in range(60):
        agent = lan.machines["edge-1"].agent
        assert agent is not None
        local = lan.now + lan.machines["edge-1"].clock_offset
        assert {agent.receive(datagram, local) for datagram in tape[-5:]} <= {
            "heartbeat.replayed",
            "unproven",
        }
        lan.step()
    assert lan.running() == ["edge-1"]


def test_a_flood_is_looked_at_only_so_far_and_counted() -> None:
    agent = Neighbourhood(host="edge-9", site="harbour", key=KEY, session="9" * 16)
    results = [agent.receive(b"x" * 200, 0.0) for _ in range(1000)]
    assert results.count("heartbeat.malformed") == VERIFIED_PER_S
    assert agent.dropped == {"heartbeat.malformed": 200, "heartbeat.too_many": 800}
    assert agent.receive(b"", 1.0) == "heartbeat.malformed"


def test_nothing_is_said_before_the_agent_knows_how_things_stand() -> None:
    lan = Lan(2)
    fresh = Neighbourhood(host="edge-0", site="harbour", key=KEY, session="a" * 16)
    fresh.follow(lan.machines["edge-0"].desired, 0.0)
    assert (fresh.needed, fresh.outgoing(0.0), fresh.duties) == (False, [], {})
    fresh.tell({APP: AppStatus(able=True)}, 0.0)
    assert fresh.needed
    assert len(fresh.outgoing(0.0)) == 1
    assert fresh.outgoing(0.0) == []  # once


def test_a_host_that_the_desired_state_does_not_name_has_no_duties() -> None:
    lan = Lan(2)
    desired = lan.machines["edge-0"].desired
    assert desired is not None
    fresh = Neighbourhood(host="edge-0", site="harbour", key=KEY, session="a" * 16)
    hosts = {"edge-1": desired.hosts["edge-1"]}
    fresh.follow(msgspec.structs.replace(desired, hosts=hosts), 0.0)
    fresh.tell({APP: AppStatus(able=True, alive=True)}, 0.0)
    assert (fresh.needed, fresh.duties) == (False, {})


@pytest.mark.rule("STANDBY-1")
def test_one_whose_turn_ends_while_a_start_may_be_under_way_says_that_it_runs_until_it_has_looked() -> None:
    lan = Lan(2)
    lan.crash("edge-0")
    lan.run(5.5)
    assert lan.running() == ["edge-1"]
    lan.machines["edge-1"].alive = False
    agent = lan.machines["edge-1"].agent
    assert agent is not None
    local = lan.now + lan.machines["edge-1"].clock_offset
    agent.tell({APP: AppStatus(able=True)}, local)  # it is its turn, and nothing has been started yet
    assert (agent.duties[APP].active, agent.duties[APP].says) == (True, "run")
    lan.machines["edge-1"].look = lambda now: None  # type: ignore[method-assign]
    lan.boot("edge-0")
    lan.run(1.0)
    assert (agent.duties[APP].active, agent.duties[APP].says) == (False, "run")
    assert lan.running() == []
    agent.tell({APP: AppStatus(able=True)}, lan.now + lan.machines["edge-1"].clock_offset)
    assert agent.duties[APP].says == "able"
    lan.run(1.0)
    assert lan.running() == ["edge-0"]
