"""The audit: who changed what, when, why and by which decision, as a chain in which each entry names the one before.

The format is that of `docs/internals/audit.md`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part

AUDIT_HEAD_TYPE = "application/vnd.skerry.audit-head+json"
TRIMMED = "audit.trim"
"""The action of the entry which says up to where the oldest entries were forgotten."""

LinkDigest = Annotated[
    str,
    Meta(
        pattern=r"^(sha256:[0-9a-f]{64})?$", description="the digest of the entry before; empty for the first"
    ),
]


class AuditEntry(Part, frozen=True, kw_only=True):
    """Who did what. The digest of an entry is that of its canonical JSON, `previous` among it.

    `who` is an operator's token, `host:NAME`, `console`, or `hub` for what it does by itself. `decision` is
    `ROLLOUT#NUMBER` where a rollout decided it. The hub writes an entry in the transaction of what it is about.
    """

    number: Annotated[int, Meta(ge=1)]
    at: Annotated[datetime, Meta(tz=True)]
    who: str
    action: str
    subject: str
    outcome: str = "done"
    why: str = ""
    decision: str = ""
    previous: LinkDigest = ""


class AuditHead(Part, frozen=True, kw_only=True, tag_field="type", tag="audit-head"):
    """The newest entry of a hub's audit as of an instant: kept elsewhere, it shows what is rewritten or cut off."""

    hub: Annotated[str, Meta(max_length=512)] = ""
    at: Annotated[datetime, Meta(tz=True)]
    number: Annotated[int, Meta(ge=0)]
    digest: LinkDigest = ""
