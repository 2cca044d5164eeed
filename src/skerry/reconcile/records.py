"""What a host remembers about its applications, and what it sees of them.

`ApplicationRecord` is durable and written before any action that follows from it. `Memory` lives as long as
the agent does: losing it costs a little patience (a back-off begins anew), never safety.
Times in `Memory` and `Seen` are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from skerry.kit.digests import short
from skerry.kit.quantities import parse_duration
from skerry.spec.application import Component
from skerry.spec.binding import BindingNeed
from skerry.spec.configuration import Configured
from skerry.spec.ingress import Route
from skerry.spec.publishing import Running
from skerry.spec.report import VariantChoice
from skerry.spec.topics import TopicsSpec

TrialPhase = Literal[
    "",
    "fetching",
    "preparing",
    "testing",
    "standing-by",
    "waiting-window",
    "held",
    "starting",
    "soaking",
]
Update = Literal["auto", "recreate", "blue-green", "shadow"]


class Refusal(msgspec.Struct, frozen=True):
    """A release that failed on this host: why, and at which attempt; a higher attempt lifts it."""

    release: str
    reason: str
    attempt: int


class ApplicationRecord(msgspec.Struct, frozen=True):
    """One application on one host.

    Releases are named by their editions (`skerry.kit.editions`): what is tried, kept and refused is a release with its
    configuration.
    `good` is the last proven release, `previous` the one before it, `candidate` the one under trial;
    `trials` counts how often a trial of the candidate was begun, over restarts of agent and host.
    """

    application: str
    good: str = ""
    previous: str = ""
    candidate: str = ""
    phase: TrialPhase = ""
    trials: int = 0
    refused: Mapping[str, Refusal] = {}


class Target(msgspec.Struct, frozen=True):
    """What the desired state wants of one application.

    Where it is `placed` by turns and this is not the host's turn, it is not `active`: all is made ready, nothing
    runs; `duty` says why. `wipe` counts how often its volumes shall have been emptied. While `switch` says which
    window to wait for, a new release is made ready and takes nothing over from one that runs, unless it is
    `urgent`. While `hold` says who holds it, no new release is started, urgent or not.
    """

    application: str
    release: str
    digest: str
    attempt: int = 1
    deadline_s: float = 300.0
    soak_s: float = 30.0
    placed: bool = False
    active: bool = True
    duty: str = ""
    wipe: int = 0
    switch: str = ""
    urgent: bool = False
    hold: str = ""


class ReleaseFact(msgspec.Struct, frozen=True):
    """What is known of a release whose document is here.

    `problem` says why this host can never run it (no variant fits). `missing_bytes` is what is still to be
    fetched; `prepared` that its files are laid out and its images loaded; `tested` that its self-tests passed.
    `failed` says which variants failed their self-test here, and why; `images` maps components to the identity
    of their image. `needs` are the bindings that it is to be joined to.

    Releases of one `family` differ in nothing but models that their components take while they run (`hot`),
    those of one `frame` in nothing but models. `alone` says why two of its kind cannot run at a time.
    A release whose `family` is empty is of its own kind. Editions of one release that differ in their configuration,
    `configured`, are of one family.
    """

    name: str
    digest: str
    components: tuple[Component, ...]
    choices: tuple[VariantChoice, ...] = ()
    problem: str = ""
    missing_bytes: int = 0
    prepared: bool = False
    tested: bool = True
    topics: TopicsSpec = TopicsSpec()
    family: str = ""
    frame: str = ""
    hot: bool = False
    update: Update = "auto"
    alone: str = ""
    failed: Mapping[str, str] = {}
    images: Mapping[str, str] = {}
    configured: Configured | None = None
    ingress: tuple[Route, ...] = ()

    @property
    def drain_s(self) -> float:
        """How long it goes on for the requests it has when another takes its routes over."""
        return max((parse_duration(route.drain) for route in self.ingress), default=0.0)

    @property
    def tokens(self) -> frozenset[str]:
        """The secrets that clients of its routes must show."""
        return frozenset(route.auth.token for route in self.ingress if route.auth.token)

    needs: tuple[BindingNeed, ...] = ()

    @property
    def kin(self) -> str:
        """The family, or the release itself where it has none."""
        return self.family or self.digest

    def instance_id(self, application: str, component: str) -> str:
        """Return the id of a component's instance: the same every time."""
        return f"{application}.{component}.{short(self.kin)}"


class InstanceFact(msgspec.Struct, frozen=True):
    """An instance as the runtime and the probes see it. `run` names one life of the process.

    `dead` says why a startup or liveness probe gave it up; `fatal`, why it could not be started at all; `stale`,
    why it did not take new models.
    """

    state: Literal["running", "stopping", "exited", "lost"]
    application: str
    component: str
    release: str
    family: str = ""
    run: str = ""
    exit_code: int | None = None
    started: bool = False
    ready: bool = False
    dead: str = ""
    fatal: str = ""
    stale: str = ""
    probe_why: str = ""
    limits: Mapping[str, str] = {}
    endpoints: Mapping[str, str] = {}

    @property
    def kin(self) -> str:
        """The family of releases it runs, or the one release where that has none."""
        return self.family or self.release


class RevokedFact(msgspec.Struct, frozen=True):
    """A release that is trusted no more: why, and what becomes of it where it runs."""

    why: str
    running: Running = "keep"


class Seen(msgspec.Struct, frozen=True):
    """Everything the planner looks at.

    `troubles` says, by release digest, what hinders fetching or preparing. `taken` maps a family to the release
    whose models its instances run with. `wiped` says how often an application's volumes were emptied, `full`
    which `application.component` has a volume that holds more than it may. `withheld` says of releases why they may
    not be taken yet, `revoked` which are trusted no more, both by digest. `gates` says by digest why a release on
    trial is worse than the one before it, `outdated` by instance why one is to be started anew that is well.
    """

    instances: Mapping[str, InstanceFact] = {}
    releases: Mapping[str, ReleaseFact] = {}
    laid_out: frozenset[str] = frozenset()
    troubles: Mapping[str, str] = {}
    taken: Mapping[str, str] = {}
    wiped: Mapping[str, int] = {}
    full: Mapping[str, str] = {}
    withheld: Mapping[str, str] = {}
    revoked: Mapping[str, RevokedFact] = {}
    gates: Mapping[str, str] = {}
    outdated: Mapping[str, str] = {}


class InstanceMemory(msgspec.Struct, frozen=True):
    """How often an instance has ended by itself, and when it may start again."""

    restarts: int = 0
    handled_run: str = ""
    not_before: float = 0.0
    asked_to_stop: bool = False
    running_since: float | None = None


class TrialMemory(msgspec.Struct, frozen=True):
    """The running trial of a candidate."""

    digest: str
    began: float
    ready_since: float | None = None


class Leaving(msgspec.Struct, frozen=True):
    """The family `kin`, which ran beside `digest` until that was proven, goes on `until` then."""

    digest: str
    kin: str
    until: float


class Memory(msgspec.Struct, frozen=True):
    """What the planner remembers between two plans."""

    instances: Mapping[str, InstanceMemory] = {}
    trials: Mapping[str, TrialMemory] = {}
    leaving: Mapping[str, Leaving] = {}


class FetchDocument(msgspec.Struct, frozen=True, tag=True):
    """Fetch a release document."""

    digest: str


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Fetch the files of a release that this host needs."""

    digest: str


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Verify a release's files and lay them out."""

    digest: str


class SelfTest(msgspec.Struct, frozen=True, tag=True):
    """Run the self-tests of a release; a variant that fails is passed over from then on."""

    digest: str


class TakeModels(msgspec.Struct, frozen=True, tag=True):
    """Let the running instances of a release's family go over to this release's models."""

    application: str
    digest: str


class Wipe(msgspec.Struct, frozen=True, tag=True):
    """Empty an application's volumes; none of its instances is alive. `count` is how often that was asked."""

    application: str
    count: int


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start a component."""

    instance: str
    application: str
    digest: str
    component: str


class StopInstance(msgspec.Struct, frozen=True, tag=True):
    """Ask an instance to end."""

    instance: str
    signal: str
    grace_s: float


class RemoveInstance(msgspec.Struct, frozen=True, tag=True):
    """Forget an ended instance."""

    instance: str


class Discard(msgspec.Struct, frozen=True, tag=True):
    """Remove the laid-out files of a release that is needed no more."""

    digest: str


class Happened(msgspec.Struct, frozen=True, tag=True):
    """Tell the hub about something; carries no effect of its own."""

    kind: str
    message: str = ""
    application: str = ""
    component: str = ""


Action = (
    FetchDocument
    | Fetch
    | Prepare
    | SelfTest
    | TakeModels
    | Wipe
    | Start
    | StopInstance
    | RemoveInstance
    | Discard
    | Happened
)


class Plan(msgspec.Struct, frozen=True):
    """The next records (to be made durable first), the actions in order, and when to look again at the latest."""

    records: Mapping[str, ApplicationRecord]
    memory: Memory
    actions: tuple[Action, ...]
    why: Mapping[str, str]
    wake_in_s: float = 5.0
