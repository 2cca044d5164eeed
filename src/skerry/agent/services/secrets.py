"""A host's secrets: takes what is sealed to it, chooses what is used, hands it to applications, and wipes the rest.

At each step, in this order: values are opened and put into the vault, versions are chosen, the vault is made durable,
files are replaced, and components that run are told. A power cut between any two leaves each application with the old
value or the new one. Nothing here needs a link, and no message has a value in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.agent.keys import KeyFiles
from skerry.agent.secret_files import Owner, SecretFiles
from skerry.agent.secret_making import make_due, told_of_made, told_of_next
from skerry.agent.secret_telling import SecretTelling
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.agent.services.places import ComponentPlace, releases_of
from skerry.agent.vault import Vault, VaultEntry, VaultState
from skerry.kit.digests import short
from skerry.kit.errors import Rejected, SkerryError, Unavailable, Untrusted
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.runtime import InstanceView, Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component, SecretUse
from skerry.spec.checks_secrets import PREVIOUS
from skerry.spec.desired import DesiredState
from skerry.spec.report import Observed
from skerry.spec.secret import SealedSecret, SecretOrder
from skerry.trust.sealing import Binding, open_secret
from skerry.trust.secret_choice import InUse, choose_version

Note = Callable[..., None]

SECRETS = "/skerry/secrets"
"""Where a container finds its secrets."""


Joined = Callable[[str, ReleaseFact, Component], tuple[SecretUse, ...]]


def joined_to_nothing(_application: str, _fact: ReleaseFact, _component: Component) -> tuple[SecretUse, ...]:
    """Return that a component uses no secrets but its own."""
    return ()


class SecretParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's secrets are made of. `now` is the time it believes; `fact_of` tells of a release by digest.

    `joined` tells which secrets a component uses beside its own: those of what it is joined to.
    """

    host: str
    vault: Vault
    files: SecretFiles
    keys: KeyFiles
    clock: Clock
    now: Callable[[], datetime]
    note: Note
    fact_of: Callable[[str], ReleaseFact | None]
    telling: SecretTelling
    joined: Joined = joined_to_nothing


def place_name(application: str, fact: ReleaseFact, component: Component) -> str:
    """Return the name of the directory that a component's files are in."""
    return f"{application}.{component.name}.{short(fact.kin)}"


class HostSecrets(HostService):
    """The secrets of one host. `views` are the versions in use by name, for the hub."""

    name = "secrets"

    def __init__(self, parts: SecretParts) -> None:
        super().__init__()
        self._parts = parts
        self._refused: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._trouble = ""
        self._outdated: Mapping[str, str] = {}
        self.views: dict[str, int] = {}

    @property
    def outdated(self) -> Mapping[str, str]:
        return self._outdated

    def show(self, observed: Observed) -> Observed:
        state = self._parts.vault.state
        return msgspec.structs.replace(
            observed,
            secrets=self.views,
            secrets_next=told_of_next(state, self._parts.now()),
            made_secrets=told_of_made(state),
        )

    async def follow(self, turn: Turn) -> None:
        """Bring values, files and components to what is desired, needed here, and due now.

        What hinders it is told as an event; what applications have they keep.
        """
        desired = turn.desired
        own = desired.secrets.get(self._parts.host, ()) if desired else ()
        if not (own or _orders(desired, self._parts.host) or self._parts.vault.is_there):
            return  # most hosts need none, and no key either
        try:
            # What keeps the keys may take seconds to open them, and heartbeats do not wait.
            opened, refused = await asyncio.to_thread(self._open, own, desired)
            for message in refused:
                self._parts.note("secret.refused", message)
            if self._parts.vault.lost:
                self._note_once("secret.vault_lost", self._parts.vault.lost)
            self._follow(turn, opened)
        except SkerryError as error:
            self._trouble = error.message
            self._note_once("secret.trouble", f"{error.code}: {error.message}")
        else:
            self._trouble = ""

    def withheld(self, digests: set[str]) -> dict[str, str]:
        """Return which of these releases wait for secrets, and for which."""
        found: dict[str, str] = {}
        for digest in digests:
            fact = self._parts.fact_of(digest)
            application = fact.name.partition("@")[0] if fact else ""
            uses = {
                use.name
                for component in (fact.components if fact else ())
                for use in self._joined(application, fact, component).secrets
            } | (fact.tokens if fact else set[str]())
            if lacking := sorted(uses - self._parts.vault.state.uses.keys()):
                why = f" ({self._trouble})" if self._trouble else ""
                found[digest] = f"waiting for a value of secret {', '.join(lacking)}{why}"
            elif uses and self._trouble:
                found[digest] = f"waiting for its secrets: {self._trouble}"
        return found

    def value_of(self, name: str) -> bytes | None:
        """Return the value of a secret that is used now, None where there is none here."""
        state = self._parts.vault.state
        chosen = state.uses.get(name)
        return state.entries[chosen.id].value if chosen is not None else None

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return where a component that is about to be started finds its secrets, which are placed now.

        Raises:
            Unavailable: one of them has no value here (`secret.missing`), or cannot be placed.
            Rejected: a value cannot be a variable's (`secret.not_text`).
        """
        component = self._joined(application, fact, component)
        if not component.secrets:
            return NOTHING
        self._parts.vault.open()
        place = ComponentPlace(application, fact, component)
        self._place(place, self._parts.vault.state)
        self._parts.telling.note_launch(fact.instance_id(application, component.name), self._ids(component))
        env_folder = self._parts.files.folder(_env_name(place))
        secret_env = {use.env: env_folder / use.env for use in component.secrets if use.env}
        if not any(use.path for use in component.secrets):
            return Given(secret_env=secret_env)
        folder = self._parts.files.folder(place.name)
        seen = SECRETS if component.image is not None else str(folder)
        return Given(
            env={"SKERRY_SECRETS": seen},
            secret_env=secret_env,
            values={"secrets": seen},
            mounts=(Mount(folder, SECRETS),),
        )

    async def close(self) -> None:
        """Stop telling components; who was not told is told by the next agent."""
        await self._parts.telling.close()

    def _follow(self, turn: Turn, opened: Mapping[str, VaultEntry]) -> None:
        parts, before, desired = self._parts, self._parts.vault.state, turn.desired
        sealed = desired.secrets.get(parts.host, ()) if desired else ()
        orders = _orders(desired, parts.host)
        revoked = dict.fromkeys((*before.revoked, *(desired.revoked_secrets if desired else ())))
        entries = {key: entry for key, entry in before.entries.items() if entry.revoked_as not in revoked}
        entries |= opened
        places, tokens, whole = self._places(turn)
        # With the database lost, nobody knows what is unused; what was made here would be gone for good.
        whole = whole and desired is not None
        needed = {use.name for place in places for use in place.component.secrets} | tokens
        if whole:
            needed |= {one.name for one in sealed} | {order.name for order in orders}
            entries = {key: entry for key, entry in entries.items() if entry.name in needed}
        ordered = [order for order in orders if order.id not in revoked]
        entries, made = make_due(ordered, entries, before.uses, now=parts.now())
        uses = self._choose(entries, before.uses)
        entries = self._without_old(entries, uses, _overlaps(places))
        parts.vault.save(VaultState(entries, tuple(revoked), uses))
        for entry in made:
            parts.note("secret.made", entry.told)
        self._tell_changes(before, parts.vault.state)
        failure = self._place_all(places)
        kept = {name for place in places for name in (place.name, _env_name(place))}
        if whole and (gone := parts.files.forget(kept)):
            names = ", ".join(name for name in gone if not name.endswith(".env"))
            parts.note("secret.wiped", f"files of {names or gone[0]}")
        self._look_after(places, turn.instances)
        if failure is not None:
            raise failure

    def _joined(self, application: str, fact: ReleaseFact | None, component: Component) -> Component:
        """Return a component with the secrets of what it is joined to among its own."""
        more = self._parts.joined(application, fact, component) if fact is not None else ()
        if not more:
            return component
        return msgspec.structs.replace(component, secrets=(*component.secrets, *more))

    def _place_all(self, places: Sequence[ComponentPlace]) -> SkerryError | None:
        """Place all files there are values for; return what went wrong first, which keeps no other from theirs."""
        state, failure = self._parts.vault.state, None
        for place in places:
            lacking = not all(use.name in state.uses for use in place.component.secrets)
            # One that lacks a value is not started; from one that runs, what was revoked is taken away even so.
            if lacking and not self._parts.files.has(place.name):
                continue
            try:
                self._place(place, state, lacking=lacking)
            except SkerryError as error:
                failure = failure or error
        return failure

    def _open(
        self, sealed: Sequence[SealedSecret], desired: DesiredState | None
    ) -> tuple[dict[str, VaultEntry], list[str]]:
        """Open the vault, and what is sealed to this host and not in it; return that, and why what did not open."""
        self._parts.vault.open()
        state = self._parts.vault.state
        revoked = {*state.revoked, *(desired.revoked_secrets if desired else ())}
        used = {n: state.entries[use.id].version for n, use in state.uses.items() if use.id not in revoked}
        fresh = [
            one
            for one in sealed
            # What was left behind is listed for a while, and need not be opened at each step.
            if one.id not in state.entries.keys() | revoked and one.version >= used.get(one.name, 0)
            if (one.id, one.key) not in self._refused
        ]
        found: dict[str, VaultEntry] = {}
        refused: list[str] = []
        pems = self._parts.keys.sealing_pems() if fresh else {}
        for one in fresh:
            try:
                if one.key not in pems:
                    raise Untrusted(
                        "secret.other_key", f"secret {one.name} {one.version} is sealed to another key"
                    )
                binding = Binding(host=self._parts.host, name=one.name, version=one.version, id=one.id)
                value = open_secret(one.sealed, pems[one.key], binding)
            except Untrusted as error:
                self._refused.add((one.id, one.key))
                refused.append(f"{error.code}: {error.message}")
                continue
            found[one.id] = VaultEntry(one.id, one.name, one.version, value, one.not_before, one.expires_at)
        return found, refused

    def _places(self, turn: Turn) -> tuple[list[ComponentPlace], set[str], bool]:
        """Return what uses secrets here, or may again, and those of routes; and whether every document is here."""
        releases, whole = releases_of(turn, self._parts.fact_of)
        places = [
            ComponentPlace(application, fact, component)
            for application, fact in releases
            for component in (self._joined(application, fact, own) for own in fact.components)
            if component.secrets
        ]
        tokens = {token for _, fact in releases for token in fact.tokens}
        return list({place.name: place for place in places}.values()), tokens, whole

    def _choose(self, entries: Mapping[str, VaultEntry], before: Mapping[str, InUse]) -> dict[str, InUse]:
        now, clock = self._parts.now(), self._parts.clock.now()
        found: dict[str, InUse] = {}
        for name in sorted({entry.name for entry in entries.values()}):
            held = [entry.held for entry in entries.values() if entry.name == name]
            chosen = choose_version(held, before.get(name), now=now, clock=clock)
            if chosen is not None:
                found[name] = chosen
        return found

    def _without_old(
        self, entries: Mapping[str, VaultEntry], uses: Mapping[str, InUse], overlaps: Mapping[str, timedelta]
    ) -> dict[str, VaultEntry]:
        """Leave out versions below the one in use, but for the one before it while that is beside it."""
        clock = self._parts.clock.now()

        def stays(entry: VaultEntry) -> bool:
            use = uses.get(entry.name)
            if use is None or entry.held.rank >= entries[use.id].held.rank:
                return True
            return entry.id == use.previous and clock - use.since < overlaps.get(entry.name, timedelta())

        return {key: entry for key, entry in entries.items() if stays(entry)}

    def _place(self, place: ComponentPlace, state: VaultState, *, lacking: bool = False) -> None:
        files: dict[str, bytes] = {}
        env: dict[str, bytes] = {}
        for use in place.component.secrets:
            chosen = state.uses.get(use.name)
            if chosen is None:
                if lacking:
                    continue
                raise Unavailable("secret.missing", f"secret {use.name} has no value here")
            value = state.entries[chosen.id].value
            if use.env:
                if b"\0" in value:
                    raise Rejected(
                        "secret.not_text", f"secret {use.name} has a zero byte: no variable can hold it"
                    )
                env[use.env] = value
            if use.path:
                files[use.path] = value
                files.update(self._beside(use, chosen, state))
        mark = tuple(sorted((path, hash(value)) for path, value in (files | env).items()))
        if any(use.path for use in place.component.secrets):
            self._parts.files.put(place.name, files, _owner(place.component), mark=mark)
        if any(use.env for use in place.component.secrets):
            self._parts.files.put(_env_name(place), env, Owner(), mark=mark)

    def _beside(self, use: SecretUse, chosen: InUse, state: VaultState) -> Iterator[tuple[str, bytes]]:
        before = state.entries.get(chosen.previous)
        lasts = timedelta(seconds=parse_duration(use.overlap))
        if before is not None and self._parts.clock.now() - chosen.since < lasts:
            yield f"{use.path}{PREVIOUS}", before.value

    def _look_after(self, places: list[ComponentPlace], instances: Mapping[str, InstanceView]) -> None:
        """Have what runs with older values take the new ones."""
        state, outdated = self._parts.vault.state, dict[str, str]()
        for place in places:
            instance = place.instance
            view = instances.get(instance)
            if view is None or view.state != "running":
                continue
            for use in place.component.secrets:
                chosen = state.uses.get(use.name)
                if chosen is not None and self._parts.telling.is_due(instance, view, use, chosen):
                    if use.on_change.restart:
                        outdated[instance] = f"secret {state.entries[chosen.id].told} is used now"
                    else:
                        self._parts.telling.tell(instance, view, use, chosen)
        self._parts.telling.forget(instances)
        self._outdated = outdated

    def _ids(self, component: Component) -> dict[str, str]:
        uses = self._parts.vault.state.uses
        return {use.name: uses[use.name].id for use in component.secrets if use.name in uses}

    def _tell_changes(self, before: VaultState, after: VaultState) -> None:
        for name in sorted(before.uses.keys() | after.uses.keys()):
            old, new = before.uses.get(name), after.uses.get(name)
            if new is not None and (old is None or old.id != new.id):
                self._parts.note("secret.taken", after.entries[new.id].told)
            elif new is None:
                self._parts.note("secret.wiped", f"{name}: it is used here no more, or was revoked")
        self.views = {name: after.entries[use.id].version for name, use in after.uses.items()}
        now = self._parts.now()
        for name, use in after.uses.items():
            entry = after.entries[use.id]
            if entry.expires_at is not None and entry.expires_at <= now:
                self._note_once("secret.expired", f"{name} {entry.version}: no later version has come")

    def _note_once(self, kind: str, message: str) -> None:
        if f"{kind} {message}" not in self._told:
            self._told.add(f"{kind} {message}")
            self._parts.note(kind, message)


def _overlaps(places: list[ComponentPlace]) -> dict[str, timedelta]:
    found: dict[str, timedelta] = {}
    for place in places:
        for use in place.component.secrets:
            lasts = timedelta(seconds=parse_duration(use.overlap))
            found[use.name] = max(lasts, found.get(use.name, timedelta()))
    return found


def _owner(component: Component) -> Owner:
    user = component.container.user.partition(":")[0]
    return Owner(component.image is not None, int(user) if user.isdigit() else None)


def _orders(desired: DesiredState | None, host: str) -> Sequence[SecretOrder]:
    return desired.secret_orders.get(host, ()) if desired is not None else ()


def _env_name(place: ComponentPlace) -> str:
    return f"{place.name}.env"
