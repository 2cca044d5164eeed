"""SqlHubStore: the hub's store in SQLite. Each method is one transaction of the one writer, or one read.

What each method promises stands at the port; what it does, in `operators`, `fleet`, `releases` and `recoveries`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import (
    deciding,
    deltas,
    fleet,
    identities,
    metric_windows,
    operators,
    recoveries,
    releases,
    signed_metadata,
    silences,
)
from skerry.adapters.sql import policies as policy_rows
from skerry.adapters.sql import relays as relay_rows
from skerry.adapters.sql.audit_log import SqlAuditLog, add_audit
from skerry.adapters.sql.authorities import SqlAuthorities
from skerry.adapters.sql.configurations import SqlConfigurations, put_configurations
from skerry.adapters.sql.database import Database, open_file, open_memory
from skerry.adapters.sql.downlinks import SqlDownlinks
from skerry.adapters.sql.questions import SqlQuestions
from skerry.adapters.sql.secrets import SqlSecrets
from skerry.adapters.sql.sinks import SqlSinks, put_sinks
from skerry.adapters.sql.telemetry import SqlTelemetry
from skerry.adapters.sql.topics import SqlTopics
from skerry.ports.configurations import ConfigurationChanges
from skerry.ports.deciding import DecisionRecord, Lease, Turn
from skerry.ports.host_identities import KeysRecord, LineageRecord
from skerry.ports.hub_store import (
    AppliedReport,
    AssignmentRecord,
    Audit,
    DeltaRecord,
    EventRecord,
    HostRecord,
    HubStore,
    JoinTokenRecord,
    Publication,
    RecoveryRecord,
    ReleaseRecord,
    Revoked,
    RolloutRecord,
    SiteRecord,
    TokenRecord,
)
from skerry.ports.metric_windows import HostWindow
from skerry.ports.policies import PolicyRecord
from skerry.ports.relay_records import RelayKeys, RelayRecord, RelaySeen, RelayTokenRecord, Way
from skerry.ports.sink_store import SinkRecord
from skerry.spec.backup import RestoreMark
from skerry.spec.metrics import MetricWindow
from skerry.spec.report import Event


class SqlHubStore(
    SqlAuditLog,
    SqlSecrets,
    SqlConfigurations,
    SqlAuthorities,
    SqlTelemetry,
    SqlTopics,
    SqlDownlinks,
    SqlQuestions,
    SqlSinks,
    HubStore,
):
    """Usable from any number of threads at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path | None) -> SqlHubStore:
        """Open the database at `path`, creating or migrating it as needed; None is one in memory, for tests.

        Raises:
            Rejected: it is damaged (`hub.database_corrupt`), newer than this version (`hub.database_newer`)
                or another program's (`hub.database_foreign`); the file is left untouched.
            Unavailable: it cannot be opened.
        """
        return cls(open_memory() if path is None else open_file(path))

    def close(self) -> None:
        self._database.close()

    def setting(self, key: str) -> bytes | None:
        return self._database.read(lambda connection: operators.load_setting(connection, key))

    def put_setting(self, key: str, value: bytes) -> None:
        self._database.write(lambda connection: operators.put_setting(connection, key, value))

    # operators
    def add_token(self, token: TokenRecord, audit: Audit) -> None:
        self._database.write(lambda connection: operators.add_token(connection, token, audit))

    def token_by_hash(self, hash: str) -> TokenRecord | None:
        return self._database.read(lambda connection: operators.token_by_hash(connection, hash))

    def tokens(self) -> Sequence[TokenRecord]:
        return self._database.read(operators.load_tokens)

    def remove_token(self, token_id: str, audit: Audit) -> None:
        self._database.write(lambda connection: operators.remove_token(connection, token_id, audit))

    def exchange_token(self, once_hash: str, token: TokenRecord, audit: Audit) -> bool:
        return self._database.write(
            lambda connection: operators.exchange_token(connection, once_hash, token, audit)
        )

    def touch_token(self, token_id: str, at: datetime) -> None:
        self._database.write(lambda connection: operators.touch_token(connection, token_id, at))

    # sites and hosts
    def apply_documents(
        self,
        *,
        sites: Mapping[str, bytes],
        rollouts: Sequence[RolloutRecord],
        audits: Sequence[Audit],
        fleetwide: Sequence[PolicyRecord | SinkRecord] = (),
        relays: Mapping[str, bytes] = {},
        configurations: ConfigurationChanges = ConfigurationChanges(),  # noqa: B008 - frozen
    ) -> None:
        def apply(connection: sa.Connection) -> None:
            fleet.put_sites(connection, sites)
            relay_rows.put_relays(connection, relays)
            policy_rows.put_policies(connection, [one for one in fleetwide if isinstance(one, PolicyRecord)])
            put_configurations(connection, configurations)
            put_sinks(connection, [one for one in fleetwide if isinstance(one, SinkRecord)])
            releases.add_rollouts(connection, rollouts)
            for audit in audits:
                add_audit(connection, audit)

        self._database.write(apply)

    def site(self, name: str) -> SiteRecord | None:
        return self._database.read(lambda connection: fleet.load_site(connection, name))

    def sites(self) -> Sequence[SiteRecord]:
        return self._database.read(fleet.load_sites)

    def remove_site(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: fleet.remove_site(connection, name, audit))

    def issue_desired(
        self,
        site: str,
        generation: int,
        desired: bytes,
        expires_at: datetime,
        *,
        after: int | None = None,
    ) -> None:
        issued = fleet.IssuedState(generation, desired, expires_at)
        before = generation - 1 if after is None else after
        self._database.write(lambda connection: fleet.issue_desired(connection, site, issued, after=before))

    def add_join_token(self, token: JoinTokenRecord, audit: Audit) -> None:
        self._database.write(lambda connection: fleet.add_join_token(connection, token, audit))

    def enroll_host(self, join_hash: str, host: HostRecord, audit: Audit) -> HostRecord:
        return self._database.write(lambda connection: fleet.enroll_host(connection, join_hash, host, audit))

    def host(self, name: str) -> HostRecord | None:
        return self._database.read(lambda connection: fleet.load_host(connection, name))

    def hosts(self, site: str | None = None) -> Sequence[HostRecord]:
        return self._database.read(lambda connection: fleet.load_hosts(connection, site))

    def remove_host(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: fleet.remove_host(connection, name, audit))

    def lineages(self) -> Sequence[LineageRecord]:
        return self._database.read(identities.load_lineages)

    def put_lineage(
        self, record: LineageRecord, event: Event | None = None, audit: Audit | None = None
    ) -> None:
        self._database.write(lambda connection: identities.put_lineage(connection, record, event, audit))

    def readmit_host(self, name: str, event: Event, audit: Audit) -> None:
        self._database.write(lambda connection: identities.readmit_host(connection, name, event, audit))

    def change_keys(self, keys: KeysRecord, event: Event, audit: Audit) -> None:
        self._database.write(lambda connection: identities.change_keys(connection, keys, event, audit))

    def apply_reports(self, reports: Sequence[AppliedReport]) -> int:
        return self._database.write(lambda connection: fleet.apply_reports(connection, reports))

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        self._database.write(lambda connection: fleet.note_seen(connection, seen))

    def note_silence(self, host: str, begun_at: datetime, ended_at: datetime) -> None:
        self._database.write(lambda connection: silences.note(connection, host, begun_at, ended_at))

    def silences(self) -> Mapping[str, Sequence[timedelta]]:
        return self._database.read(silences.load)

    def events(self, *, site: str = "", host: str = "", limit: int = 100) -> Sequence[EventRecord]:
        return self._database.read(lambda connection: fleet.load_events(connection, site, host, limit))

    # releases
    def add_release(self, release: ReleaseRecord, audit: Audit) -> bool:
        return self._database.write(lambda connection: releases.add_release(connection, release, audit))

    def release(self, name: str) -> ReleaseRecord | None:
        return self._database.read(lambda connection: releases.load_release(connection, name))

    def publish(self, publication: Publication, audit: Audit | None = None) -> bool:
        return self._database.write(
            lambda connection: signed_metadata.publish(connection, publication, audit)
        )

    def metadata(self, role: str, version: int | None = None) -> bytes | None:
        return self._database.read(lambda connection: signed_metadata.load(connection, role, version))

    def metadata_versions(self) -> Mapping[str, int]:
        return self._database.read(signed_metadata.load_versions)

    def releases(self) -> Sequence[ReleaseRecord]:
        return self._database.read(releases.load_releases)

    def remove_release(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: releases.remove_release(connection, name, audit))

    # rollouts and assignments
    def rollout(self, name: str) -> RolloutRecord | None:
        return self._database.read(lambda connection: releases.load_rollout(connection, name))

    def rollouts(self, *, running_only: bool = False) -> Sequence[RolloutRecord]:
        return self._database.read(
            lambda connection: releases.load_rollouts(connection, running_only=running_only)
        )

    def advance_rollout(
        self,
        rollout: RolloutRecord,
        *,
        assign: Sequence[AssignmentRecord] = (),
        unassign: Sequence[tuple[str, str]] = (),
        audit: Audit | None = None,
        turn: Turn | None = None,
    ) -> None:
        def advance(connection: sa.Connection) -> None:
            if turn is not None:
                deciding.use_turn(connection, turn)
            releases.advance_rollout(connection, rollout)
            releases.remove_assignments(connection, unassign)
            releases.put_assignments(connection, assign)
            if audit is not None:
                add_audit(connection, audit)

        self._database.write(advance)

    def lease(self, rollout: str) -> Lease | None:
        return self._database.read(lambda connection: deciding.load_lease(connection, rollout))

    def take_lease(
        self, rollout: str, holder: str, *, token: int, now: datetime, until: datetime
    ) -> Lease | None:
        wanted = Lease(rollout=rollout, holder=holder, token=token, expires_at=until)
        latest = until + (until - now)
        return self._database.write(
            lambda connection: deciding.take_lease(connection, wanted, now, latest=latest)
        )

    def end_leases(self, holder: str, now: datetime) -> None:
        self._database.write(lambda connection: deciding.end_leases(connection, holder, now))

    def decisions(self, rollout: str, *, limit: int) -> Sequence[DecisionRecord]:
        return self._database.read(lambda connection: deciding.load_decisions(connection, rollout, limit))

    def remove_rollout(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: releases.remove_rollout(connection, name, audit))

    def assignments(self, site: str | None = None) -> Sequence[AssignmentRecord]:
        return self._database.read(lambda connection: releases.load_assignments(connection, site))

    def wipe_volumes(self, site: str, application: str, audit: Audit) -> int:
        return self._database.write(
            lambda connection: releases.wipe_volumes(connection, site, application, audit)
        )

    def wipes(self, site: str) -> Mapping[str, int]:
        return self._database.read(lambda connection: releases.load_wipes(connection, site))

    # policies
    def policies(self) -> Sequence[PolicyRecord]:
        return self._database.read(policy_rows.load_policies)

    def remove_policy(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: policy_rows.remove_policy(connection, name, audit))

    # relays
    def relays(self) -> Sequence[RelayRecord]:
        return self._database.read(relay_rows.load_relays)

    def relay(self, name: str) -> RelayRecord | None:
        return self._database.read(lambda connection: relay_rows.load_relay(connection, name))

    def remove_relay(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: relay_rows.remove_relay(connection, name, audit))

    def add_relay_token(self, token: RelayTokenRecord, audit: Audit) -> None:
        self._database.write(lambda connection: relay_rows.add_token(connection, token, audit))

    def enroll_relay(self, token_hash: str, keys: RelayKeys, audit: Audit) -> RelayRecord:
        return self._database.write(
            lambda connection: relay_rows.enroll_relay(connection, token_hash, keys, audit)
        )

    def apply_relay_report(self, seen: RelaySeen) -> int:
        return self._database.write(lambda connection: relay_rows.apply_report(connection, seen))

    def relay_state(self, name: str) -> bytes | None:
        return self._database.read(lambda connection: relay_rows.load_state(connection, name))

    def issue_relay_state(
        self, relay: str, generation: int, state: bytes, expires_at: datetime, *, after: int
    ) -> None:
        issued = relay_rows.IssuedRelayState(generation, state, expires_at, after)
        self._database.write(lambda connection: relay_rows.issue_state(connection, relay, issued))

    def host_ways(self) -> Sequence[Way]:
        return self._database.read(relay_rows.load_host_ways)

    def relay_ways(self) -> Sequence[Way]:
        return self._database.read(relay_rows.load_relay_ways)

    def put_ways(self, *, hosts: Sequence[Way] = (), relays: Sequence[Way] = ()) -> None:
        self._database.write(lambda connection: relay_rows.put_ways(connection, hosts, relays))

    def trim_ways(self, before: datetime) -> None:
        self._database.write(lambda connection: relay_rows.trim_ways(connection, before))

    # metrics
    def put_metric_windows(
        self, host: str, site: str, windows: Sequence[MetricWindow], *, sequence: int, at: datetime
    ) -> None:
        self._database.write(
            lambda connection: metric_windows.put_windows(
                connection, windows, host=host, site=site, sequence=sequence, at=at
            )
        )

    def metric_windows(
        self,
        application: str,
        releases: Sequence[str],
        *,
        since: datetime | None = None,
        sites: Sequence[str] | None = None,
    ) -> Sequence[HostWindow]:
        return self._database.read(
            lambda connection: metric_windows.load_windows(connection, application, releases, since, sites)
        )

    def trim_metric_windows(
        self, before: datetime, *, keep: int, needed: Collection[str] = (), most: int = 5000
    ) -> int:
        # What to forget takes long to find among a million, and who writes meanwhile changes none of it.
        found = self._database.read(
            lambda connection: metric_windows.plan_trimming(
                connection, before, keep, needed=needed, most=most
            )
        )
        if found is None:
            return 0
        return self._database.write(lambda connection: metric_windows.trim(connection, found))

    # recovery
    def recoveries(self) -> Sequence[RecoveryRecord]:
        return self._database.read(recoveries.load_recoveries)

    def put_recovery(self, record: RecoveryRecord, audit: Audit | None = None) -> None:
        self._database.write(lambda connection: recoveries.put_recovery(connection, record, audit))

    def settle_site(
        self, record: RecoveryRecord, audit: Audit, *, assign: Sequence[AssignmentRecord] | None = None
    ) -> None:
        self._database.write(lambda connection: recoveries.settle_site(connection, record, assign, audit))

    def begin_restored(self, mark: RestoreMark, audit: Audit, *, revoke_tokens: bool) -> Revoked:
        return self._database.write(
            lambda connection: recoveries.begin_restored(
                connection, mark, revoke_tokens=revoke_tokens, audit=audit
            )
        )

    def restored(self) -> RestoreMark | None:
        raw = self.setting(recoveries.RESTORED)
        return None if raw is None else msgspec.json.decode(raw, type=RestoreMark)

    # deltas
    def deltas(self) -> Sequence[DeltaRecord]:
        return self._database.read(deltas.load_deltas)

    def put_delta(self, delta: DeltaRecord) -> None:
        self._database.write(lambda connection: deltas.put_delta(connection, delta))

    def remove_delta(self, base: str, target: str) -> None:
        self._database.write(lambda connection: deltas.remove_delta(connection, base, target))
