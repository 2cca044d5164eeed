"""The operator API's answers about what hosts measured."""

from __future__ import annotations

from datetime import datetime

import msgspec

from skerry.spec.telemetry import Losses


class CoverageView(msgspec.Struct, frozen=True, kw_only=True):
    """Whose figures are in an answer: `sites` of the `of` that could be; `stale` told nothing newer than an hour ago.

    `as_of` is up to when the newest of them told, `oldest` the oldest; null without any.
    """

    sites: int
    of: int
    stale: int
    as_of: datetime | None = None
    oldest: datetime | None = None


class FigureView(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a group of series, named by the labels that were asked for.

    `samples` is how many it is made of, from so many `sites` and `hosts`; `as_of` is up to when the newest of these
    sites told, `oldest` the oldest.
    """

    group: dict[str, str]
    value: float | None
    samples: int
    sites: int
    hosts: int
    as_of: datetime
    oldest: datetime


class MetricsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a question about metrics came to, between two instants of event time."""

    query: str
    stat: str
    since: datetime
    until: datetime
    figures: tuple[FigureView, ...]
    coverage: CoverageView


class MetricView(msgspec.Struct, frozen=True, kw_only=True):
    """A metric by name: its kind, how many series it has, and from where."""

    name: str
    kind: str
    series: int
    sites: int
    labels: tuple[str, ...]
    as_of: datetime


class TopView(msgspec.Struct, frozen=True, kw_only=True):
    """How much a site's hosts, or an application's components, take, or how a model fares; null where nobody told.

    Of models: how many `predictions`, of how many the truth came (`labelled`), the share that was right (`accuracy`),
    and the largest drift of their features.

    `cpu` is in processors (for a site: the busy share of them, from 0 to 1), `memory_bytes` what is in use.
    """

    name: str
    cpu: float | None
    memory_bytes: float | None
    memory_share: float | None = None
    restarts: float | None = None
    predictions: int | None = None
    labelled: int | None = None
    accuracy: float | None = None
    drift_psi: float | None = None
    sites: int
    hosts: int
    as_of: datetime | None
    oldest: datetime | None


class TopAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What sites or applications take, or what models did, the most first."""

    what: str
    since: datetime
    until: datetime
    rows: tuple[TopView, ...]
    coverage: CoverageView


class HostTelemetryView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a host has told, and what is missing: what it gave up, and batches that were lost on the way."""

    host: str
    site: str
    received_at: datetime
    newest: datetime | None
    losses: Losses
    missing_batches: int
    ignored: int
