"""What every service of a host is, and all of them as one.

A service looks at each step of the reconcile loop at what is desired and what runs, and may hand something to
components that are started, hold releases back, and have components restarted. One that fails keeps no other from its
turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from skerry.kit.errors import Bug, as_failure
from skerry.ports.runtime import InstanceView, Mount
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.application import Component
from skerry.spec.desired import DesiredState
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed

_log = structlog.get_logger()


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a step of the reconcile loop works on; `instances` are by id."""

    desired: DesiredState | None
    records: Mapping[str, ApplicationRecord]
    instances: Mapping[str, InstanceView]
    facts: HostFacts = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a component is started with, beside what is its own.

    `env` are variables, which the component's own override; `secret_env` are variables whose values are read from files
    when it starts. `values` fill `${...}` references by name. `mounts`, `devices`, `host_names`, by which it finds this
    host, and `dns`, whom it asks for names, are for containers alone: paths in `env` and `values` are then those in the
    container.
    """

    env: Mapping[str, str] = {}
    secret_env: Mapping[str, Path] = {}
    values: Mapping[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


NOTHING = Given()

Give = Callable[[str, ReleaseFact, Component], Given]


def give_nothing(_application: str, _fact: ReleaseFact, _component: Component) -> Given:
    """Return that no service has anything for a component."""
    return NOTHING


class HostService:
    """Does nothing: a service overrides what it needs. `on_change` wakes the reconcile loop."""

    name = "nothing"

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    async def follow(self, turn: Turn) -> None:
        """Bring what the service keeps to what is desired and runs now. Must not wait for a network."""

    def withheld(self, digests: set[str]) -> dict[str, str]:
        """Return which of these releases may not be tried yet, and why."""
        return {}

    @property
    def outdated(self) -> Mapping[str, str]:
        """Instances, by id, that have to be restarted to take what has changed; and why."""
        return {}

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return what a component gets that is about to be started.

        Raises:
            SkerryError: it cannot be started now, and why.
        """
        return NOTHING

    async def begin(self) -> None:
        """Find out what the service has to know before the first step; quick, and it must not fail."""

    def facts(self) -> HostFacts:
        """Return what the service knows of the host."""
        return {}

    def show(self, observed: Observed) -> Observed:
        """Return what is observed with the service's own part."""
        return observed

    async def run_forever(self) -> None:
        """Do what has its own pace. It never returns by itself."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Stop what is under way; applications outlive it."""


class HostServices(HostService):
    """All services of a host, in order, as one."""

    name = "services"

    def __init__(self, services: Sequence[HostService]) -> None:
        self._services = tuple(services)
        self._failing: dict[str, str] = {}
        super().__init__()

    def set_on_change(self, wake: Callable[[], None]) -> None:
        """Have every service wake the reconcile loop by `wake`."""
        for service in self._services:
            service.on_change = wake

    async def follow(self, turn: Turn) -> None:
        for service in self._services:
            try:
                await service.follow(turn)
            except Exception as caught:
                self._tell_failing(service.name, caught)
            else:
                if self._failing.pop(service.name, None):
                    _log.info("service.restored", service=service.name)

    def withheld(self, digests: set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for service in reversed(self._services):
            found |= service.withheld(digests)
        return found

    @property
    def outdated(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for service in reversed(self._services):
            found |= service.outdated
        return found

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        given = [service.give(application, fact, component) for service in self._services]
        return Given(
            env={key: value for one in given for key, value in one.env.items()},
            secret_env={key: value for one in given for key, value in one.secret_env.items()},
            values={key: value for one in given for key, value in one.values.items()},
            mounts=tuple(mount for one in given for mount in one.mounts),
            devices=tuple(dict.fromkeys(device for one in given for device in one.devices)),
            host_names=tuple(dict.fromkeys(name for one in given for name in one.host_names)),
            dns=tuple(dict.fromkeys(address for one in given for address in one.dns)),
        )

    async def begin(self) -> None:
        for service in self._services:
            await service.begin()

    def facts(self) -> HostFacts:
        return {name: fact for service in self._services for name, fact in service.facts().items()}

    def show(self, observed: Observed) -> Observed:
        for service in self._services:
            observed = service.show(observed)
        return observed

    async def run_forever(self) -> None:
        async with asyncio.TaskGroup() as group:
            for service in self._services:
                group.create_task(service.run_forever())
            await asyncio.Event().wait()

    async def close(self) -> None:
        for service in self._services:
            await service.close()

    def _tell_failing(self, name: str, caught: Exception) -> None:
        error = as_failure(caught)
        if self._failing.get(name) != error.code:
            cause = error.__cause__ if isinstance(error, Bug) else None
            _log.error("service.failing", service=name, code=error.code, reason=str(error), exc_info=cause)
        self._failing[name] = error.code
