"""What `skerry agent` does besides running: joining a site, and telling how things stand at the host."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from skerry.agent.holding import read_holds
from skerry.agent.identity import Place, load_identity, load_place, load_trust_root, save_place
from skerry.agent.keys import KeyFiles, StagedKeys
from skerry.agent.measuring import Measurements
from skerry.agent.rotating import RotationAnswer, answer_of, request_of, settle_keys
from skerry.agent.ways_up import load_way
from skerry.agent.wiring.opening import (
    lock_data,
    open_broker,
    open_bus_files,
    open_certificate_folders,
    open_guard,
    open_link,
    open_proxy,
    open_runtime,
    open_secret_files,
    this_machine,
)
from skerry.carrier.link import HttpLink
from skerry.carrier.ways_up import (
    NOTHING_STATED,
    StatedWay,
    WayUp,
    fetch_first_root,
    load_dialling,
    save_dialling,
)
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Missing, Rejected, Unavailable, Untrusted
from skerry.kit.ids import is_name
from skerry.kit.locking import is_held
from skerry.ports.proxy import ProxyPorts, ProxyTable
from skerry.ports.runtime import InstanceView
from skerry.spec.carrier import EnrollRequest, JoinToken
from skerry.spec.report import REPORT_TYPE, Report
from skerry.trust.envelope import sign_document
from skerry.trust.timekeeping import TimeTrust, trusted_now
from skerry.trust.tokens import parse_join_token

_log = structlog.get_logger()

STOP_GRACE_S = 10.0

KeyChoice = Literal["auto", "tpm", "file"]
"""Where new private keys are kept: in files, sealed by the TPM or not."""


def join_site(
    data: Path,
    token_text: str,
    *,
    host: str = "",
    keys: KeyChoice = "auto",
    stated: StatedWay = NOTHING_STATED,
) -> Place:
    """Make this host part of the site that the token names.

    The hub is not trusted before its trust root has the digest that the token pins. The private keys are made
    here and stay here. Joining again after a cut connection is safe. With a token that replaces a host, a directory
    that has joined as that host gets new keys; what else is in it stays.

    The upstreams that are `stated` are asked in the place of the one that the token names, in order until one answers,
    and are kept together with how they are dialled.

    Raises:
        Rejected: the token or the host's name is malformed, the token is for a relay (`join.for_relay`), the way up can
            never work, or there is no TPM for `keys` to be in (`key.no_tpm`).
        Conflict: this directory has joined another site, or the name is taken.
        Denied: the token is used up, expired or unknown.
        Untrusted: the upstream is not the hub the token names.
    """
    token = parse_join_token(token_text)
    name = _name_for(token, host)
    with lock_data(data):
        held = load_place(data)
        way = WayUp(stated.upstreams or (token.hub,), stated.dialling.over(load_dialling(data)))
        way.check()
        taken = Conflict(
            "agent.joined",
            f"this host has joined site {held.site} as {held.host}" if held else "",
            hint="use another --data directory",
        )
        if held is not None and (held.site, held.host) != (token.site, name):
            raise taken
        upstream, root, raw = fetch_first_root(way, token.root)
        # A hub's later tokens pin its later roots.
        if held is not None and held.root != token.root and load_trust_root(data, held).hub != root.hub:
            raise taken
        files = open_keys(data, keys)
        # New keys beside the old: the hub may have taken them when the answer is lost, or not.
        anew = bool(token.host) and held is not None
        link = HttpLink(upstream, root.ca_pem, dialling=way.dialling)
        try:
            answer = link.enroll(_request(token, name, files.stage() if anew else files.make()))
        finally:
            link.close()
        place = Place(answer.host, answer.site, way.upstreams[0], token.root, way.upstreams)
        if way.dialling != load_dialling(data):
            save_dialling(data, way.dialling)
        save_place(data, place, raw)
        if anew:
            files.promote()
    return place


def _name_for(token: JoinToken, host: str) -> str:
    """Return the name to join by, for a token that is for a host."""
    if token.relay:
        hint = "use it with skerry relay join; for hosts, skerry site token makes one"
        raise Rejected("join.for_relay", f"this token is for relay {token.relay}", hint=hint)
    name = host or token.host or socket.gethostname().split(".")[0].lower()
    if not is_name(name):
        hint = "lower-case letters, digits and hyphens, 63 at most; give one with --name"
        raise Rejected("host.bad_name", f"{name!r} cannot be a host's name", hint=hint)
    return name


def _request(token: JoinToken, name: str, made: StagedKeys) -> EnrollRequest:
    now = datetime.now(UTC)
    report = Report(host=name, site=token.site, sequence=1, sent_at=now, clock=now)
    return EnrollRequest(
        secret=token.secret,
        host=name,
        sign_key=made.sign.public,
        seal_key=made.seal_public,
        proof=sign_document(report, REPORT_TYPE, made.sign),
    )


def open_keys(data: Path, keys: KeyChoice) -> KeyFiles:
    """Return a directory's keys; new ones are kept as `keys` says: `auto` is the TPM if there is one that works.

    Raises:
        Rejected: `tpm`, and there is none that can be used (`key.no_tpm`).
    """
    guard = open_guard()
    problem = "it takes /dev/tpmrm0, the right to use it, and the programs of tpm2-tools"
    if guard is not None and keys != "file":
        try:
            if guard.unseal(guard.seal(b"trial")) == b"trial":
                return KeyFiles(data, guard)
        except (Unavailable, Untrusted) as error:
            problem = error.message
            _log.warning("tpm.unusable", reason=problem)
    if keys == "tpm":
        raise Rejected("key.no_tpm", "there is no TPM here that can be used", hint=problem)
    return KeyFiles(data, guard, sealing=False)


def rotate_keys(data: Path, *, timeout_s: float, keys: KeyChoice = "auto") -> str:
    """Give the host new keys, and return the id of the signing key; a running agent is asked to do it.

    `keys` counts where no agent runs: a running one takes the TPM if there is one. What is cut off is finished when
    the agent runs.

    Raises:
        Missing: no host has joined a site in this directory (`agent.not_joined`).
        Unavailable: the hub was not reached (`keys.pending` by a running agent); asking again is safe.
        Rejected: the hub refuses (`keys.refused`).
    """
    if is_held(data / "agent.lock"):
        return _ask_to_rotate(KeyFiles(data), timeout_s)
    with lock_data(data):
        identity = load_identity(data, open_guard())
        files = open_keys(data, keys)
        link = open_link(data, identity)
        try:
            return settle_keys(files, identity.place, link).key_id
        finally:
            link.close()


def _ask_to_rotate(files: KeyFiles, timeout_s: float) -> str:
    request, answer = request_of(files), answer_of(files)
    answer.unlink(missing_ok=True)
    write_file(request, b"")
    deadline = time.monotonic() + timeout_s
    while not answer.exists():
        if time.monotonic() > deadline:
            hint = "the agent changes them as soon as it reaches the hub; until then the old ones hold"
            raise Unavailable("keys.pending", f"the keys were not changed within {timeout_s:g} s", hint=hint)
        time.sleep(0.1)
    found = msgspec.json.decode(answer.read_bytes(), type=RotationAnswer)
    if found.problem:
        raise Rejected("keys.refused", f"the hub refuses new keys: {found.problem}")
    return found.key


def read_status(data: Path) -> dict[str, Any]:
    """Return how things stand at this host, as the agent last wrote it, and whether the agent runs now.

    Raises:
        Missing: no host has joined a site in this directory (`agent.not_joined`).
    """
    place = load_place(data)
    if place is None:
        hint = "run skerry agent join with the token that skerry site token printed"
        raise Missing("agent.not_joined", f"no host has joined a site in {data}", hint=hint)
    try:
        status: dict[str, Any] = msgspec.json.decode((data / "status.json").read_bytes())
    except (OSError, *UNREADABLE):
        status = {"host": place.host, "site": place.site}
    files = KeyFiles(data)
    return {
        "agent_running": is_held(data / "agent.lock"),
        "upstream": place.upstream,
        "upstreams": [{"url": url, "in_use": False} for url in load_way(data, place).upstreams],
        "keys": files.kind or "lost",
        "keys_pending": files.pending,
        "machine": this_machine(),
        **status,
        # As they are now, also while no agent runs.
        "holds": msgspec.to_builtins(read_holds(data, believed_now(status))),
    }


def believed_now(status: Mapping[str, Any]) -> datetime:
    """Return the time the host believes, given what its agent last wrote of its clock; a clock may be years off."""
    try:
        trust = msgspec.convert(status.get("time") or {}, type=TimeTrust)
    except msgspec.ValidationError:
        trust = TimeTrust()
    return trusted_now(datetime.now(UTC), trust)


def read_logs(
    data: Path, application: str, component: str = "", *, tail_bytes: int = 65536
) -> dict[str, bytes]:
    """Return the last output of an application's instances, by instance.

    Raises:
        Missing: nothing of that name runs or ran here (`agent.no_instance`).
    """
    return asyncio.run(_read_logs(data, application, component, tail_bytes))


def stop_applications(data: Path) -> list[str]:
    """End everything that runs on this host, gracefully, and return what was ended; the agent must not run.

    So does the proxy of their routes. Their secrets and certificates are wiped from memory. Nothing is forgotten: the
    applications begin again when the agent runs, and find theirs again, as the vault is not touched.

    Raises:
        Conflict: the agent runs, and would start them again (`agent.running`).
    """
    with lock_data(data):
        ended = asyncio.run(_stop_all(data))
        asyncio.run(open_proxy(data).serve(ProxyTable(ProxyPorts(), "")))
        open_secret_files(data).wipe()
        open_certificate_folders(data).wipe()
        open_bus_files(data).wipe()
    return ended


def ask_to_measure(data: Path, application: str, *, timeout_s: float) -> Measurements:
    """Ask the running agent to measure an application's variants, and wait for its answer.

    Raises:
        Conflict: the agent does not run (`agent.not_running`).
        Rejected: there is nothing to measure (`measure.nothing`).
        Unavailable: no answer in time (`measure.no_answer`).
    """
    if not is_name(application):
        raise Rejected("measure.no_name", f"{application!r} is not the name of an application")
    if not is_held(data / "agent.lock"):
        raise Conflict("agent.not_running", "no agent runs on this directory", hint="skerry agent run")
    folder = data / "measure"
    folder.mkdir(mode=0o700, exist_ok=True)
    request, answer = folder / f"{application}.request", folder / f"{application}.json"
    answer.unlink(missing_ok=True)
    write_file(request, b"")
    deadline = time.monotonic() + timeout_s
    while not answer.exists():
        if time.monotonic() > deadline:
            request.unlink(missing_ok=True)
            raise Unavailable("measure.no_answer", f"the agent gave no answer within {timeout_s:g}s")
        time.sleep(0.1)
    found = msgspec.json.decode(answer.read_bytes(), type=Measurements)
    if found.problem:
        raise Rejected("measure.nothing", found.problem)
    return found


def wipe_volumes(data: Path, application: str, *, confirm: Callable[[Sequence[str]], None]) -> list[str]:
    """Empty an application's volumes on this host, now and for good, and return which; the agent must not run.

    `confirm` is told which before anything is done, and raises to stop it. What a hub asked for is counted apart:
    a wipe that it asked for and this host has not heard of is still to come. Cut short, it is finished by the next.

    Raises:
        Conflict: the agent runs (`agent.running`), or something of the application does (`application.running`).
        Missing: nothing of the application is kept here (`agent.no_volumes`), or no site was joined.
        Rejected: that cannot be an application's name.
        Unavailable: it cannot be removed (`disk.unwritable`).
    """
    if not is_name(application):
        raise Rejected("application.bad_name", f"{application[:120]!r} cannot be an application's name")
    if load_place(data) is None:
        raise Missing("agent.not_joined", f"no host has joined a site in {data}", hint="name it with --data")
    root = data / "volumes"
    folder = root / application
    with lock_data(data):
        views = asyncio.run(_instances(data))
        alive = sorted(
            key
            for key, view in views.items()
            if view.labels.get("application") == application and view.state in ("running", "stopping")
        )
        if alive:
            hint = "end it with skerry agent down"
            raise Conflict("application.running", f"{', '.join(alive)} is running here", hint=hint)
        found = sorted(
            f"{place.parent.name} (its data directory)"
            if place.name == ".data"
            else f"{place.parent.name}/{place.name}"
            for place in folder.glob("*/*")
        )
        if not folder.is_dir() and not any(root.glob(f".removed-{application}-*")):
            known = ", ".join(sorted(p.name for p in root.glob("[!.]*"))) or "none"
            raise Missing("agent.no_volumes", f"nothing of {application} is kept here", hint=f"here: {known}")
        confirm(found)
        try:
            if folder.is_dir():
                # Renamed first: from then on nobody finds half of it.
                grave = root / f".removed-{application}-here"
                shutil.rmtree(grave, ignore_errors=True)
                folder.rename(grave)
            for grave in root.glob(".removed-*"):
                shutil.rmtree(grave)
        except OSError as error:
            raise Unavailable("disk.unwritable", f"cannot empty {folder}: {error.strerror}") from error
    return found


async def _instances(data: Path) -> Mapping[str, InstanceView]:
    return await open_runtime(data).instances()


async def _stop_all(data: Path) -> list[str]:
    runtime = open_runtime(data)
    alive = {
        key for key, view in (await runtime.instances()).items() if view.state in ("running", "stopping")
    }
    for key in alive:
        await runtime.stop(key, signal="SIGTERM", grace_s=STOP_GRACE_S)
    # The keepers end them, whatever becomes of us; there is no event to wait for, only the state to look at.
    while any(  # noqa: ASYNC110
        view.state in ("running", "stopping") for view in (await runtime.instances()).values()
    ):
        await asyncio.sleep(0.05)
    if (data / "bus").exists():
        await open_broker(data, "nats").stop()
    return sorted(alive)


async def _read_logs(data: Path, application: str, component: str, tail_bytes: int) -> dict[str, bytes]:
    runtime = open_runtime(data)
    views = await runtime.instances()
    chosen = [
        key
        for key, view in sorted(views.items())
        if view.labels.get("application") == application and component in ("", view.labels.get("component"))
    ]
    if not chosen:
        known = (
            ", ".join(sorted({view.labels.get("application", key) for key, view in views.items()})) or "none"
        )
        raise Missing(
            "agent.no_instance", f"nothing of {application} is here", hint=f"applications here: {known}"
        )
    return {key: await runtime.logs(key, tail_bytes=tail_bytes) for key in chosen}
