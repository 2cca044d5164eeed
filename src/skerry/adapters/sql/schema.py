"""The hub's tables.

- Instants are microseconds since 1970-01-01T00:00:00Z: exact, sortable, the same in every database.
- Columns with structs are the bytes that msgspec writes; nothing asks into them with SQL.
- A host's row is rewritten at each of its reports, so what is large and changes rarely is in another table.
- Each change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.spec.api_rollout import EffectView, SiteProgress, Steering
from skerry.spec.evidence import Evidence
from skerry.spec.facts import HostFacts
from skerry.spec.metrics import Value
from skerry.spec.overriding import Override
from skerry.spec.relay import RelayView
from skerry.spec.report import Event, Observed
from skerry.spec.secret import Making
from skerry.trust.cloning import Lineage

_epoch = datetime(1970, 1, 1, tzinfo=UTC)
_microsecond = timedelta(microseconds=1)


class Instant(sa.TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since the epoch."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else (value - _epoch) // _microsecond

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else _epoch + value * _microsecond


class Encoded(sa.TypeDecorator[Any]):
    """A value of one type, stored as its JSON."""

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        return None if value is None else _encoder.encode(value)

    def process_result_value(self, value: bytes | None, dialect: sa.Dialect) -> Any:
        return None if value is None else self._decoder.decode(value)


_encoder = msgspec.json.Encoder()

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_row_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("last_used_at", Instant),
    sa.Column("once", sa.Boolean, nullable=False),
)

# Most tokens are for all sites.
token_scopes = sa.Table(
    "token_scopes",
    metadata,
    sa.Column("token", sa.Text, sa.ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sites", sa.Text, nullable=False),
)

audits = sa.Table(
    "audits",
    metadata,
    sa.Column("id", _row_id, primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
)

# The newest entry of the audit, and of each host's events.
chains = sa.Table(
    "chains",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)

sites = sa.Table(
    "sites",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("desired_expires_at", Instant),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("desired", sa.LargeBinary),
)

join_tokens = sa.Table(
    "join_tokens",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("uses_left", sa.Integer, nullable=False),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name"), nullable=False, index=True),
    sa.Column("sign_key", sa.Text, nullable=False),
    sa.Column("seal_key", sa.Text, nullable=False),
    sa.Column("enrolled_at", Instant, nullable=False),
    sa.Column("last_seen_at", Instant),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("generation_held", sa.BigInteger, nullable=False),
    sa.Column("clock_offset_s", sa.Float),
)

host_states = sa.Table(
    "host_states",
    metadata,
    sa.Column("host", sa.Text, sa.ForeignKey("hosts.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("observed_at", Instant),
    sa.Column("observed", Encoded(Observed)),
    sa.Column("facts", Encoded(HostFacts)),
)

# Most tokens are for new hosts.
join_replacements = sa.Table(
    "join_replacements",
    metadata,
    sa.Column("hash", sa.Text, sa.ForeignKey("join_tokens.hash", ondelete="CASCADE"), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
)

# Changes when an agent starts, not at each report.
host_lineages = sa.Table(
    "host_lineages",
    metadata,
    sa.Column("host", sa.Text, sa.ForeignKey("hosts.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("lineage", Encoded(Lineage), nullable=False),
    sa.Column("quarantined_at", Instant),
    sa.Column("why", sa.Text, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _row_id, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("event", Encoded(Event), nullable=False),
    sa.Index("ix_events_host", "host", "id"),
    sa.Index("ix_events_site", "site", "id"),
    sqlite_autoincrement=True,
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("publisher", sa.Text, nullable=False),
    sa.Column("vouched_at", sa.BigInteger, nullable=False),
)

# What releases carry is replaced as a whole, and asked for by release alone.
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("release", sa.Text, sa.ForeignKey("releases.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("evidence", Encoded(tuple[Evidence, ...]), nullable=False),
)

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("changed_at", Instant, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)

configurations = sa.Table(
    "configurations",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("changed_at", Instant, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)

configuration_revisions = sa.Table(
    "configuration_revisions",
    metadata,
    sa.Column("application", sa.Text, primary_key=True),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("made_at", Instant, nullable=False),
    sa.Column("documents", sa.LargeBinary, nullable=False),
)

# What hosts and publishers fetch: the bytes as they were signed.
metadata_files = sa.Table(
    "metadata",
    metadata,
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("sites", Encoded(dict[str, SiteProgress]), nullable=False),
    sa.Column("steering", Encoded(Steering), nullable=False),
)

# No foreign key: tokens only ever rise, also those of a rollout that was removed and made again under its name.
rollout_leases = sa.Table(
    "rollout_leases",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("rollout", sa.Text, sa.ForeignKey("rollouts.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("effects", Encoded(tuple[EffectView, ...]), nullable=False),
)

# Most rollouts need none.
overrides = sa.Table(
    "overrides",
    metadata,
    sa.Column("rollout", sa.Text, sa.ForeignKey("rollouts.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("override", Encoded(Override), nullable=False),
)

# No foreign key: hosts remember the count for as long as they have their disk, so one that began anew, after its
# site was removed and made again, would have to be raised past it before anything happened.
wipes = sa.Table(
    "wipes",
    metadata,
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("application", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("asked_at", Instant, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
)

deltas = sa.Table(
    "deltas",
    metadata,
    sa.Column("base", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("delta", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("made_at", Instant, nullable=False),
)

# Generations between `known` and `base` are of a time that this database does not know.
recoveries = sa.Table(
    "recoveries",
    metadata,
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("known", sa.BigInteger, nullable=False),
    sa.Column("base", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("held_since", Instant),
)

# Values are encrypted under a key of their own; that key is here wrapped alone.
secret_versions = sa.Table(
    "secret_versions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("scope_kind", sa.Text, nullable=False),
    sa.Column("scope_of", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("encrypted", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("not_before", Instant),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("making", Encoded(Making)),
    sa.Column("at_site", sa.Boolean, nullable=False),
    sa.Column("rotate_every_s", sa.BigInteger),
    sa.UniqueConstraint("name", "version"),
)

# No foreign keys: who could read what stays true when host and secret have gone.
secret_exposures = sa.Table(
    "secret_exposures",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("secret", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("sealed_at", Instant, nullable=False),
)

# No foreign keys: what was issued has to be known to be revoked when its host has gone.
authorities = sa.Table(
    "authorities",
    metadata,
    sa.Column("serial", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False, index=True),
    sa.Column("site", sa.Text, nullable=False, index=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    sa.Column("issued_at", Instant, nullable=False),
    sa.Column("not_after", Instant, nullable=False),
    sa.Column("revoked_at", Instant),
)

# No foreign key: a host that was removed and joins again is the same machine at the same place.
host_silences = sa.Table(
    "host_silences",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("begun_at", Instant, primary_key=True),
    sa.Column("ended_at", Instant, nullable=False),
)

# No foreign keys: what was measured stays true when a host has gone. Gates ask by application and release.
metric_windows = sa.Table(
    "metric_windows",
    metadata,
    sa.Column("application", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("component", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("begin", Instant, primary_key=True),
    sa.Column("end", Instant, nullable=False),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("received_at", Instant, nullable=False, index=True),
    sa.Column("value", Encoded(Value), nullable=False),
)

assignments = sa.Table(
    "assignments",
    metadata,
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("application", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, nullable=False, index=True),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
)

relays = sa.Table(
    "relays",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("state_expires_at", Instant),
    sa.Column("state", sa.LargeBinary),
)

# A relay as it enrolled, and what it last said of itself; a relay that is only written down has none.
relay_members = sa.Table(
    "relay_members",
    metadata,
    sa.Column("relay", sa.Text, sa.ForeignKey("relays.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("sign_key", sa.Text, nullable=False, unique=True),
    sa.Column("enrolled_at", Instant, nullable=False),
    sa.Column("last_seen_at", Instant),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("generation_held", sa.BigInteger, nullable=False),
    sa.Column("clock_offset_s", sa.Float),
    sa.Column("tls_key", sa.Text, nullable=False),
    sa.Column("view_at", Instant),
    sa.Column("view", Encoded(RelayView)),
)

relay_tokens = sa.Table(
    "relay_tokens",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("relay", sa.Text, sa.ForeignKey("relays.name", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("replaces", sa.Boolean, nullable=False),
    sa.Column("used", sa.Boolean, nullable=False),
)

# By which relays whose signed word has come, and when last, give or take an hour.
relay_hosts = sa.Table(
    "relay_hosts",
    metadata,
    sa.Column("relay", sa.Text, sa.ForeignKey("relays.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("host", sa.Text, sa.ForeignKey("hosts.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("seen_at", Instant, nullable=False),
)

relay_relays = sa.Table(
    "relay_relays",
    metadata,
    sa.Column("relay", sa.Text, sa.ForeignKey("relays.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("below", sa.Text, sa.ForeignKey("relays.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("seen_at", Instant, nullable=False),
)
