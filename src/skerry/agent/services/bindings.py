"""A host's bindings: joins applications to what their site offers, and tells them when that changes.

At each step: bindings are matched, files are replaced, and components that run are told or restarted. Devices are
looked at each `LOOK_EVERY_S`, so that one that was pulled out is told of within seconds. Nothing here needs a link. An
application whose binding was taken away runs on with what it has, and is not started again without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.agent.binding_files import FILE, BindingFiles, Joined, content_of, references_of, variables_of
from skerry.agent.binding_telling import BindingTelling
from skerry.agent.secret_files import SecretFiles
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.agent.services.secrets import SECRETS, place_name
from skerry.kit.editions import plain_release
from skerry.kit.errors import Unavailable
from skerry.matching.bindings import (
    BindingChoice,
    NoBinding,
    describe_holder,
    held_alone,
    match_bindings,
)
from skerry.ports.clock import Clock
from skerry.ports.devices import Devices
from skerry.ports.runtime import Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component, HttpProbe, OnSecretChange, SecretUse
from skerry.spec.binding import BindingNeed, BindingSpec, BindingView, DeviceState
from skerry.spec.checks_bindings import SECRETS_FOLDER
from skerry.spec.report import Observed

LOOK_EVERY_S = 1.0
BINDINGS = "/skerry/bindings"


class BindingParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's bindings are made of. `now` is the time it believes; `offered` is what its site offers now."""

    host: str
    offered: Callable[[], Sequence[BindingSpec]]
    files: BindingFiles
    secrets: SecretFiles
    devices: Devices
    clock: Clock
    now: Callable[[], datetime]
    note: Callable[..., None]
    fact_of: Callable[[str], ReleaseFact | None]
    telling: BindingTelling


class HostBindings(HostService):
    """The bindings of one host."""

    name = "bindings"

    def __init__(self, parts: BindingParts) -> None:
        super().__init__()
        self._parts = parts
        self._outdated: Mapping[str, str] = {}
        self._states: dict[str, tuple[DeviceState, datetime | None]] = {}
        self._used: dict[str, set[str]] = {}
        self._lacking: dict[str, str] = {}
        self._alone: dict[str, str] = {}

    @property
    def outdated(self) -> Mapping[str, str]:
        return self._outdated

    def show(self, observed: Observed) -> Observed:
        views: dict[str, BindingView] = {}
        for one in self._parts.offered():
            used = self._used.get(one.name, ())
            if used or one.host == self._parts.host:
                state, since = self._states.get(one.name, ("unknown", None))
                views[one.name] = BindingView(state=state, since=since, used_by=tuple(sorted(used)))
        return msgspec.structs.replace(observed, bindings=views)

    async def follow(self, turn: Turn) -> None:
        """Bring files and components to what the site offers now."""
        parts = self._parts
        self.look()
        outdated: dict[str, str] = {}
        kept: set[str] = set()
        self._used = {}
        self._alone = self._holders(turn)
        lacking: dict[str, str] = {}
        for application, fact in self._releases(turn):
            joined, why = self._join(fact)
            if joined is None and fact.digest == _good(turn, application):
                lacking[application] = why
            for component in fact.components:
                needs = [need for need in fact.needs if need.is_for(component.name)]
                place, instance = (
                    place_name(application, fact, component),
                    fact.instance_id(application, component.name),
                )
                kept.add(place)
                view = turn.instances.get(instance)
                if joined is None or not needs or view is None or view.state != "running":
                    continue
                own = {need.name: joined[need.name] for need in needs}
                for one in own.values():
                    self._used.setdefault(one.binding.name, set()).add(application)
                parts.files.put(place, content_of(own, secrets=self._secrets(place, component, own)))
                for need in needs:
                    new = parts.telling.what_is_new(instance, need, own[need.name])
                    if new == "changed" and _restarts(need):
                        outdated[instance] = f"binding {need.name} has changed"
                    elif new:
                        parts.telling.tell(instance, view, need, own[need.name])
        parts.files.forget(kept)
        parts.telling.forget(turn.instances)
        self._tell_lacking(lacking)
        self._outdated = outdated

    def withheld(self, digests: set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        facts = [(digest, fact) for digest in digests if (fact := self._parts.fact_of(digest)) and fact.needs]
        # Of two that come at once, the first by name gets what is for one alone.
        alone = dict(self._alone)
        for digest, fact in sorted(facts, key=lambda one: one[1].name):
            answer = self._match(fact)
            if isinstance(answer, NoBinding):
                found[digest] = f"waiting for what it is to be joined to: {'; '.join(answer.reasons)}"
                continue
            application = plain_release(fact.name).partition("@")[0]
            own = self._held_alone(fact)
            others = [name for name in own if alone.get(name, application) != application]
            if others:
                found[digest] = f"waiting: {describe_holder(others[0], alone[others[0]])}"
            else:
                alone.update(dict.fromkeys(own, application))
        return found

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return what a component is told of its bindings.

        Raises:
            Unavailable: the site does not offer one of them (`binding.missing`), or the device that a container is
                to be given is not there (`binding.absent`).
        """
        needs = [need for need in fact.needs if need.is_for(component.name)]
        if not needs:
            return NOTHING
        self.look()
        answer = self._match(fact)
        if isinstance(answer, NoBinding):
            raise Unavailable(
                "binding.missing", "; ".join(answer.reasons), hint="skerry explain binding says why"
            )
        joined = {need.name: self._joined(answer.bindings[need.name]) for need in needs}
        boxed = component.image is not None
        devices = tuple(one.binding.device for one in joined.values() if one.binding.device) if boxed else ()
        for one in joined.values():
            if boxed and one.state == "absent":
                message = f"{one.binding.device}, which binding {one.binding.name} names, is not there"
                raise Unavailable("binding.absent", message, hint="plug it in, or correct the site's binding")
        place = place_name(application, fact, component)
        secrets = self._secrets(place, component, joined)
        self._parts.files.put(place, content_of(joined, secrets=secrets))
        self._parts.telling.note_launch(fact.instance_id(application, component.name), joined)
        folder = self._parts.files.folder(place)
        seen = BINDINGS if boxed else str(folder)
        return Given(
            env={"SKERRY_BINDINGS": f"{seen}/{FILE}", **variables_of(joined, secrets=secrets)},
            values=references_of(joined),
            mounts=(Mount(folder, BINDINGS),),
            devices=devices,
        )

    def uses(self, application: str, fact: ReleaseFact, component: Component) -> tuple[SecretUse, ...]:
        """Return the secrets of the bindings of a component, as if it used them itself."""
        needs = [need for need in fact.needs if need.is_for(component.name)]
        answer = self._match(fact) if needs else None
        if answer is None or isinstance(answer, NoBinding):
            return ()
        return tuple(use for need in needs for use in _secret_uses(need, answer.bindings[need.name]))

    def look(self) -> bool:
        """Look at the devices that are attached to this host; tell whether any has come or gone."""
        before, now = self._states, self._parts.now()
        found: dict[str, tuple[DeviceState, datetime | None]] = {}
        for one in self._parts.offered():
            if one.host != self._parts.host or not one.device:
                continue
            state: DeviceState = "present" if self._parts.devices.is_there(one.device) else "absent"
            was = before.get(one.name)
            found[one.name] = was if was is not None and was[0] == state else (state, now)
            if (was is not None or state == "absent") and found[one.name] is not was:
                self._parts.note(f"binding.{state}", f"{one.name}: {one.device}")
        self._states = found
        return found != before

    async def run_forever(self) -> None:
        while True:
            await self._parts.clock.sleep(LOOK_EVERY_S)
            if self.look():
                self.on_change()

    async def close(self) -> None:
        await self._parts.telling.close()

    def _releases(self, turn: Turn) -> Iterator[tuple[str, ReleaseFact]]:
        """Yield what runs here or may again, that needs bindings."""
        wanted = {
            (name, digest)
            for name, record in turn.records.items()
            for digest in (record.good, record.previous, record.candidate)
        }
        wanted |= {
            (view.labels.get("application", ""), view.labels.get("release", ""))
            for view in turn.instances.values()
        }
        for application, digest in sorted(wanted):
            fact = self._parts.fact_of(digest) if digest else None
            if fact is not None and fact.needs:
                yield application, fact

    def _holders(self, turn: Turn) -> dict[str, str]:
        """Return the application that has each exclusive binding: one that is good with it, else the first by name.

        What it might go back to counts no more: else a release that gave a binding up would keep it for ever.
        """
        found: dict[str, str] = {}
        for application, fact in sorted(
            self._releases(turn), key=lambda one: (one[1].digest != _good(turn, one[0]), one[0])
        ):
            record = turn.records.get(application)
            given_up = record is not None and fact.digest not in (record.good, record.candidate)
            for name in () if given_up else self._held_alone(fact):
                found.setdefault(name, application)
        return found

    def _held_alone(self, fact: ReleaseFact) -> list[str]:
        return sorted(held_alone(fact.needs, self._parts.offered(), (self._parts.host,)))

    def _join(self, fact: ReleaseFact) -> tuple[dict[str, Joined] | None, str]:
        """Return what a release is joined to by need, or None and why not."""
        answer = self._match(fact)
        if isinstance(answer, NoBinding):
            return None, "; ".join(answer.reasons)
        return {need: self._joined(one) for need, one in answer.bindings.items()}, ""

    def _tell_lacking(self, lacking: dict[str, str]) -> None:
        for application, why in lacking.items():
            if self._lacking.get(application) != why:
                text = f"{why}; it runs on with what it has, and is not started again without"
                self._parts.note("binding.missing", text, application=application)
        self._lacking = lacking

    def _match(self, fact: ReleaseFact) -> BindingChoice | NoBinding:
        return match_bindings(fact.needs, self._parts.offered(), host=self._parts.host)

    def _joined(self, binding: BindingSpec) -> Joined:
        return Joined(binding, self._states.get(binding.name, ("unknown", None))[0])

    def _secrets(self, place: str, component: Component, joined: Mapping[str, Joined]) -> str:
        """Return where a component finds its secrets; nowhere where no binding has one."""
        if not any(one.binding.secrets for one in joined.values()):
            return ""
        return SECRETS if component.image is not None else str(self._parts.secrets.folder(place))


def _good(turn: Turn, application: str) -> str:
    record = turn.records.get(application)
    return record.good if record is not None else ""


def _restarts(need: BindingNeed) -> bool:
    change = need.on_change
    return not (change.signal or change.http or change.file)


def _secret_uses(need: BindingNeed, binding: BindingSpec) -> Iterator[SecretUse]:
    change = need.on_change
    http = HttpProbe(port=change.http.port, path=change.http.path) if change.http else None
    on_change = OnSecretChange(
        signal=change.signal, http=http, restart=_restarts(need), timeout=change.timeout
    )
    for key, secret in sorted(binding.secrets.items()):
        yield SecretUse(name=secret, path=f"{SECRETS_FOLDER}/{need.name}/{key}", on_change=on_change)
