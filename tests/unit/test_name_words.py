"""What hosts tell each other of names: all of it arrives, whatever is lost, and nothing that was not said."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.agent.name_words import MAX_PARTS, PART_BYTES, Hearing, Saying, split_words
from skerry.agent.neighbourhood import AppStatus
from skerry.matching.names import MAX_WORDS, Asked, HostWords, answer_question, lay_zone
from skerry.spec.names import NamesPart, NameWord
from skerry.trust.heartbeat import MAX_DATAGRAM_BYTES, Heartbeat, sign_heartbeat
from tests.unit.lan_world import APP, KEYS, TAKEOVER_S, Lan

READER = NameWord(APP, APP, "https", 443)
ADDRESSES = {f"edge-{number}": f"10.0.0.{number + 1}" for number in range(5)}

words = st.lists(
    st.builds(
        NameWord,
        application=st.text("abc-", min_size=1, max_size=63),
        host=st.text("abc.-", min_size=1, max_size=253),
        service=st.sampled_from(["https", "raw"]),
        port=st.integers(1, 65535),
        serving=st.booleans(),
    ),
    max_size=40,
).map(tuple)


@given(words, st.integers(0, 1000))
def test_all_that_is_said_is_heard_once_every_part_has_come(said: tuple[NameWord, ...], seed: int) -> None:
    lost = random.Random(seed)
    speaking, listening = Saying(), Hearing()
    parts = split_words(said)
    for _ in range(len(parts) * 12):
        for part in speaking.due(parts):
            if lost.random() < 0.6:
                listening.take(part)
    for _ in parts:  # a round without a loss
        for part in speaking.due(parts):
            listening.take(part)
    assert listening.words == said
    for part in speaking.due(split_words(())):
        listening.take(part)
    assert listening.words == ()


@given(words)
def test_a_part_fits_into_a_heartbeat_beside_the_longest_names(said: tuple[NameWord, ...]) -> None:
    for part in split_words(said):
        long = "x" * 63
        heartbeat = Heartbeat(
            site=long, host=long, to=long, session="0" * 16, counter=1 << 40, generation=1 << 40,
            address="[" + "f" * 39 + "]:65535", heard_session="0" * 16, heard_counter=1 << 40, names=part,
        )  # fmt: skip
        datagram = sign_heartbeat(heartbeat, KEYS[0])
        assert datagram is not None and len(datagram) <= MAX_DATAGRAM_BYTES
        assert len(msgspec.json.encode(part.words)) <= PART_BYTES + 200 or len(part.words) == 1


def test_parts_of_another_set_are_not_mixed_in_and_nonsense_is_passed_over() -> None:
    listening = Hearing()
    listening.take(NamesPart("a", 0, 2, (READER,)))
    assert not listening.take(NamesPart("b", 1, 2, (READER,)))
    assert not listening.words and not listening.whole
    assert not listening.take(NamesPart("b", 2, 2, (READER,)))
    assert not listening.take(NamesPart("c", 0, MAX_PARTS + 1, (READER,)))
    assert listening.take(NamesPart("b", 0, 2))
    assert listening.words == (READER,)


def test_what_one_host_says_is_bounded() -> None:
    many = tuple(NameWord(f"app-{number}", f"app-{number}", "https", 443) for number in range(1000))
    assert sum(len(part.words) for part in split_words(many)) == MAX_WORDS


class Speakers:
    """A LAN whose hosts say `reader` where they run it, and where it leads by the word of each."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.sets = 0

    def run(self, seconds: float) -> None:
        end = self.lan.now + seconds
        while self.lan.now < end:
            for name, machine in self.lan.machines.items():
                if machine.agent is not None:
                    machine.agent.say((READER,) if name in self.lan.running() else (), listens=True)
            self.lan.step()

    def leads(self, name: str) -> list[str]:
        """Return where a host's DNS leads clients of the application."""
        machine = self.lan.machines[name]
        assert machine.agent is not None
        own = (READER,) if name in self.lan.running() else ()
        heard = machine.agent.names(self.lan.now + machine.clock_offset)
        hosts = [HostWords(host=name, words=own), *heard]
        hosts = [msgspec.structs.replace(one, address=ADDRESSES[one.host]) for one in hosts]
        zone = lay_zone(hosts, site="s", domain="d", own=name)
        answer = answer_question(zone, Asked(f"{APP}.site.internal", "A"))
        assert answer is not None
        found = [record.data for record in answer.records]
        return [host for host, address in ADDRESSES.items() if address in found]


@pytest.mark.rule("NAME-1")
@pytest.mark.parametrize("loss", (0.0, 0.3))
def test_every_host_leads_clients_to_where_the_application_runs_after_a_takeover(loss: float) -> None:
    lan = Lan(4, seed=7)
    site = Speakers(lan)
    lan.disturb(loss=loss, delay_s=0.0)
    site.run(20)
    assert [site.leads(name) for name in lan.names] == [["edge-0"]] * 4
    lan.split("edge-0")
    lan.crash("edge-0")
    site.run(TAKEOVER_S * 8)
    assert lan.running() == ["edge-1"]
    assert [site.leads(name) for name in lan.names[1:]] == [["edge-1"]] * 3
    # It comes back, and has it again.
    lan.heal()
    lan.boot("edge-0")
    site.run(TAKEOVER_S * 8)
    assert lan.running() == ["edge-0"]
    assert [site.leads(name) for name in lan.names] == [["edge-0"]] * 4


@pytest.mark.rule("NAME-1")
def test_of_a_host_that_is_silent_the_last_word_stands_where_nobody_else_has_the_name() -> None:
    lan = Lan(2)
    for machine in lan.machines.values():
        machine.able = machine.name == "edge-0"
    site = Speakers(lan)
    site.run(10)
    lan.split("edge-0")
    site.run(60)
    assert (site.leads("edge-0"), site.leads("edge-1")) == (["edge-0"], ["edge-0"])
    # What it says itself counts at once.
    lan.heal()
    lan.machines["edge-0"].able = False
    site.run(20)
    assert (site.leads("edge-0"), site.leads("edge-1")) == ([], [])


@pytest.mark.rule("NAME-4")
def test_a_new_agent_knows_of_the_whole_site_once_all_have_told_it() -> None:
    lan = Lan(2)
    site = Speakers(lan)
    agent = lan.machines["edge-1"].agent
    assert agent is not None and not agent.knows_names(lan.machines["edge-1"].clock_offset)
    site.run(10)
    assert agent.knows_names(lan.now + lan.machines["edge-1"].clock_offset)
    lan.split("edge-1")
    lan.stop_agent("edge-1")
    lan.boot("edge-1")
    site.run(1)
    agent = lan.machines["edge-1"].agent
    assert agent is not None and not agent.knows_names(lan.now + lan.machines["edge-1"].clock_offset)
    site.run(30)  # nobody answers: that is all there is
    assert agent.knows_names(lan.now + lan.machines["edge-1"].clock_offset)


def test_hosts_that_have_no_names_and_answer_for_none_stay_silent() -> None:
    lan = Lan(2)
    for machine in lan.machines.values():
        assert machine.agent is not None
        machine.agent.follow(msgspec.structs.replace(machine.desired, placements={}), 0.0)  # type: ignore[type-var]
        machine.agent.tell({APP: AppStatus()}, 0.0)
        machine.agent.say((), listens=False)
        assert not machine.agent.needed
        machine.agent.say((READER,), listens=False)
        assert machine.agent.needed
