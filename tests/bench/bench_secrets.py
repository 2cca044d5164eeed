"""What it costs a hub to seal the secrets of a large fleet, and to seal anew after one of them has changed.

Each site has one host, whose application uses all secrets; the database is a file. Times are CPU time of one process
that does one thing at a time: what it computes, writes and reads, without signing the desired states.
"""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from skerry.adapters.key_file import KeyFile
from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.secret_keeping import SecretKeeper
from skerry.hub.secret_sealing import Sealed, Sealer
from skerry.hub.site_use import SiteUse
from skerry.ports.hub_store import Audit, HostRecord, JoinTokenRecord
from skerry.spec.api_secret import SecretRequest
from skerry.spec.application import SecretUse
from skerry.spec.desired import DesiredState
from skerry.spec.release import Release
from skerry.testing.clock import SimulatedClock
from skerry.trust.keys import new_sealing_key
from tests.bench.figure import Figure
from tests.unit.matching_world import component, release
from tests.unit.upstream import NOW

SITES = 1_000
SECRETS = 500
USES = 50
"""So many secrets has each of the applications."""
GOAL_S = 120


class Fleet:
    """Sites of one host each, which all run the same applications."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock(NOW)
        self.store = SqlHubStore.open(folder / "hub.db")
        self.keeper = SecretKeeper(self.store, KeyFile(folder / "secrets.key", own=True), self.clock)
        self.sealer = Sealer(self.store, self.keeper, self.clock, is_barred=lambda _: False)
        self.releases: dict[str, Release] = {}
        for first in range(0, SECRETS, USES):
            uses = tuple(SecretUse(name=f"s-{n}", path=f"s-{n}") for n in range(first, first + USES))
            self.releases[f"app-{first}"] = release(component(secrets=uses), name=f"app-{first}")
        self.names = [f"site-{number}" for number in range(SITES)]
        documents = {
            name: msgspec.json.encode(
                {"apiVersion": "skerry/v1", "kind": "Site", "metadata": {"name": name}, "spec": {}}
            )
            for name in self.names
        }
        self.store.apply_documents(sites=documents, rollouts=[], audits=[])
        for name in self.names:
            self._enroll(name)
        for number in range(SECRETS):
            self.set(f"s-{number}")

    def set(self, name: str) -> None:
        """Store the next version of a secret."""
        value = base64.b64encode(f"value of {name}".encode().ljust(32, b".")).decode()
        record = self.keeper.prepare(name, SecretRequest(value=value), "bench")
        self.store.add_secret_version(record, self._audit())

    def seal(self, before: dict[str, Sealed]) -> tuple[float, dict[str, Sealed]]:
        """Return the seconds it takes to seal for all sites after what was sealed before, and what that is."""
        uses = [self._use(name, before.get(name)) for name in self.names]
        begun = time.process_time()
        sealed = {use.site.name: self.sealer.seal(use) for use in uses}
        return time.process_time() - begun, sealed

    def _use(self, name: str, before: Sealed | None) -> SiteUse:
        site, host = self.store.site(name), self.store.host(f"host-{name}")
        assert site is not None
        assert host is not None
        held = DesiredState(
            site=name, generation=1, issued_at=NOW, expires_at=NOW, secrets=before.secrets if before else {}
        )
        return SiteUse(
            site=site,
            hosts=[host],
            applications={host.name: list(self.releases)},
            releases=self.releases,
            before=held,
        )

    def _enroll(self, site: str) -> None:
        token = JoinTokenRecord(
            hash=site, site=site, created_at=NOW, expires_at=NOW.replace(year=2099), uses_left=1
        )
        self.store.add_join_token(token, self._audit())
        record = HostRecord(
            name=f"host-{site}", site=site, sign_key=site, seal_key=new_sealing_key()[1], enrolled_at=NOW
        )
        self.store.enroll_host(token.hash, record, self._audit())

    def _audit(self) -> Audit:
        return Audit(at=NOW, who="bench", action="bench", subject="bench")


def figures() -> Iterator[Figure]:
    """Seal everything, nothing, and one secret that has changed."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        all_s, first = fleet.seal({})
        count = sum(len(sealed) for one in first.values() for sealed in one.secrets.values())
        assert count == SITES * SECRETS
        yield Figure(
            "seal_all_s", all_s, "s", f"{SECRETS} secrets to each of {SITES:,} sites; the goal is {GOAL_S} s"
        )
        again_s, second = fleet.seal(first)
        assert second == first
        yield Figure("seal_nothing_new_s", again_s, "s", "all sites looked at, nothing has changed")
        fleet.set("s-0")
        one_s, third = fleet.seal(second)
        fresh = {
            sealed.id
            for one in third.values()
            for given in one.secrets.values()
            for sealed in given
            if sealed.version == 2
        }
        assert len(fresh) == 1
        yield Figure(
            "seal_one_changed_s", one_s, "s", f"one secret has changed, and is sealed {SITES:,} times"
        )
        fleet.store.close()
