"""Makes views of secrets for people, without their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from skerry.hub.secret_keeping import Offer
from skerry.kit.quantities import format_duration
from skerry.matching.secrets import scope_text
from skerry.ports.hub_store import HostRecord
from skerry.ports.secrets import ExposureRecord, SecretRecord
from skerry.spec.api_secret import ExposureView, MadeView, SecretDecision, SecretState, SecretVersionView


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
        making=record.making,
        at_site=record.at_site,
        rotate_every_s=record.rotate_every_s,
    )


def view_made(hosts: Iterable[HostRecord], name: str) -> dict[int, tuple[MadeView, ...]]:
    """Return the values of a secret that hosts told they have made for themselves, by version."""
    found: dict[int, list[MadeView]] = {}
    for host in hosts:
        for one in host.observed.made_secrets if host.observed is not None else ():
            if one.name == name:
                view = MadeView(
                    host=host.name,
                    site=host.site,
                    round=one.round,
                    used=one.used,
                    made_at=one.made_at,
                    not_before=one.not_before,
                    public=one.public,
                    reported_at=host.observed_at,
                )
                found.setdefault(one.version, []).append(view)
    return {version: tuple(views) for version, views in found.items()}


def view_exposure(record: ExposureRecord, versions: Sequence[SecretRecord], now: datetime) -> ExposureView:
    """Return what a host could read, and whether that is still in use."""
    stored = next((one for one in versions if one.id == record.secret), None)
    state = state_of(stored, versions, now) if stored is not None else None
    own = stored is not None and stored.at_site
    public = "; trust its public key no more" if stored is not None and stored.kind == "keypair" else ""
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
        rotate_needed=state in ("used", "next") and not own,
        why=f"it made a value of its own, which nobody else has{public}" if own else why,
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
        if current.at_site:
            why.append(_made_text(current))
    later = tuple(one.version for one in offer.given if current is None or one.version > current.version)
    return SecretDecision(
        name=name,
        site=site,
        version=current.version if current is not None else None,
        next=later,
        used_by=tuple(used_by),
        why=tuple(why),
    )


def _made_text(record: SecretRecord) -> str:
    every = record.rotate_every_s
    again = f", and the next one every {format_duration(every)} without being asked" if every else ""
    return f"each host makes a value of its own{again}; the hub has none"
