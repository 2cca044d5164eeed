"""Judges what was found in a hub's data directory: each finding has a level, a sentence, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from skerry.kit.digests import short
from skerry.kit.quantities import format_duration, format_size
from skerry.ports.hub_look import CertificateLook, FileLook, HubLook
from skerry.spec.backup import DoctorView, Finding, Level

CLOCK_TOLERANCE = timedelta(minutes=5)
BACKUP_AGE = timedelta(days=7)
EXPIRY_WARN = timedelta(days=30)
CA_EXPIRY_WARN = timedelta(days=365)
ONLINE_EXPIRY_WARN = timedelta(days=25)
OFFLINE_EXPIRY_WARN = timedelta(days=90)
FREE_FAIL_BYTES = 200 << 20
FREE_WARN_BYTES = 1 << 30
FREE_WARN_SHARE = 0.05
SHOWN = 3

_rank: dict[Level, int] = {"ok": 0, "warn": 1, "fail": 2}


def judge(look: HubLook) -> DoctorView:
    """Return all findings; the level of the whole is that of the worst."""
    found = tuple(_findings(look))
    worst = max(found, key=lambda finding: _rank[finding.level]).level
    return DoctorView(data=look.data, level=worst, findings=found)


def _findings(look: HubLook) -> Iterator[Finding]:
    if not look.is_hub:
        hint = "name the directory after --data of skerry hub serve"
        yield _finding("fail", "hub", f"no hub has been served from {look.data}", hint)
        return
    state = "a hub serves it now" if look.served else "no hub serves it now"
    yield _finding("ok", "hub", f"{look.data}: {state}")
    yield from _keys(look)
    for certificate in look.certificates:
        yield _certificate(certificate, look.now)
    yield from _signed(look)
    yield from _clock(look)
    yield _disk(look)
    yield from _database(look)
    yield _backup(look)
    if look.leftovers:
        names = _some(look.leftovers)
        yield _finding("warn", "leftovers", f"left by what was cut off: {names}", "delete them")


def _keys(look: HubLook) -> Iterator[Finding]:
    missing = [file.path for file in look.files if file.mode is None and file.path != "tls/server.pem"]
    missing = [path for path in missing if path != "tls/server.key"]  # both are made at each start
    unreadable = [file.path for file in look.files if not file.readable]
    open_to_others = [file.path for file in look.files if file.secret and _is_open(file)]
    linked = [file.path for file in look.files if file.is_link]
    if missing:
        yield _finding("fail", "keys", f"missing: {', '.join(missing)}", "restore them from a backup")
    if unreadable:
        hint = "run this as the user that the hub runs as, or give the files to it"
        yield _finding("fail", "keys", f"cannot be read: {', '.join(unreadable)}", hint)
    if open_to_others:
        text = f"private keys that others may read: {', '.join(open_to_others)}"
        yield _finding("fail", "keys", text, "chmod 600 them, and think about who has read them")
    if linked:
        hint = "a backup and a restore keep them in the data directory"
        yield _finding("warn", "keys", f"kept elsewhere by a link: {', '.join(linked)}", hint)
    if look.directory_mode & 0o077:
        text = f"others may look into {look.data} (mode {look.directory_mode:o})"
        yield _finding("warn", "directory", text, "chmod 700 it")
    if not (missing or unreadable or open_to_others or linked):
        yield _finding("ok", "keys", "keys are there, and readable by their owner alone")


def _certificate(certificate: CertificateLook, now: datetime) -> Finding:
    name = certificate.name
    is_ca = name.endswith("ca.pem")
    if certificate.not_after is None or certificate.not_before is None:
        hint = "restore it from a backup" if is_ca else "the hub makes it at its next start"
        return _finding("fail" if is_ca else "warn", "certificates", f"{name}: {certificate.problem}", hint)
    until = f"{certificate.not_after:%Y-%m-%d}"
    renew = (
        "hosts trust this authority alone: plan a new hub for them to join"
        if is_ca
        else "a running hub renews it by itself: is it running, and does its log say maintenance.failing?"
    )
    if now < certificate.not_before:
        text = f"{name} holds from {certificate.not_before:%Y-%m-%d %H:%M} only"
        return _finding("fail", "certificates", text, "look at this machine's clock")
    if now >= certificate.not_after:
        return _finding("fail", "certificates", f"{name} expired on {until}", renew)
    if certificate.not_after - now < (CA_EXPIRY_WARN if is_ca else EXPIRY_WARN):
        return _finding("warn", "certificates", f"{name} expires on {until}", renew)
    return _finding("ok", "certificates", f"{name} holds until {until}")


def _signed(look: HubLook) -> Iterator[Finding]:
    """Judge where the keys that decide who may publish are kept, and until when what they signed holds."""
    if look.offline_keys:
        text = f"offline keys are on this machine: {', '.join(look.offline_keys)} in offline-keys"
        hint = "who takes this hub can publish software: move them to a machine of their own, and delete them here"
        yield _finding("warn", "offline keys", text, hint)
    for role, until in sorted((look.database.metadata if look.database else {}).items()):
        online = role in ("snapshot", "timestamp")
        renew = (
            "a running hub renews it by itself: is it running, and does its log say maintenance.failing?"
            if online
            else f"skerry publisher renew {role.removeprefix('publisher-')}"
            if role.startswith("publisher-")
            else "sign it anew with its offline keys: skerry root --help"
        )
        if look.now >= until:
            text = f"the signed metadata of {role} expired on {until:%Y-%m-%d}: hosts take nothing new"
            yield _finding("fail", "signed metadata", text, renew)
        elif until - look.now < (ONLINE_EXPIRY_WARN if online else OFFLINE_EXPIRY_WARN):
            yield _finding("warn", "signed metadata", f"that of {role} expires on {until:%Y-%m-%d}", renew)


def _clock(look: HubLook) -> Iterator[Finding]:
    limit = look.now + CLOCK_TOLERANCE
    seen = look.database.last_seen_at if look.database else None
    for what, instant in (("a file was written", look.newest_file_at), ("a host was seen", seen)):
        if instant is not None and instant > limit:
            text = (
                f"this machine's clock says {look.now:%Y-%m-%d %H:%M}, but {what} at {instant:%Y-%m-%d %H:%M}"
            )
            yield _finding("fail", "clock", text, "set the clock; what is signed now is refused as too old")
            return
    yield _finding("ok", "clock", "the clock is behind neither the files nor the last report")


def _disk(look: HubLook) -> Finding:
    text = f"{format_size(look.free_bytes)} of {format_size(look.disk_bytes)} are free"
    if look.free_bytes < FREE_FAIL_BYTES:
        return _finding("fail", "disk", text, "make room: on a full disk nothing can be pushed or reported")
    if look.free_bytes < FREE_WARN_BYTES or look.free_bytes < FREE_WARN_SHARE * look.disk_bytes:
        return _finding("warn", "disk", text, "delete old releases, or give the hub a larger disk")
    return _finding("ok", "disk", text)


def _database(look: HubLook) -> Iterator[Finding]:
    if look.database is None:
        text = f"the database cannot be used: {look.database_problem}"
        yield _finding("fail", "database", text, "restore a backup into another directory")
        return
    counts = f"sites: {len(look.database.sites)}, hosts: {look.database.hosts}, releases: {len(look.database.releases)}"
    yield _finding("ok", "database", f"the database is sound: {counts}")
    if look.missing_blobs:
        named = _some([short(digest) for digest in look.missing_blobs])
        text = f"{len(look.missing_blobs)} blobs that releases name are missing or cut: {named}"
        yield _finding("fail", "blobs", text, "push these releases again, or restore a backup with blobs")
    else:
        yield _finding("ok", "blobs", "all blobs that releases name are there")
    if look.database.held:
        text = f"sites that are ahead of this hub get nothing: {_some(look.database.held)}"
        yield _finding("warn", "sites", text, "skerry describe site NAME says more; then adopt or reissue it")


def _backup(look: HubLook) -> Finding:
    hint = "skerry hub backup, each night"
    if look.backup is None:
        return _finding("warn", "backup", "no backup has been made of this directory", hint)
    age = look.now - look.backup.made_at
    what = "" if look.backup.whole else ", without blobs"
    minutes_s = age.total_seconds() // 60 * 60
    ago = f"{format_duration(minutes_s).split()[0]} ago" if minutes_s > 0 else "just now"
    text = f"the newest backup was made {ago}{what}"
    return _finding("warn", "backup", text, hint) if age > BACKUP_AGE else _finding("ok", "backup", text)


def _is_open(file: FileLook) -> bool:
    return file.mode is not None and bool(file.mode & 0o077)


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _finding(level: Level, check: str, message: str, hint: str = "") -> Finding:
    return Finding(level=level, check=check, message=message, hint=hint)
