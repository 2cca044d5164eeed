"""Which rollouts this replica of the hub decides: it holds a lease of each, for a minute at a time.

Rules: a lease is prolonged long before it ends; one that ended counts no more, whoever has it; whoever takes one from
another raises its token, and the store refuses what comes under an older one. Clocks of replicas may differ: safety
rests on the tokens alone, and a clock that is far off costs no more than turns.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from skerry.kit.durable import write_file
from skerry.ports.clock import Clock
from skerry.ports.deciding import Lease
from skerry.ports.hub_store import HubStore

LEASE_FOR = timedelta(seconds=60)
PROLONG_BEFORE = timedelta(seconds=40)
"""How long before its end a lease is prolonged: a look every half minute comes in time."""


class Held(msgspec.Struct, frozen=True):
    """A lease that this replica has. `inherited`: another one had it before, and may have left something half done."""

    lease: Lease
    inherited: bool = False


class Leases:
    """The leases of one replica. Blocking. `holder` is its name, which nobody else has."""

    def __init__(self, store: HubStore, clock: Clock, holder: str) -> None:
        self._store = store
        self._clock = clock
        self._holder = holder
        self._held: dict[str, Lease] = {}

    def hold(self, rollout: str) -> Held | None:
        """Return the lease of a rollout, taken or prolonged where that is due; None while another replica has it."""
        now = self._clock.now()
        mine = self._held.get(rollout)
        if mine is not None and now < mine.expires_at <= now + LEASE_FOR and _lasts(mine, now):
            return Held(mine)
        before = self._store.lease(rollout)
        if before is not None and before.holder != self._holder and _is_anothers(before, now):
            self._held.pop(rollout, None)
            return None
        until = now + LEASE_FOR
        token = mine.token if mine is not None else 0
        taken = self._store.take_lease(rollout, self._holder, token=token, now=now, until=until)
        if taken is None:
            self._held.pop(rollout, None)
            return None
        self._held[rollout] = taken
        inherited = before is not None and before.holder != self._holder
        return Held(taken, inherited)

    def counts(self, lease: Lease) -> bool:
        """Tell whether a lease has not ended by now; the store knows whether somebody has taken it."""
        return self._clock.now() < lease.expires_at

    def forget(self, rollout: str) -> None:
        """Take it that a lease is lost: what is stored says who has it."""
        self._held.pop(rollout, None)

    def keep_only(self, rollouts: set[str]) -> None:
        """Forget the leases of rollouts that are over."""
        for name in self._held.keys() - rollouts:
            del self._held[name]

    def close(self) -> None:
        """Let others take at once what this replica has: it stops."""
        self._held.clear()
        self._store.end_leases(self._holder, self._clock.now())


def replica_name(data: Path) -> str:
    """Return the name of the replica that is served from a directory; it outlives the process.

    Raises:
        Unavailable: it cannot be written.
    """
    file = data / "replica"
    if not file.exists():
        write_file(file, secrets.token_hex(8).encode())
    return file.read_text().strip()


def _lasts(lease: Lease, now: datetime) -> bool:
    return lease.expires_at - now > PROLONG_BEFORE


def _is_anothers(lease: Lease, now: datetime) -> bool:
    return now < lease.expires_at <= now + 2 * LEASE_FOR
