"""Configurations: the part of the hub's store that is about what applications are told. Rules as `hub_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit


class ConfigurationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration's document (canonical JSON), and who changed it last."""

    name: str
    application: str
    document: bytes
    changed_at: datetime
    changed_by: str


class RevisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All configurations of an application as they were when a rollout was made: a JSON list of their documents."""

    application: str
    revision: str
    documents: bytes
    made_at: datetime


class ConfigurationChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Configurations to be stored, and revisions that rollouts name."""

    documents: Sequence[ConfigurationRecord] = ()
    revisions: Sequence[RevisionRecord] = ()


class Configurations(Protocol):
    """What applications are told; documents and revisions come with `apply_documents`.

    A revision never changes. One that no assignment and no rollout names is forgotten once there is another.
    """

    def configurations(self, application: str | None = None) -> Sequence[ConfigurationRecord]:
        """Return all configurations, or those of an application, by name."""
        ...

    def remove_configuration(self, name: str, audit: Audit) -> None:
        """Forget a configuration; revisions keep it. `Missing` when unknown."""
        ...

    def revision(self, application: str, revision: str) -> RevisionRecord | None:
        """Return a revision."""
        ...
