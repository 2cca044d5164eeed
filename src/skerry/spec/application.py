"""`Application`: components, the models they mount, their ports, probes, confinement, and where they run."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.binding import MAX_NEEDS, BindingNeed
from skerry.spec.configuration import ApplicationConfig, FileFormat, KeyPath
from skerry.spec.hardware import Objective, Preference, Requirements
from skerry.spec.image import Image
from skerry.spec.ingress import Routes
from skerry.spec.metadata import Cpu, Document, Duration, Name, Part, RelativePath, Size, Version
from skerry.spec.metrics import Finite, MetricName
from skerry.spec.model import FileSpec
from skerry.spec.series import SeriesText
from skerry.spec.topics import TopicsSpec

Argument = Annotated[str, Meta(max_length=4096)]
Command = Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=256)]
Arguments = Annotated[tuple[Argument, ...], Meta(max_length=256)]
Signal = Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"]
AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/[^\s:,]*$",
        max_length=255,
        description="a path that begins with /, without spaces, : and ,",
    ),
]
HttpPath = Annotated[
    str, Meta(pattern=r"^/[^\s]*$", max_length=1024, description="a path that begins with /, without spaces")
]
# One pattern and not a choice of types: msgspec tells text by its type alone, so a class would never be tried.
DeviceUse = Annotated[
    str,
    Meta(
        pattern=r"^([a-z][a-z0-9]*|/dev/[^\s:,]+|[a-z0-9.-]+/[A-Za-z0-9_.-]+=\S+)$",
        max_length=255,
        description="a class such as camera, a path below /dev, or a name such as nvidia.com/gpu=0",
    ),
]
Capability = Annotated[
    str,
    Meta(pattern=r"^[A-Z][A-Z_]{2,40}$", description="a capability such as NET_BIND_SERVICE, without CAP_"),
]
EnvName = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", description="letters, digits and _, no digit first")
]


LabelsText = Annotated[
    str,
    Meta(
        pattern=r"^(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        max_length=120,
        description="labels of a name below the site's domain, such as api or *.cam",
    ),
]


class Bundle(Part, frozen=True, kw_only=True):
    """Files that are laid out in one read-only directory, which `${bundle}` names."""

    files: Annotated[tuple[FileSpec, ...], Meta(min_length=1, max_length=1024)]


class ModelMount(Part, frozen=True, kw_only=True):
    """A model the component needs; `${model.NAME}` is the directory of the chosen variant's files.

    `objective` says which of the variants that fit is the best.
    """

    name: Name
    version: Version
    objective: Objective = "listed"


class Port(Part, frozen=True, kw_only=True):
    """A port the component listens on; 0 lets the host choose a free one and keep it. `${port.NAME}` names it."""

    name: Name
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


class HttpProbe(Part, frozen=True, kw_only=True):
    """Passes when a GET answers with a status from 200 to 399."""

    port: Name
    path: HttpPath = "/"


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


class Requests(Part, frozen=True, kw_only=True):
    """What is set aside for the component where a host is chosen for it; what is not named is its limit."""

    memory: Size | None = None
    cpu: Cpu | None = None


class Resources(Part, frozen=True, kw_only=True):
    """Upper limits, kept where the kernel allows; which mechanism holds is reported."""

    memory: Size | None = None
    cpu: Cpu | None = None
    pids: Annotated[int, Meta(ge=1, le=1 << 22)] | None = None
    requests: Requests = Requests()


class Stop(Part, frozen=True, kw_only=True):
    """How to ask the component to end, and how long to wait before it is killed."""

    signal: Signal = "TERM"
    grace: Duration = "10s"


class OnChange(Part, frozen=True, kw_only=True):
    """How a component takes new model files without a restart; exactly one of `signal` and `http`.

    `${model.NAME}` is then a link that names the new files from one moment to the next. `http` is a POST that
    must be answered with a status from 200 to 299 once the new files are in use.
    """

    signal: Signal | None = None
    http: HttpProbe | None = None
    timeout: Duration = "30s"


class OnSecretChange(Part, frozen=True, kw_only=True):
    """How a component takes another version of a secret; one of these at most. None: it reads the file by itself.

    `http` is a POST that must be answered with a status from 200 to 299 once the new value is in use.
    """

    signal: Signal | None = None
    http: HttpProbe | None = None
    restart: bool = False
    timeout: Duration = "30s"


class SecretUse(Part, frozen=True, kw_only=True):
    """A secret the component needs: as the file `${secrets}/PATH`, or as the environment variable `env`.

    A file is replaced from one moment to the next; for `overlap` after that, the value before it is beside it as
    `PATH.previous`. A variable is what it was when the component was started.
    """

    name: Name
    path: RelativePath | None = None
    env: EnvName | None = None
    on_change: OnSecretChange = OnSecretChange()
    overlap: Duration = "0s"


class CertificateUse(Part, frozen=True, kw_only=True):
    """A certificate of this site for the component, renewed by its host: files in `${certificates}/NAME`.

    They are `cert.pem`, `key.pem`, `bundle.pem` (whom to trust) and `crl.pem` (who is revoked), and change all at once.
    The certificate is for `APPLICATION.SITE.DOMAIN`, for each of `dns` below `SITE.DOMAIN` (`localhost` for this
    machine alone), and names the application by its SPIFFE ID.
    """

    name: Name
    dns: Annotated[tuple[LabelsText, ...], Meta(max_length=16)] = ()
    on_change: OnSecretChange = OnSecretChange()


class OnConfigChange(Part, frozen=True, kw_only=True):
    """How a component takes other configuration files while it runs; without one of these it is restarted.

    `http` is a POST that must be answered with a status from 200 to 299 once the new files are in use. With `none`
    it reads them by itself.
    """

    signal: Signal | None = None
    http: HttpProbe | None = None
    none: bool = False
    timeout: Duration = "30s"


class ConfigFile(Part, frozen=True, kw_only=True):
    """A file `${config}/PATH` with the values at a key, or all of them.

    `env` is one line `KEY=value` for each text, number or truth value, in which a shell finds what was meant.
    """

    path: RelativePath
    format: FileFormat = "json"
    of: KeyPath = ""


class ConfigUse(Part, frozen=True, kw_only=True):
    """What a component takes of the application's configuration: files, and variables with the value at a key.

    A file is replaced from one moment to the next. A variable is what it was when the component was started: when its
    value changes the component is restarted, whatever `on_change` says.
    """

    files: Annotated[tuple[ConfigFile, ...], Meta(max_length=64)] = ()
    env: dict[EnvName, KeyPath] = {}
    on_change: OnConfigChange = OnConfigChange()


class ComponentTest(Part, frozen=True, kw_only=True):
    """How the component runs the self-tests of its models before it is started; exit code 0 passes.

    `${self_test}` is a directory with one sub-directory for each golden case, `MODEL/CASE/`, that holds the
    case's input file. For each case the command prints one line of JSON, `{"case": "MODEL/CASE", "outputs":
    [...], "latency_ms": 1.5}`, which the host compares with the expected output; `latency_ms` may be left out.
    """

    command: Command
    timeout: Duration = "60s"


class Volume(Part, frozen=True, kw_only=True):
    """Data that outlives updates; `${volume.NAME}` is where it is, in a container `path`.

    Beyond `size` the component is stopped until there is room again or the volume is wiped.
    """

    name: Name
    path: AbsolutePath = ""
    size: Size | None = None


class Tmpfs(Part, frozen=True, kw_only=True):
    """Memory that is a directory."""

    path: AbsolutePath
    size: Size = "64MiB"


class Device(Part, frozen=True, kw_only=True):
    """A device of the host for a component, for it alone unless `shared`.

    `use` is a path below `/dev`, a name of the Container Device Interface such as `nvidia.com/gpu=0`, or a
    class such as `camera`: then the host gives one that is free, which `${device.NAME}` names.
    """

    name: Name
    use: DeviceUse
    shared: bool = False


class Container(Part, frozen=True, kw_only=True):
    """How the container of an image is confined. The defaults leave it as little as most programs need.

    `network` joins it with the application's other components, which find each other by name; `host` is the
    host's own network, where the site allows it. `capabilities` are those kept of all that exist.
    """

    user: Annotated[str, Meta(max_length=128)] = ""
    working_directory: AbsolutePath | None = None
    read_only: bool = True
    capabilities: Annotated[tuple[Capability, ...], Meta(max_length=64)] = ()
    tmpfs: Annotated[tuple[Tmpfs, ...], Meta(max_length=32)] = ()
    shared_memory: Size = "64MiB"
    network: Literal["application", "host", "none"] = "application"
    init: bool = False


class RateMetric(Part, frozen=True, kw_only=True):
    """How many of the counted were bad: two counters, of which `total` counts the bad ones as well."""

    bad: SeriesText
    total: SeriesText


class MeanMetric(Part, frozen=True, kw_only=True):
    """The mean of something between `low` and `high`; exactly one of `gauge` and `summary`.

    A `gauge` is one sample at each look. A `summary` is a name with `NAME_sum` and `NAME_count`, such as a summary's
    or a histogram's; how far its samples lie apart is not known, so they count as far apart as the bounds allow.
    """

    gauge: SeriesText | None = None
    summary: SeriesText | None = None
    low: Finite
    high: Finite


class Collected(Part, frozen=True, kw_only=True):
    """A metric that gates can ask for by its `name`; exactly one of `rate`, `mean` and `histogram`.

    A `histogram` is a classic one, `NAME_bucket` with its bounds `le`: each sample counts as the bound of its bucket,
    and one beyond the last bound as twice that. All series that are selected count together.
    """

    name: MetricName
    rate: RateMetric | None = None
    mean: MeanMetric | None = None
    histogram: SeriesText | None = None


class MetricsEndpoint(Part, frozen=True, kw_only=True):
    """Where the component tells its metrics in Prometheus' text format, and which of them the host collects.

    `collect` is what gates may judge by; `keep` are the series that go to the hub, where they can be asked for: metrics
    as there, or `*` for all, `max_series` of them at most.
    """

    port: Name
    path: HttpPath = "/metrics"
    interval: Duration = "15s"
    collect: Annotated[tuple[Collected, ...], Meta(max_length=32)] = ()
    keep: Annotated[tuple[SeriesText, ...], Meta(max_length=64)] = ()
    max_series: Annotated[int, Meta(ge=1, le=1000)] = 200


class Component(Part, frozen=True, kw_only=True):
    """One process of the application: of a `bundle` of files, or of a container `image`.

    With an image, `command` replaces its entry point and `args` its arguments; both may be left out.
    """

    name: Name
    bundle: Bundle | None = None
    image: Image | None = None
    command: Arguments = ()
    args: Arguments = ()
    container: Container = Container()
    volumes: Annotated[tuple[Volume, ...], Meta(max_length=64)] = ()
    devices: Annotated[tuple[Device, ...], Meta(max_length=64)] = ()
    on_change: OnChange | None = None
    self_test: ComponentTest | None = None
    secrets: Annotated[tuple[SecretUse, ...], Meta(max_length=64)] = ()
    certificates: Annotated[tuple[CertificateUse, ...], Meta(max_length=16)] = ()
    config: ConfigUse | None = None
    env: dict[EnvName, Argument] = {}
    models: Annotated[tuple[ModelMount, ...], Meta(max_length=64)] = ()
    ports: Annotated[tuple[Port, ...], Meta(max_length=64)] = ()
    probes: Probes = Probes()
    metrics: MetricsEndpoint | None = None
    resources: Resources = Resources()
    stop: Stop = Stop()


class Placement(Part, frozen=True, kw_only=True):
    """On which hosts of a site the application runs.

    `each` is every host that fits; `one` and `count` are so many of them, the others standing by in order:
    when a host is silent to its neighbours for `takeover`, the next one starts the application without any
    hub, and gives way when the first returns. `standby` hosts beside those hold everything ready.
    Of a site's network that falls apart, `keep` runs on in each part; `majority` only in the part that holds
    more than half of the hosts concerned. Among hosts that fit, `prefer` is asked first, then nearness to and
    distance from other applications, then the most room left.
    """

    mode: Literal["each", "one", "count"] = "each"
    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    standby: Annotated[int, Meta(ge=0, le=1000)] = 1
    takeover: Duration = "30s"
    split: Literal["keep", "majority"] = "keep"
    requires: Requirements = Requirements()
    prefer: Annotated[tuple[Preference, ...], Meta(max_length=32)] = ()
    near: tuple[Name, ...] = ()
    apart: tuple[Name, ...] = ()


class ApplicationSpec(Part, frozen=True, kw_only=True):
    """A version of an application.

    `topics` are what it publishes and reads on the message bus of its host.
    `update` says what happens to the old release: `recreate` ends it before the new one begins, `blue-green`
    runs both until the new one is proven, and so does `shadow`, which gives the new one copies of requests meanwhile
    (`ingress[].shadow`). `auto` is blue-green where only models changed and nothing speaks against two at a time (a
    fixed port of the host, a device for one alone, data that is kept), else recreate.
    `ingress` is what others at the site may reach of it.
    `needs` are bindings of its site: a site that lacks one does not get the application.
    """

    version: Version
    update: Literal["auto", "recreate", "blue-green", "shadow"] = "auto"
    topics: TopicsSpec = TopicsSpec()
    placement: Placement = Placement()
    config: ApplicationConfig | None = None
    needs: Annotated[tuple[BindingNeed, ...], Meta(max_length=MAX_NEEDS)] = ()
    components: Annotated[tuple[Component, ...], Meta(min_length=1, max_length=64)]
    ingress: Routes = ()


class Application(Document, frozen=True, kw_only=True, tag="Application"):
    """An application as people write it."""

    spec: ApplicationSpec
