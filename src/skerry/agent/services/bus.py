"""A host's message bus: runs the broker while applications here use it, and gives each exactly its own rights.

Each application has one account, with the topics of its releases that run here or are on trial. Passwords are drawn on
the host and are in memory alone: a reboot, which restarts all applications, draws new ones. What takes long is done
beside the reconcile loop; until it is done, releases that need it are held back. Nothing here needs a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from skerry.agent.secret_files import Owner, SecretFiles
from skerry.agent.services.bus_containers import BUS_NAME, ContainerSide
from skerry.agent.services.bus_links import HostLinks
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.agent.services.places import ComponentPlace, network_of, places_of
from skerry.kit.errors import SkerryError, Unavailable, as_failure
from skerry.ports.agent_store import AgentStore
from skerry.ports.broker import Broker, BrokerSettings, BusAccount, BusPlace
from skerry.ports.runtime import Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed
from skerry.spec.topics import BrokerKind, BusView, TopicsSpec

BUS = "/skerry/bus"
"""Where a container finds what opens the bus."""
LOOPBACK = "127.0.0.1"
_PERIOD_S = 1.0
_PASSWORD = "password"  # noqa: S105 (a file's name)
_AUTHORITIES = "ca.pem"
_ACCOUNTS = "accounts"
_PREFERRED = 1883
_PREFERRED_NATIVE = 4222
_PREFERRED_DOOR = 8883
_KEY = "bus"
OWN = "skerry_agent"
"""The agent's own account; no application has such a name."""


class BusParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the service works with. `open` returns the broker of a kind; `fact_of` tells of a release by digest.

    `containers` is what those with networks of their own come by, `links` joins the bus with those of other hosts.
    """

    open: Callable[[BrokerKind], Broker]
    files: SecretFiles
    store: AgentStore
    note: Callable[..., None]
    fact_of: Callable[[str], ReleaseFact | None]
    containers: ContainerSide
    links: HostLinks


class _Kept(msgspec.Struct, frozen=True):
    """What is remembered: which broker was run, the ports that were chosen once, and rights by application."""

    kind: BrokerKind = "none"
    port: int = 0
    native_port: int = 0
    rights: Mapping[str, TopicsSpec] = {}
    door_port: int = 0
    link_port: int = 0


class HostBus(HostService):
    """The message bus of one host."""

    name = "bus"

    def __init__(self, parts: BusParts) -> None:
        super().__init__()
        self._parts = parts
        self._kept = msgspec.json.decode(parts.store.load(_KEY) or b"{}", type=_Kept)
        self._kind: BrokerKind = self._kept.kind
        self._wanted: dict[str, BusAccount] = {}
        self._in_force: dict[str, BusAccount] = {}
        self._looked = False
        self._due = asyncio.Event()
        self._brokers: dict[BrokerKind, Broker] = {}
        self._trouble = self._unplaced = self._unlinked = ""
        self._pid = 0

    # ── what the reconcile loop asks ─────────────────────────────────────────────────────────────────

    async def follow(self, turn: Turn) -> None:
        """Work out who may do what, and have the broker brought there; what runs keeps its files."""
        if turn.desired is not None:
            self._kind = turn.desired.policy.broker or "nats"
        places, whole = places_of(turn, self._parts.fact_of, lambda _: True)
        places = {name: place for name, place in places.items() if place.fact.topics.is_used}
        topics = _topics_of(turn, self._parts.fact_of)
        self._follow_containers(turn, places)
        self._parts.links.follow(turn)
        if not topics and not self._in_force and self._kept == _Kept():
            self._unplaced = ""
            return  # most hosts have no bus
        try:
            self._follow(places, topics, whole=whole)
        except SkerryError as error:
            self._unplaced = self._told("bus.trouble", error, before=self._unplaced)
        else:
            self._unplaced = ""

    def _follow(
        self, places: Mapping[str, ComponentPlace], topics: Mapping[str, TopicsSpec], *, whole: bool
    ) -> None:
        # A document that is missing, here or in an earlier run of the agent, takes nothing away.
        rights = dict(topics) if whole else {**self._kept.rights, **topics}
        wanted = {name: self._account(name, rights[name]) for name in sorted(rights)}
        own = own_topics(rights.values())
        if own.is_used:
            wanted[OWN] = self._account(OWN, own)
        if rights != self._kept.rights:
            self._remember(msgspec.structs.replace(self._kept, rights=rights))
        for place in places.values():
            if place.application in wanted and self._parts.files.has(place.name):
                self._place(place, wanted[place.application])
        if whole:
            self._parts.files.forget({*places, *(f"{_ACCOUNTS}.{name}" for name in wanted)})
        if wanted != self._wanted or not self._looked:
            self._wanted, self._looked = wanted, True
            self._due.set()

    def _follow_containers(self, turn: Turn, places: Mapping[str, ComponentPlace]) -> None:
        boxed = [place for place in places.values() if _is_apart(place.component)]
        running = {key for key, view in turn.instances.items() if view.state in ("running", "stopping")}
        networks = {network_of(p.application, p.fact) for p in boxed if p.instance in running}
        self._parts.containers.follow(networks, needed=bool(boxed) and self._kind != "none")

    def withheld(self, digests: set[str]) -> dict[str, str]:
        """Return which of these releases wait for the bus, and why it is not there for them."""
        found: dict[str, str] = {}
        for digest in digests:
            fact = self._parts.fact_of(digest)
            if fact is not None and fact.topics.is_used and (why := self._lacking(fact)):
                found[digest] = f"waiting for the message bus: {why}"
        return found

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return where a component that is about to be started finds the bus, and what opens it.

        Raises:
            Unavailable: the bus is not there for it (`bus.not_ready`).
        """
        if not fact.topics.is_used or not _reaches(component):
            return NOTHING
        account = self._in_force.get(application)
        if account is None:
            raise Unavailable("bus.not_ready", f"the message bus is not there: {self._lacking(fact)}")
        apart = _is_apart(component)
        if apart and (why := self._parts.containers.lacking):
            raise Unavailable("bus.not_ready", f"the message bus is not there for containers: {why}")
        place = ComponentPlace(application, fact, component)
        self._place(place, account)
        folder = self._parts.files.folder(place.name)
        seen = BUS if component.image is not None else str(folder)
        kept = self._kept
        scheme, host, port = ("mqtts", BUS_NAME, kept.door_port) if apart else ("mqtt", LOOPBACK, kept.port)
        env = {
            "SKERRY_BUS_URL": f"{scheme}://{host}:{port}",
            "SKERRY_BUS_HOST": host,
            "SKERRY_BUS_PORT": str(port),
            "SKERRY_BUS_USER": account.user,
            "SKERRY_BUS_PASSWORD_FILE": f"{seen}/{_PASSWORD}",
        }
        if apart:
            env["SKERRY_BUS_CA"] = f"{seen}/{_AUTHORITIES}"
        elif kept.kind == "nats":
            env["SKERRY_BUS_NATS_URL"] = f"nats://{LOOPBACK}:{kept.native_port}"
        return Given(env=env, mounts=(Mount(folder, BUS),), host_names=(BUS_NAME,) if apart else ())

    def show(self, observed: Observed) -> Observed:
        if self._kept.kind == "none" and not self._wanted and not self._unplaced:
            return observed
        view = BusView(
            broker=self._kept.kind,
            running=bool(self._pid),
            applications=tuple(sorted(self._in_force.keys() - {OWN})),
            trouble=(self._unplaced or self._trouble or self._parts.containers.trouble or self._unlinked)[
                :1024
            ],
            links=self._parts.links.views,
        )
        return msgspec.structs.replace(observed, bus=view)

    @property
    def rights(self) -> Mapping[str, TopicsSpec]:
        """What applications here declare."""
        return self._kept.rights

    def own_place(self) -> BusPlace | None:
        """Return where the agent itself finds the bus; None while it is not there or nothing needs it."""
        account = self._in_force.get(OWN)
        if account is None or not self._pid:
            return None
        return BusPlace(
            address=LOOPBACK, port=self._kept.port, user=OWN, password=account.password, client=OWN
        )

    # ── the broker ───────────────────────────────────────────────────────────────────────────────────

    async def run_forever(self) -> None:
        """Bring the broker to what is wanted, at every change and every second: one that died comes back."""
        while True:
            self._due.clear()
            await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S):
                    await self._due.wait()

    async def step(self) -> None:
        """Bring the broker to what is wanted, once; what hinders it is told when it begins, and tried again."""
        if not self._looked:
            return
        before = self._seen()
        try:
            await self._bring()
            await self._parts.containers.step(self._kept.door_port, self._kept.port)
        except (SkerryError, OSError) as caught:
            self._trouble = self._told("bus.trouble", as_failure(caught), before=self._trouble)
        else:
            self._trouble = ""
        try:
            await self._step_links()
        except (SkerryError, OSError) as caught:
            self._unlinked = self._told("bus.unlinked", as_failure(caught), before=self._unlinked)
        else:
            self._unlinked = ""
        if before != self._seen():
            self.on_change()

    def _seen(self) -> tuple[object, ...]:
        """Return what others are shown of it."""
        parts = self._parts
        return (
            self._in_force,
            self._trouble,
            self._unlinked,
            parts.containers.trouble,
            parts.links.views,
            parts.links.facts(),
        )

    async def _step_links(self) -> None:
        links, kept = self._parts.links, self._kept
        if kept.kind == "none" or not self._in_force:
            await links.close()
            return
        port = await links.step(kept.port, kept.link_port)
        if port != kept.link_port:
            self._remember(msgspec.structs.replace(self._kept, link_port=port))

    def facts(self) -> HostFacts:
        """Return where other hosts of the site find this bus."""
        return self._parts.links.facts()

    async def close(self) -> None:
        """Close what is the agent's own; the broker goes on."""
        await self._parts.containers.close()
        await self._parts.links.close()

    def _told(self, kind: str, error: SkerryError, *, before: str) -> str:
        """Tell what is wrong when it begins, and return it."""
        if before != str(error):
            self._parts.note(kind, f"{error.code}: {error}")
        return str(error)

    async def _bring(self) -> None:
        kind: BrokerKind = self._kind if self._wanted else "none"
        kept = self._kept
        if kept.kind not in ("none", kind):
            # Nobody uses it any more, or the site has another one: what it kept goes with it.
            await self._broker(kept.kind).erase()
            self._parts.note("bus.ended", kept.kind)
            self._in_force, self._pid = {}, 0
            self._remember(_Kept(rights=self._kept.rights))
        if kind == "none":
            self._in_force = {}
            return
        wanted, broker = self._wanted, self._broker(kind)
        found = (await broker.state()).pid
        # Ports are kept, unless somebody else took one while this host was off.
        lost = not self._pid and not found and not all(map(_is_free, _ports(self._kept)))
        if self._kept.kind != kind or lost:
            native = _free_port(_PREFERRED_NATIVE) if kind == "nats" else 0
            port = _free_port(_PREFERRED)
            self._remember(msgspec.structs.replace(self._kept, kind=kind, port=port, native_port=native))
        if not self._kept.door_port:
            self._remember(msgspec.structs.replace(self._kept, door_port=_free_port(_PREFERRED_DOOR)))
        ended = bool(self._pid) and not found
        linking = self._parts.links.account
        await broker.apply(self._settings((*wanted.values(), *([linking] if linking else []))))
        pid = (await broker.state()).pid
        if not found:
            self._parts.note("bus.restarted" if ended else "bus.running", kind)
        self._pid, self._in_force = pid, wanted

    def _settings(self, accounts: tuple[BusAccount, ...]) -> BrokerSettings:
        kept = self._kept
        return BrokerSettings(
            accounts=accounts, listen=LOOPBACK, port=kept.port, native_port=kept.native_port
        )

    def _broker(self, kind: BrokerKind) -> Broker:
        if kind not in self._brokers:
            self._brokers[kind] = self._parts.open(kind)
        return self._brokers[kind]

    def _remember(self, kept: _Kept) -> None:
        self._kept = kept
        self._parts.store.save({_KEY: msgspec.json.encode(kept)})

    # ── accounts ─────────────────────────────────────────────────────────────────────────────────────

    def _account(self, application: str, topics: TopicsSpec) -> BusAccount:
        return BusAccount(
            user=application,
            password=self._password(application),
            publish=topics.publish,
            subscribe=topics.subscribe,
        )

    def _password(self, application: str) -> str:
        """Return an application's password: the one in memory, or one that is drawn now."""
        place = f"{_ACCOUNTS}.{application}"
        file = self._parts.files.folder(place) / _PASSWORD
        if not file.exists():
            drawn = secrets.token_urlsafe(32).encode()
            self._parts.files.put(place, {_PASSWORD: drawn}, Owner(), mark=drawn)
        return file.read_text(encoding="ascii")

    def _place(self, place: ComponentPlace, account: BusAccount) -> None:
        user = place.component.container.user.partition(":")[0]
        owner = Owner(place.component.image is not None, int(user) if user.isdigit() else None)
        files = {_PASSWORD: account.password.encode()}
        if _is_apart(place.component):
            files[_AUTHORITIES] = self._parts.containers.authorities()
        self._parts.files.put(place.name, files, owner, mark=tuple(files.values()))

    def _lacking(self, fact: ReleaseFact) -> str:
        """Return why the bus is not there for a release; empty when it is."""
        if self._kind == "none":
            return "this site has none (broker: none)"
        beyond = [component.name for component in fact.components if not _reaches(component)]
        if len(beyond) == len(fact.components):
            return f"{', '.join(beyond)} has no network to reach it by (network: none)"
        if any(map(_is_apart, fact.components)) and (why := self._parts.containers.lacking):
            return why
        application = fact.name.partition("@")[0]
        account = self._in_force.get(application)
        if account is None or not (
            set(fact.topics.publish) <= set(account.publish)
            and set(fact.topics.subscribe) <= set(account.subscribe)
        ):
            return self._unplaced or self._trouble or "it is being brought up"
        return ""


def _reaches(component: Component) -> bool:
    return component.image is None or component.container.network != "none"


def _is_apart(component: Component) -> bool:
    """Tell whether a component is in a network of its own, from where it cannot reach the loopback address."""
    return component.image is not None and component.container.network not in ("none", "host")


def _topics_of(turn: Turn, fact_of: Callable[[str], ReleaseFact | None]) -> dict[str, TopicsSpec]:
    """Return the topics of each application's releases that run here, or are to."""
    found: dict[str, TopicsSpec] = {}
    for application, digest in _in_use(turn):
        fact = fact_of(digest)
        if fact is not None and fact.topics.is_used:
            before = found.get(application, TopicsSpec())
            found[application] = TopicsSpec(
                publish=tuple(dict.fromkeys((*before.publish, *fact.topics.publish))),
                subscribe=tuple(dict.fromkeys((*before.subscribe, *fact.topics.subscribe))),
                # Of two releases with a rule for one topic the one under trial has the say.
                uplink=tuple({one.topic: one for one in (*before.uplink, *fact.topics.uplink)}.values()),
                downlink=tuple(dict.fromkeys((*before.downlink, *fact.topics.downlink))),
            )
    return found


def own_topics(rights: Iterable[TopicsSpec]) -> TopicsSpec:
    """Return what the agent itself may do on the bus: read what goes up to the hub, publish what comes from it."""
    every = list(rights)
    return TopicsSpec(
        publish=tuple(dict.fromkeys(topic for one in every for topic in one.downlink)),
        subscribe=tuple(dict.fromkeys(rule.topic for one in every for rule in one.uplink)),
    )


def _in_use(turn: Turn) -> Iterator[tuple[str, str]]:
    for name, record in sorted(turn.records.items()):
        yield from ((name, digest) for digest in (record.good, record.candidate) if digest)
    for view in turn.instances.values():
        labels: Mapping[str, str] = view.labels
        if labels.get("release"):
            yield labels.get("application", ""), labels["release"]


def _ports(kept: _Kept) -> tuple[int, ...]:
    return tuple(port for port in (kept.port, kept.native_port) if port)


def _free_port(preferred: int) -> int:
    """Return a port of the loopback address that nobody listens on: the usual one if it is free."""
    if _is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As brokers do: what is left of connections that have ended holds nothing up.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
