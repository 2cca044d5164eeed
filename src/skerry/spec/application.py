"""`Application`: components, the models they mount, their ports, probes and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Cpu, Document, Duration, Name, Part, Size, Version
from skerry.spec.model import FileSpec

Argument = Annotated[str, Meta(max_length=4096)]
Command = Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=256)]
EnvName = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", description="letters, digits and _, no digit first")
]


class Bundle(Part, frozen=True, kw_only=True):
    """Files that are laid out in one read-only directory, which `${bundle}` names."""

    files: Annotated[tuple[FileSpec, ...], Meta(min_length=1, max_length=1024)]


class ModelMount(Part, frozen=True, kw_only=True):
    """A model the component needs; `${model.NAME}` is the directory of the chosen variant's files."""

    name: Name
    version: Version


class Port(Part, frozen=True, kw_only=True):
    """A port the component listens on; 0 lets the host choose a free one and keep it. `${port.NAME}` names it."""

    name: Name
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


class HttpProbe(Part, frozen=True, kw_only=True):
    """Passes when a GET answers with a status from 200 to 399."""

    port: Name
    path: Annotated[
        str,
        Meta(pattern=r"^/[^\s]*$", max_length=1024, description="a path that begins with /, without spaces"),
    ] = "/"


class TcpProbe(Part, frozen=True, kw_only=True):
    """Passes when a connection can be opened."""

    port: Name


class ExecProbe(Part, frozen=True, kw_only=True):
    """Passes when the command exits with 0."""

    command: Command


class Probe(Part, frozen=True, kw_only=True):
    """One question asked again and again; exactly one of `http`, `tcp`, `exec`."""

    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    exec: ExecProbe | None = None
    period: Duration = "5s"
    timeout: Duration = "2s"
    failures: Annotated[int, Meta(ge=1, le=10000)] = 3


class Probes(Part, frozen=True, kw_only=True):
    """`startup` must pass once before the others count; `readiness` says it may serve; `liveness`, that it lives."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


class Resources(Part, frozen=True, kw_only=True):
    """Upper limits, kept where the kernel allows; which mechanism holds is reported."""

    memory: Size | None = None
    cpu: Cpu | None = None


class Stop(Part, frozen=True, kw_only=True):
    """How to ask the component to end, and how long to wait before it is killed."""

    signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"] = "TERM"
    grace: Duration = "10s"


class Component(Part, frozen=True, kw_only=True):
    """One process of the application."""

    name: Name
    bundle: Bundle | None = None
    command: Command
    env: dict[EnvName, Argument] = {}
    models: Annotated[tuple[ModelMount, ...], Meta(max_length=64)] = ()
    ports: Annotated[tuple[Port, ...], Meta(max_length=64)] = ()
    probes: Probes = Probes()
    resources: Resources = Resources()
    stop: Stop = Stop()


class ApplicationSpec(Part, frozen=True, kw_only=True):
    """A version of an application."""

    version: Version
    components: Annotated[tuple[Component, ...], Meta(min_length=1, max_length=64)]


class Application(Document, frozen=True, kw_only=True, tag="Application"):
    """An application as people write it."""

    spec: ApplicationSpec
