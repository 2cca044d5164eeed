"""Records for tests of the hub's store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from skerry.kit.digests import digest_of
from skerry.ports.hub_store import (
    AppliedReport,
    Audit,
    HostRecord,
    HubStore,
    JoinTokenRecord,
    ReleaseRecord,
    RolloutRecord,
    TokenRecord,
)
from skerry.ports.secrets import SecretRecord
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.report import ApplicationView, Event, Observed

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)


def audit(action: str = "test", at: datetime = NOW) -> Audit:
    return Audit(at=at, who="ann", action=action, subject="something")


def token(
    name: str, *, expires_at: datetime | None = None, once: bool = False, suffix: str = ""
) -> TokenRecord:
    return TokenRecord(
        id=f"id-{name}{suffix}",
        name=name,
        hash=f"hash-{name}{suffix}",
        role="operator",
        created_at=NOW,
        expires_at=expires_at,
        once=once,
    )


def join_token(site: str = "berlin", *, uses: int = 1, expires_at: datetime = NOW + HOUR) -> JoinTokenRecord:
    return JoinTokenRecord(
        hash=f"join-{site}", site=site, created_at=NOW, expires_at=expires_at, uses_left=uses
    )


def host(name: str = "cam-1", site: str = "berlin", *, key: str = "k1") -> HostRecord:
    return HostRecord(
        name=name, site=site, sign_key=f"sign-{key}", seal_key=f"seal-{key}", enrolled_at=NOW, sequence=1
    )


def secret(name: str = "key", version: int = 1, **more: Any) -> SecretRecord:
    record = SecretRecord(
        id=digest_of(f"{name} {version}".encode()).removeprefix("sha256:")[:32],
        name=name,
        version=version,
        scope_kind="all",
        scope_of="",
        kind="set",
        length=0,
        public="",
        key_id="first",
        wrapped=b"wrapped",
        encrypted=b"\x00encrypted\xff",
        created_at=NOW,
        created_by="ann",
    )
    return msgspec.structs.replace(record, **more)


def release(version: str = "1", *, content: bytes = b"{}", application: str = "meter") -> ReleaseRecord:
    return ReleaseRecord(
        name=f"{application}@{version}",
        application=application,
        version=version,
        digest=digest_of(content),
        document=content,
        size_bytes=5_000_000_000,
        created_at=NOW,
        created_by="ann",
    )


def rollout(
    name: str = "r1", *, release: str = "meter@1", previous: str = "", at: datetime = NOW
) -> RolloutRecord:
    progress = SiteProgress(state="pending", why="has just begun", previous=previous)
    return RolloutRecord(
        name=name,
        document=b'{"kind":"Rollout"}',
        release=release,
        application="meter",
        created_at=at,
        created_by="ann",
        sites={"berlin": progress},
    )


def report(sequence: int, *, host: str = "cam-1", full: bool = True) -> AppliedReport:
    """A report whose contents name its sequence, or one that only says that the host is alive."""
    seen_at = NOW + timedelta(seconds=sequence)
    return AppliedReport(
        host=host,
        site="berlin",
        sequence=sequence,
        seen_at=seen_at,
        sent_at=seen_at - timedelta(milliseconds=5),
        clock_offset_s=sequence / 4,
        generation=sequence,
        observed=observed(sequence) if full else None,
        events=(Event(at=seen_at, kind="test.happened", message=str(sequence)),) if full else (),
    )


def observed(generation: int) -> Observed:
    return Observed(generation=generation, applications={"meter": ApplicationView(phase="running")})


def populate(
    store: HubStore, *, sites: tuple[str, ...] = ("berlin",), hosts: tuple[str, ...] = ("cam-1",)
) -> None:
    """Store sites, and enrol hosts at the first of them."""
    store.apply_documents(sites=dict.fromkeys(sites, b"{}"), rollouts=(), audits=())
    if hosts:
        store.add_join_token(join_token(sites[0], uses=len(hosts)), audit())
    for name in hosts:
        store.enroll_host(f"join-{sites[0]}", host(name, sites[0]), audit())
