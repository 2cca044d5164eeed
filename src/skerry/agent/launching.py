"""Turns a component of a laid-out release into what a runtime starts: paths, ports, mounts, limits, names.

In a container, models are at `/skerry/models`, the component's own directory at `/skerry/data`, golden inputs at
`/skerry/self-test`, and volumes where the component says. Services of the host (`skerry.agent.services`) add to that;
to self-tests they give nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

import msgspec

from skerry.agent.live_configuration import LABEL, LiveConfiguration
from skerry.agent.live_models import LiveModels
from skerry.agent.releases import Releases
from skerry.agent.services.host_service import Give, Given, give_nothing
from skerry.agent.services.places import network_of
from skerry.agent.volumes import Volumes
from skerry.kit.digests import short
from skerry.kit.errors import Rejected, Unavailable
from skerry.kit.quantities import parse_cpu, parse_size
from skerry.ports.agent_store import AgentStore
from skerry.ports.runtime import ContainerSpec, InstanceSpec, Limits, Mount
from skerry.reconcile.kinship import is_hot
from skerry.reconcile.records import ReleaseFact
from skerry.reconcile.render import Place, Rendered, Unresolved, render_component
from skerry.spec.application import Component
from skerry.spec.checks_bindings import binding_references

LOG_BYTES = 1 << 20
MODELS = "/skerry/models"
DATA = "/skerry/data"
SELF_TEST = "/skerry/self-test"
SELF_TEST_ROLE = "self-test"


class Site(msgspec.Struct, frozen=True):
    """Who and where this host is; `variables` are those of the desired state it acts on."""

    host: str
    site: str
    variables: Callable[[], Mapping[str, str]]
    give: Give = give_nothing
    configuration: LiveConfiguration | None = None


class Launcher:
    """Makes instance specs. Ports are chosen once and kept."""

    def __init__(
        self, site: Site, store: AgentStore, releases: Releases, volumes: Volumes, live: LiveModels
    ) -> None:
        self._site = site
        self._store = store
        self._releases = releases
        self._volumes = volumes
        self._live = live
        self._ports: dict[str, int] = msgspec.json.decode(store.load("ports") or b"{}", type=dict[str, int])

    def launch(self, application: str, fact: ReleaseFact, component: Component) -> InstanceSpec:
        """Return how a component is started.

        Raises:
            Rejected: this host has no value for something it names (`component.unresolved`).
            Unavailable: what it needs is not here any more, such as its image.
        """
        host_ports = {
            port.name: self._port(application, fact, component, port.name) for port in component.ports
        }
        given = self._site.give(application, fact, component)
        place = self._place(application, fact, component, host_ports)
        labels = {"application": application, "component": component.name, "release": fact.digest}
        place = msgspec.structs.replace(place, env=given.env, values=given.values)
        mounts = given.mounts
        if self._site.configuration is not None and component.config is not None:
            told = self._site.configuration.start(application, fact, component, _local(component, place))
            labels[LABEL] = self._site.configuration.mark(fact, component)
            place = msgspec.structs.replace(
                place, env={**given.env, **told.env}, values={**given.values, **told.values}
            )
            mounts = (*mounts, *told.mounts)
        rendered = _rendered(component, place)
        if fact.family:
            labels["family"] = fact.family
        labels.update((f"port.{name}", str(number)) for name, number in host_ports.items())
        container = self._container(application, fact, component, rendered, host_ports)
        return InstanceSpec(
            id=fact.instance_id(application, component.name),
            command=rendered.args if component.image else rendered.command,
            env=rendered.env,
            directory=self._volumes.own(application, component.name),
            limits=_limits(component),
            labels=labels,
            container=_with_given(container, msgspec.structs.replace(given, mounts=mounts)),
            secret_env=given.secret_env,
        )

    def launch_test(self, application: str, fact: ReleaseFact, component: Component) -> InstanceSpec:
        """Return how a component's self-test is started: no ports, no volumes, the release's own models."""
        test = component.self_test
        assert test is not None
        inputs = self._releases.folder(fact.digest) / "inputs" / component.name
        asked = msgspec.structs.replace(component, command=test.command, args=(), on_change=None)
        place = self._place(application, fact, asked, {})
        # A self-test is joined to nothing: what names a binding finds an empty word.
        empty = dict.fromkeys(binding_references(fact.needs, component.name), "")
        seen = SELF_TEST if component.image else str(inputs)
        place = msgspec.structs.replace(place, self_test=seen, values=empty)
        rendered = _rendered(asked, place)
        bare = msgspec.structs.replace(asked, ports=(), volumes=())
        container = self._container(application, fact, bare, rendered, {})
        if container is not None:
            mounts = container.mounts
            if inputs.is_dir():
                mounts = (*mounts, Mount(inputs, SELF_TEST))
            container = msgspec.structs.replace(container, mounts=mounts, network="none", alias="")
        return InstanceSpec(
            id=f"{fact.instance_id(application, component.name)}.{SELF_TEST_ROLE}",
            command=rendered.args if component.image else rendered.command,
            env=rendered.env,
            directory=self._volumes.own(application, component.name),
            limits=_limits(component),
            labels={"application": application, "role": SELF_TEST_ROLE},
            container=container,
        )

    def forget(self, applications: set[str]) -> None:
        """Let go of the ports of applications that are gone."""
        kept = {key: port for key, port in self._ports.items() if key.split(".", 1)[0] in applications}
        if kept != self._ports:
            self._ports = kept
            self._store.save({"ports": msgspec.json.encode(kept)})

    def _place(
        self, application: str, fact: ReleaseFact, component: Component, host_ports: Mapping[str, int]
    ) -> Place:
        boxed = component.image is not None
        folder = self._releases.folder(fact.digest)
        if is_hot(component):
            root = MODELS if boxed else str(self._live.directory(fact.kin))
            models = {m.name: f"{root}/current/{m.name}" for m in component.models}
        else:
            root = MODELS if boxed else str(folder / "models")
            models = {m.name: f"{root}/{m.name}" for m in component.models}
        inside = {port.name: port.port or host_ports.get(port.name, 0) for port in component.ports}
        return Place(
            site=self._site.site,
            host=self._site.host,
            application=application,
            release=fact.name,
            data=DATA if boxed else str(self._volumes.own(application, component.name)),
            bundle=str(folder / "bundles" / component.name) if component.bundle else "",
            models=models,
            ports=inside,
            volumes={
                v.name: v.path if boxed else str(self._volumes.place(application, component.name, v.name))
                for v in component.volumes
            },
            devices=self._releases.devices(fact.digest, component.name),
            variables=self._site.variables(),
            # A container brings its own.
            path="" if boxed else os.environ.get("PATH", os.defpath),
        )

    def _container(
        self,
        application: str,
        fact: ReleaseFact,
        component: Component,
        rendered: Rendered,
        host_ports: Mapping[str, int],
    ) -> ContainerSpec | None:
        if component.image is None:
            return None
        image = self._releases.image(fact.digest, component.name)
        if image is None:
            raise Unavailable("runtime.image_missing", f"the image of {component.name} is not known any more")
        options = component.container
        network = options.network
        entrypoint = rendered.command if component.command else None
        return ContainerSpec(
            image=image.identity,
            entrypoint=entrypoint,
            user=options.user,
            directory=options.working_directory or "",
            read_only=options.read_only,
            capabilities=options.capabilities,
            tmpfs={tmpfs.path: parse_size(tmpfs.size) for tmpfs in options.tmpfs},
            shm_bytes=parse_size(options.shared_memory),
            devices=tuple(self._releases.devices(fact.digest, component.name).values()),
            mounts=tuple(self._mounts(application, fact, component)),
            network=network_of(application, fact) if network == "application" else network,
            alias=component.name,
            ports={port.port or host_ports[port.name]: host_ports[port.name] for port in component.ports}
            if network == "application"
            else {},
            init=options.init,
        )

    def _mounts(self, application: str, fact: ReleaseFact, component: Component) -> list[Mount]:
        mounts = [Mount(self._volumes.own(application, component.name), DATA, writable=True)]
        if component.models:
            hot = is_hot(component)
            models = self._live.directory(fact.kin) if hot else self._releases.folder(fact.digest) / "models"
            mounts.append(Mount(models, MODELS))
        mounts.extend(
            Mount(self._volumes.place(application, component.name, volume.name), volume.path, writable=True)
            for volume in component.volumes
        )
        return mounts

    def _port(self, application: str, fact: ReleaseFact, component: Component, name: str) -> int:
        """Return the port of the host for a component's port: as stated, or chosen once and kept."""
        stated = next(port.port for port in component.ports if port.name == name)
        if stated and (component.image is None or component.container.network == "host"):
            return stated
        key = f"{application}.{component.name}.{name}.{short(fact.kin)}"
        if key not in self._ports:
            # An update that ends the old release first keeps its port; one that runs beside it cannot.
            mine = f"{application}.{component.name}.{name}"
            kept = {k: port for k, port in self._ports.items() if k == mine or k.startswith(f"{mine}.")}
            for old in [k for k, port in kept.items() if _is_free(port)]:
                self._ports[key] = self._ports.pop(old)
            self._ports.setdefault(key, _free_port(set(self._ports.values())))
            self._store.save({"ports": msgspec.json.encode(self._ports)})
        return self._ports[key]


def _with_given(container: ContainerSpec | None, given: Given) -> ContainerSpec | None:
    if container is None or not (given.mounts or given.devices or given.host_names or given.dns):
        return container
    devices = tuple(dict.fromkeys((*container.devices, *given.devices)))
    mounts = (*container.mounts, *given.mounts)
    names = given.host_names if container.network not in ("none", "host") else ()
    return msgspec.structs.replace(container, mounts=mounts, devices=devices, host_names=names, dns=given.dns)


def _local(component: Component, place: Place) -> dict[str, str]:
    """Return what references of a configuration stand for where a component runs."""
    local = {"data": place.data}
    local |= {f"port.{name}": str(number) for name, number in place.ports.items()}
    local |= {f"model.{name}": path for name, path in place.models.items()}
    secrets = place.values.get("secrets", "")
    local |= {f"secret.{use.name}": f"{secrets}/{use.path}" for use in component.secrets if use.path}
    return local | {name: value for name, value in place.values.items() if name.startswith("binding.")}


def _rendered(component: Component, place: Place) -> Rendered:
    rendered = render_component(component, place)
    if isinstance(rendered, Unresolved):
        names = ", ".join(f"${{{name}}}" for name in rendered.names)
        raise Rejected("component.unresolved", f"this site gives no value for {names}")
    if component.image is None:
        return msgspec.structs.replace(rendered, command=(*rendered.command, *rendered.args))
    return rendered


def _limits(component: Component) -> Limits:
    resources = component.resources
    return Limits(
        memory_bytes=parse_size(resources.memory) if resources.memory else 0,
        cpus=parse_cpu(resources.cpu) if resources.cpu else 0.0,
        pids=resources.pids or 0,
        log_bytes=LOG_BYTES,
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
