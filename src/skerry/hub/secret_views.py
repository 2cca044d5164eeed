"""Makes views of secrets for people, without their values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from skerry.hub.secret_keeping import Offer
from skerry.matching.secrets import scope_text
from skerry.ports.secrets import ExposureRecord, SecretRecord
from skerry.spec.api_secret import ExposureView, SecretDecision, SecretState, SecretVersionView


def state_of(record: SecretRecord, versions: Sequence[SecretRecord], now: datetime) -> SecretState:
    """Return where a version stands among those of its name."""
    if record.revoked_at is not None:
        return "revoked"
    if record.not_before is not None and record.not_before > now:
        return "next"
    later = (one for one in versions if one.scope == record.scope and one.version > record.version)
    began = (
        one for one in later if one.revoked_at is None and (one.not_before is None or one.not_before <= now)
    )
    return "superseded" if any(began) else "used"


def view_version(record: SecretRecord, versions: Sequence[SecretRecord], now: datetime) -> SecretVersionView:
    """Return a version as people see it."""
    return SecretVersionView(
        version=record.version,
        scope=scope_text(record.scope),
        site=record.scope.of if record.scope.kind == "site" else "",
        selector=record.scope.of if record.scope.kind == "selector" else "",
        state=state_of(record, versions, now),
        kind=record.kind,
        length=record.length,
        public=record.public,
        created_at=record.created_at,
        created_by=record.created_by,
        not_before=record.not_before,
        expires_at=record.expires_at,
        revoked_at=record.revoked_at,
    )


def view_exposure(record: ExposureRecord, versions: Sequence[SecretRecord], now: datetime) -> ExposureView:
    """Return what a host could read, and whether that is still in use."""
    stored = next((one for one in versions if one.id == record.secret), None)
    state = state_of(stored, versions, now) if stored is not None else None
    why = {
        None: "it was deleted",
        "used": "it is in use",
        "next": "it is to be used from its time on",
        "superseded": "a later version is in use",
        "revoked": "it was revoked",
    }[state]
    return ExposureView(
        host=record.host,
        site=record.site,
        name=record.name,
        version=record.version,
        sealed_at=record.sealed_at,
        rotate_needed=state in ("used", "next"),
        why=why,
    )


def view_decision(name: str, site: str, offer: Offer, used_by: Sequence[str]) -> SecretDecision:
    """Return which version a site gets, and why."""
    current, why = offer.current, list(offer.choice.why)
    if offer.choice.scope is None and not offer.choice.tied:
        why.insert(0, "no value is for this site")
    elif current is None and not offer.choice.tied:
        why.append("no version's time has come")
    elif current is not None:
        since = f" since {current.not_before:%Y-%m-%d %H:%M} UTC" if current.not_before else ""
        why.append(f"version {current.version} is the newest there that holds{since}")
    later = tuple(one.version for one in offer.given if current is None or one.version > current.version)
    return SecretDecision(
        name=name,
        site=site,
        version=current.version if current is not None else None,
        next=later,
        used_by=tuple(used_by),
        why=tuple(why),
    )
