"""A host's message bus: who is let in with which rights, what waits for it, and what becomes of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from cryptography.x509 import DNSName, SubjectAlternativeName, load_pem_x509_certificate

from skerry.adapters.system_clock import SystemClock
from skerry.adapters.tls_bus_door import TlsBusDoor
from skerry.adapters.tls_bus_links import TlsBusLinks
from skerry.agent.secret_files import SecretFiles
from skerry.agent.services.bus import BUS, BusParts, HostBus
from skerry.agent.services.bus_containers import BUS_NAME, LOOK_S, ContainerParts, ContainerSide
from skerry.agent.services.bus_links import HostLinks, LinkParts
from skerry.agent.services.host_service import NOTHING, Turn
from skerry.agent.services.places import network_of
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BrokerSettings, BusAccount
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.application import Component, Container
from skerry.spec.desired import DesiredState, SitePolicy
from skerry.spec.image import Image, ImageVariant
from skerry.spec.report import Observed
from skerry.spec.topics import BrokerKind, TopicsSpec
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_bus import MemoryBroker, MemoryBus
from tests.unit.test_host_certificates import Machine
from tests.unit.upstream import NOW

LINE = TopicsSpec(publish=("plant/line1/#",))
RULES = TopicsSpec(subscribe=("plant/line1/#",), publish=("plant/orders",))
BOX = Component(name="box", command=("run",))


class Host:
    """A host's bus on a broker in memory, and what it is asked about."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryAgentStore()
        self.memory = MemoryBus()
        self.brokers: dict[str, MemoryBroker] = {}
        self.files = SecretFiles(root / "memory")
        self.facts: dict[str, ReleaseFact] = {}
        self.records: dict[str, ApplicationRecord] = {}
        self.instances: dict[str, InstanceView] = {}
        self.kind: BrokerKind | None = None
        self.notes: list[tuple[str, str]] = []
        self.woken = 0
        self.machine = Machine(root / "pki")
        self.door = TlsBusDoor()
        self.begin()

    def begin(self) -> None:
        """Begin as a new agent does."""
        self.gateways: dict[str, str] = {}
        boxed = ContainerParts(
            door=self.door, gateways=self._gateways, local=self.machine.local, clock=self.machine.clock
        )
        linking = LinkParts(
            host="edge",
            site="harbour",
            door=TlsBusLinks(),
            client=self.memory.client,
            local=self.machine.local,
            clock=SystemClock(),
            note=self._note,
        )
        parts = BusParts(
            open=self._open,
            files=self.files,
            store=self.store,
            note=self._note,
            fact_of=self.facts.get,
            containers=ContainerSide(boxed),
            links=HostLinks(linking),
        )
        self.bus = HostBus(parts)
        self.bus.on_change = self._wake

    def release(
        self, application: str, digest: str, topics: TopicsSpec, *components: Component
    ) -> ReleaseFact:
        """Have the document of a release here."""
        fact = ReleaseFact(
            name=f"{application}@{digest}", digest=digest, components=components or (BOX,), topics=topics
        )
        self.facts[digest] = fact
        return fact

    def run(self, application: str, digest: str, topics: TopicsSpec, *components: Component) -> ReleaseFact:
        """Have a release here for good."""
        self.records[application] = ApplicationRecord(application=application, good=digest)
        return self.release(application, digest, topics, *components)

    async def step(self) -> None:
        policy = SitePolicy(broker=self.kind)
        desired = DesiredState(site="harbour", generation=1, issued_at=NOW, expires_at=NOW, policy=policy)
        await self.bus.follow(Turn(desired=desired, records=self.records, instances=self.instances))
        await self.bus.step()

    @property
    def settings(self) -> BrokerSettings:
        (settings,) = self.memory.settings.values()
        return settings

    @property
    def accounts(self) -> dict[str, BusAccount]:
        return {account.user: account for account in self.settings.accounts}

    async def _gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        return {name: self.gateways[name] for name in networks if name in self.gateways}

    def _open(self, kind: BrokerKind) -> MemoryBroker:
        return self.brokers.setdefault(kind, MemoryBroker(self.memory, name=kind))

    def _note(self, kind: str, message: str = "") -> None:
        self.notes.append((kind, message))

    def _wake(self) -> None:
        self.woken += 1


def look_at(file: str) -> tuple[str, int]:
    return Path(file).read_text(), Path(file).stat().st_mode


async def names_at(address: str, port: int) -> set[str]:
    """Return what the certificate is for that is shown at a place."""
    shown = await asyncio.to_thread(ssl.get_server_certificate, (address, port), timeout=20)
    certificate = load_pem_x509_certificate(shown.encode())
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    return set(names.get_values_for_type(DNSName))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.bus.close()


async def test_a_host_whose_applications_need_no_bus_has_none(host: Host) -> None:
    host.run("talker", "d1", TopicsSpec())
    await host.step()
    assert host.brokers == {}
    assert host.store.load("bus") is None
    assert host.bus.show(Observed()) == Observed()
    assert host.bus.give("talker", host.facts["d1"], BOX) == NOTHING


@pytest.mark.rule("BUS-1")
async def test_each_application_gets_exactly_its_rights(host: Host) -> None:
    line = host.run("line", "d1", LINE)
    host.run("rules", "d2", RULES)
    await host.step()
    assert {user: (a.publish, a.subscribe) for user, a in host.accounts.items()} == {
        "line": (LINE.publish, ()),
        "rules": (RULES.publish, RULES.subscribe),
    }
    assert host.settings.listen == "127.0.0.1"
    given = host.bus.give("line", line, BOX)
    assert given.env["SKERRY_BUS_URL"] == f"mqtt://127.0.0.1:{host.settings.port}"
    content, mode = look_at(given.env["SKERRY_BUS_PASSWORD_FILE"])
    assert content == host.accounts["line"].password != host.accounts["rules"].password
    assert mode & 0o077 == 0
    assert host.accounts["line"].password not in str(given)
    view = host.bus.show(Observed()).bus
    assert view is not None and view.running and view.applications == ("line", "rules")


async def test_a_container_finds_its_password_where_it_is_mounted(host: Host) -> None:
    image = Image(variants=(ImageVariant(name="any", source="x.tar"),))
    boxed = Component(name="box", image=image, container=Container(network="host", user="1000"))
    inside = msgspec.structs.replace(boxed, name="inside", container=Container())
    fact = host.run("line", "d1", LINE, boxed, inside)
    await host.step()
    lone = msgspec.structs.replace(boxed, name="lone", container=Container(network="none"))
    given = host.bus.give("line", fact, boxed)
    assert given.env["SKERRY_BUS_URL"] == f"mqtt://127.0.0.1:{host.settings.port}"
    assert given.env["SKERRY_BUS_PASSWORD_FILE"] == f"{BUS}/password"
    assert given.host_names == ()
    assert [(mount.target, (mount.source / "password").read_text()) for mount in given.mounts] == [
        (BUS, host.accounts["line"].password)
    ]
    assert host.bus.give("line", fact, lone) == NOTHING
    host.release("line", "d2", LINE, lone)
    assert "network: none" in host.bus.withheld({"d2"})["d2"]


@pytest.mark.rule("BUS-4")
async def test_a_container_with_a_network_of_its_own_comes_by_tls(host: Host) -> None:
    image = Image(variants=(ImageVariant(name="any", source="x.tar"),))
    fact = host.run("line", "d1", LINE, Component(name="box", image=image))
    await host.step()
    assert "there is no certificate" in host.bus.withheld({"d1"})["d1"]
    with pytest.raises(Unavailable, match="there is no certificate"):
        host.bus.give("line", fact, fact.components[0])
    host.machine.exchange()
    await host.step()
    assert host.bus.withheld({"d1"}) == {}
    given = host.bus.give("line", fact, fact.components[0])
    port = int(given.env["SKERRY_BUS_PORT"])
    assert given.env["SKERRY_BUS_URL"] == f"mqtts://{BUS_NAME}:{port}"
    assert given.env["SKERRY_BUS_CA"] == f"{BUS}/ca.pem" and "SKERRY_BUS_NATS_URL" not in given.env
    assert given.host_names == (BUS_NAME,)
    files = {path.name: path.read_text() for path in given.mounts[0].source.iterdir()}
    assert files == {"password": host.accounts["line"].password, "ca.pem": host.machine.root.pem}
    assert host.settings.listen == "127.0.0.1" and host.settings.tls is None


async def test_the_door_follows_the_networks_of_containers(host: Host) -> None:
    image = Image(variants=(ImageVariant(name="any", source="x.tar"),))
    fact = host.run("line", "d1", LINE, Component(name="box", image=image))
    host.machine.exchange()
    await host.step()
    port = int(host.bus.give("line", fact, fact.components[0]).env["SKERRY_BUS_PORT"])
    instance = fact.instance_id("line", "box")
    labels = {"application": "line", "release": "d1"}
    host.instances[instance] = InstanceView(id=instance, state="running", labels=labels)
    host.gateways[network_of("line", fact)] = "127.0.0.3"
    await host.step()
    assert await names_at("127.0.0.3", port) == {BUS_NAME}
    host.gateways[network_of("line", fact)] = "192.0.2.1"
    host.machine.clock.advance(LOOK_S)
    await host.step()
    view = host.bus.show(Observed()).bus
    assert view is not None and "cannot listen at 192.0.2.1" in view.trouble
    host.instances.clear()
    await host.step()
    view = host.bus.show(Observed()).bus
    assert view is not None and not view.trouble
    with pytest.raises(ConnectionRefusedError):
        await names_at("127.0.0.3", port)


async def test_a_release_waits_until_the_bus_is_there_for_it(host: Host) -> None:
    fact = host.release("line", "d1", LINE)
    host.release("other", "d9", TopicsSpec())
    assert set(host.bus.withheld({"d1", "d9", "unknown"})) == {"d1"}
    with pytest.raises(Unavailable) as caught:
        host.bus.give("line", fact, BOX)
    assert caught.value.code == "bus.not_ready"
    host.records["line"] = ApplicationRecord(application="line", candidate="d1")
    await host.step()
    assert host.bus.withheld({"d1"}) == {}
    assert host.woken == 1
    host.release("line", "d2", RULES)
    assert set(host.bus.withheld({"d1", "d2"})) == {"d2"}, "it needs more than is in force"


@pytest.mark.rule("BUS-1")
async def test_a_trial_has_the_rights_of_both_releases_and_after_it_those_that_are_left(host: Host) -> None:
    host.run("line", "d1", LINE)
    host.release("line", "d2", RULES)
    host.records["line"] = ApplicationRecord(application="line", good="d1", candidate="d2")
    await host.step()
    assert host.accounts["line"].publish == ("plant/line1/#", "plant/orders")
    host.records["line"] = ApplicationRecord(application="line", good="d2", previous="d1")
    old = {"application": "line", "release": "d1"}
    host.instances["i"] = InstanceView(id="i", state="stopping", labels=old)
    await host.step()
    assert set(host.accounts["line"].publish) == {"plant/line1/#", "plant/orders"}, "the old one still ends"
    host.instances.clear()
    await host.step()
    assert (host.accounts["line"].publish, host.accounts["line"].subscribe) == (
        RULES.publish,
        RULES.subscribe,
    )


@pytest.mark.rule("BUS-2")
async def test_who_leaves_loses_account_and_files_and_the_last_one_takes_the_bus_along(host: Host) -> None:
    line, _ = host.run("line", "d1", LINE), host.run("rules", "d2", RULES)
    await host.step()
    folder = Path(host.bus.give("line", line, BOX).env["SKERRY_BUS_PASSWORD_FILE"]).parent
    password = host.accounts["rules"].password
    del host.records["line"]
    await host.step()
    assert list(host.accounts) == ["rules"] and not folder.exists()
    assert host.accounts["rules"].password == password
    host.records.clear()
    await host.step()
    assert host.memory.settings == {}
    assert host.bus.show(Observed()) == Observed()
    assert ("bus.ended", "nats") in host.notes
    assert list((host.files.folder("x").parent).iterdir()) == []
    await host.step()
    assert (
        host.store.load("bus")
        == b'{"kind":"none","port":0,"native_port":0,"rights":{},"door_port":0,"link_port":0}'
    )


async def test_what_is_not_known_takes_nothing_away(host: Host) -> None:
    host.run("line", "d1", LINE)
    await host.step()
    before = host.accounts
    host.facts.pop("d1")
    await host.step()
    assert host.accounts == before
    host.begin()
    await host.step()
    assert host.accounts == before, "nor does another agent"


async def test_another_agent_finds_the_same_ports_and_passwords(host: Host) -> None:
    host.run("line", "d1", LINE)
    await host.step()
    before = host.settings
    host.begin()
    await host.step()
    assert host.settings == before
    assert len(host.brokers["nats"].applied) == 1


async def test_a_reboot_draws_new_passwords(host: Host) -> None:
    host.run("line", "d1", LINE)
    await host.step()
    before = host.accounts["line"].password
    host.files.wipe()
    host.begin()
    await host.step()
    assert host.accounts["line"].password != before


async def test_what_hinders_the_broker_is_told_once_and_tried_again(host: Host) -> None:
    host.run("line", "d1", LINE)
    await host.step()
    host.brokers["nats"].fails = Unavailable("broker.unready", "it does not come up")
    host.run("rules", "d2", RULES)
    for _ in range(3):
        await host.step()
    assert [note for note in host.notes if note[0] == "bus.trouble"] == [
        ("bus.trouble", "broker.unready: it does not come up")
    ]
    assert "it does not come up" in host.bus.withheld({"d2"})["d2"]
    assert host.bus.withheld({"d1"}) == {}
    view = host.bus.show(Observed()).bus
    assert view is not None and view.trouble == "it does not come up"
    host.brokers["nats"].fails = None
    await host.step()
    assert host.bus.withheld({"d2"}) == {}


@pytest.mark.rule("BUS-3")
async def test_a_broker_that_died_is_started_again(host: Host) -> None:
    host.run("line", "d1", LINE)
    await host.step()
    host.memory.settings.clear()
    await host.bus.step()
    assert list(host.accounts) == ["line"]
    assert ("bus.restarted", "nats") in host.notes


async def test_a_site_may_have_another_broker_or_none(host: Host) -> None:
    fact = host.run("line", "d1", LINE)
    host.kind = "mosquitto"
    await host.step()
    assert list(host.brokers) == ["mosquitto"]
    assert "SKERRY_BUS_NATS_URL" not in host.bus.give("line", fact, BOX).env
    host.kind = "nats"
    await host.step()
    assert "SKERRY_BUS_NATS_URL" in host.bus.give("line", fact, BOX).env
    host.kind = "none"
    await host.step()
    assert host.memory.settings == {}
    assert "broker: none" in host.bus.withheld({"d1"})["d1"]


async def test_a_host_without_memory_for_passwords_says_so(host: Host) -> None:
    host.files.root = None
    host.run("line", "d1", LINE)
    for _ in range(2):
        await host.step()
    (note,) = host.notes
    assert note[0] == "bus.trouble" and "SKERRY_RUN_DIR" in note[1]
    assert "no file system in memory" in host.bus.withheld({"d1"})["d1"]
    view = host.bus.show(Observed()).bus
    assert view is not None and not view.running and "in memory" in view.trouble
