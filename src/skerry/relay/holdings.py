"""The signed states that a relay holds for those below, and its own: verified, never replaced by an older one.

Nothing that does not verify is kept or handed on. What was kept stays, whatever its age: those it is for judge that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from functools import partial

import msgspec
import structlog

from skerry.carrier.hub_trust import HubTrust
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Untrusted
from skerry.ports.relay_store import RelayStore, SignedKind
from skerry.relay.guests import unverified
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.relay import RELAY_STATE_TYPE, RelayState
from skerry.trust.envelope import verify_document
from skerry.trust.relay import verify_relay_state

_log = structlog.get_logger()

AT_HAND = 64


class Holdings:
    """What this relay holds. Lives in one event loop; `desired` and `states` are generations by site and by relay."""

    def __init__(self, relay: str, store: RelayStore, trust: HubTrust) -> None:
        self._relay = relay
        self._store = store
        self._trust = trust
        self._at_hand: OrderedDict[tuple[SignedKind, str], JsonEnvelope] = OrderedDict()
        self.desired = store.generations("desired")
        self.states = store.generations("relay-state")
        self.state = self._load_own()
        self.on_state: Callable[[RelayState], None] = lambda _: None
        self.on_news: Callable[[str], None] = lambda _: None
        """Called with `site:NAME` or `relay:NAME` when there is a newer state of it."""

    async def take_desired(self, envelope: JsonEnvelope, *, carried: bool = False) -> bool:
        """Keep a site's DesiredState if it is newer; tell whether it was.

        One that was `carried` here may be what is held, signed once more to last for longer: it takes its place.

        Raises:
            Untrusted: the hub did not sign it, or it is of a site that is not below.
        """
        desired = await asyncio.to_thread(
            verify_document, envelope, DESIRED_STATE_TYPE, DesiredState, self._trust.keys
        )
        if self.state is None or desired.site not in self.state.sites:
            raise Untrusted("desired.wrong_site", f"site {desired.site} is not below this relay")
        again = carried and await self._lasts_longer(desired)
        return await self._keep("desired", desired.site, desired.generation, envelope, again=again)

    async def take_state(self, envelope: JsonEnvelope, *, now: datetime) -> bool:
        """Keep a RelayState, this relay's own or of one below, if it is newer; tell whether it was.

        Raises:
            Untrusted: the hub did not sign it, it is of a relay that is not below, or has expired at `now`.
        """
        found = await asyncio.to_thread(
            verify_document, envelope, RELAY_STATE_TYPE, RelayState, self._trust.keys
        )
        own = found.relay == self._relay
        if not own and (self.state is None or found.relay not in self.state.relays):
            raise Untrusted("relay_state.wrong_relay", f"relay {found.relay[:64]} is not below this one")
        if found.generation <= self.states.get(found.relay, 0):
            return False
        verify_relay_state(envelope, self._trust.keys, relay=found.relay, held_generation=0, now=now)
        kept = await self._keep("relay-state", found.relay, found.generation, envelope)
        if kept and own:
            self.state = found
            await self._tidy(found)
            self.on_state(found)
        return kept

    async def envelope(self, kind: SignedKind, name: str) -> JsonEnvelope | None:
        """Return the envelope of a state that is held."""
        held = self._at_hand.get((kind, name))
        if held is not None:
            self._at_hand.move_to_end((kind, name))
            return held
        raw = await asyncio.to_thread(self._store.signed, kind, name)
        if raw is None:
            return None
        found: JsonEnvelope = msgspec.json.decode(raw, type=JsonEnvelope)
        self._put_at_hand(kind, name, found)
        return found

    async def _lasts_longer(self, desired: DesiredState) -> bool:
        """Tell whether a verified state is of the generation that is held, and expires later."""
        if desired.generation != self.desired.get(desired.site, 0):
            return False
        envelope = await self.envelope("desired", desired.site)
        held = unverified(envelope, DesiredState) if envelope is not None else None
        return held is None or desired.expires_at > held.expires_at

    async def _keep(
        self, kind: SignedKind, name: str, generation: int, envelope: JsonEnvelope, *, again: bool = False
    ) -> bool:
        generations = self.desired if kind == "desired" else self.states
        if generation + again <= generations.get(name, 0):
            return False
        raw = msgspec.json.encode(envelope)
        put = partial(self._store.put_signed, kind, name, generation, raw, again=again)
        if not await asyncio.to_thread(put):
            return False
        newer = generation > generations.get(name, 0)
        if generation + again > generations.get(name, 0):
            generations[name] = generation
            self._put_at_hand(kind, name, envelope)
        _log.info("state.taken", kind=kind, name=name, generation=generation)
        if not newer:
            return True  # it says the same: nobody need wake for it
        self.on_news(f"site:{name}" if kind == "desired" else f"relay:{name}")
        return True

    async def _tidy(self, state: RelayState) -> None:
        """Forget what is not below any more."""
        gone = [name for name in self.desired if name not in state.sites]
        away = [name for name in self.states if name not in state.relays and name != self._relay]
        for name in gone:
            del self.desired[name]
            self._at_hand.pop(("desired", name), None)
        for name in away:
            del self.states[name]
            self._at_hand.pop(("relay-state", name), None)
        if gone:
            await asyncio.to_thread(self._store.remove_signed, "desired", gone)
        if away:
            await asyncio.to_thread(self._store.remove_signed, "relay-state", away)

    def _put_at_hand(self, kind: SignedKind, name: str, envelope: JsonEnvelope) -> None:
        self._at_hand[(kind, name)] = envelope
        self._at_hand.move_to_end((kind, name))
        while len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)

    def _load_own(self) -> RelayState | None:
        raw = self._store.signed("relay-state", self._relay)
        if raw is None:
            return None
        try:
            envelope = msgspec.json.decode(raw, type=JsonEnvelope)
            # What was taken stays taken: neither its age nor a newer root matters, the signature does.
            return verify_document(envelope, RELAY_STATE_TYPE, RelayState, self._trust.past_keys())
        except (*UNREADABLE, Untrusted):
            _log.exception("relay_state.damaged")
            self._store.remove_signed("relay-state", [self._relay])
            del self.states[self._relay]
            return None
