"""What `skerry agent` does besides running: joining a site, and telling how things stand at the host."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from skerry.agent.identity import Place, load_place, make_keys, save_place
from skerry.agent.measuring import Measurements
from skerry.agent.wiring import lock_data, open_runtime
from skerry.carrier.link import HttpLink, fetch_trust_root
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Missing, Rejected, Unavailable
from skerry.kit.ids import is_name
from skerry.kit.locking import is_held
from skerry.ports.runtime import InstanceView
from skerry.spec.carrier import EnrollRequest
from skerry.spec.report import REPORT_TYPE, Report
from skerry.trust.envelope import sign_document
from skerry.trust.tokens import parse_join_token

STOP_GRACE_S = 10.0


def join_site(data: Path, token_text: str, *, host: str = "") -> Place:
    """Make this host part of the site that the token names.

    The hub is not trusted before its trust root has the digest that the token pins. The private keys are made
    here and stay here. Joining again after a cut connection is safe.

    Raises:
        Rejected: the token or the host's name is malformed.
        Conflict: this directory has joined another site, or the name is taken.
        Denied: the token is used up, expired or unknown.
        Untrusted: the upstream is not the hub the token names.
    """
    token = parse_join_token(token_text)
    name = host or socket.gethostname().split(".")[0].lower()
    if not is_name(name):
        hint = "lower-case letters, digits and hyphens, 63 at most; give one with --name"
        raise Rejected("host.bad_name", f"{name!r} cannot be a host's name", hint=hint)
    with lock_data(data):
        held = load_place(data)
        if held is not None and (held.site, held.root, held.host) != (token.site, token.root, name):
            hint = "use another --data directory"
            raise Conflict("agent.joined", f"this host has joined site {held.site} as {held.host}", hint=hint)
        root, raw = fetch_trust_root(token.hub, token.root)
        key, seal_public = make_keys(data)
        now = datetime.now(UTC)
        report = Report(host=name, site=token.site, sequence=1, sent_at=now, clock=now)
        request = EnrollRequest(
            secret=token.secret,
            host=name,
            sign_key=key.public,
            seal_key=seal_public,
            proof=sign_document(report, REPORT_TYPE, key),
        )
        link = HttpLink(token.hub, root.ca_pem)
        try:
            answer = link.enroll(request)
        finally:
            link.close()
        place = Place(host=answer.host, site=answer.site, upstream=token.hub, root=token.root)
        save_place(data, place, raw)
    return place


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
    return {"agent_running": is_held(data / "agent.lock"), "upstream": place.upstream, **status}


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

    Nothing is forgotten: the applications begin again when the agent runs.

    Raises:
        Conflict: the agent runs, and would start them again (`agent.running`).
    """
    with lock_data(data):
        return asyncio.run(_stop_all(data))


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
