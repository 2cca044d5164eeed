"""Finds out which releases this host may take: fetches signed metadata when there is need, and judges by it.

Nothing is fetched while the metadata at hand answers every question. Rules: a release has no standing before it was
judged, and is not fetched without one; a failure leaves all standings as they were, and is tried again, each time
after a longer wait; what was vouched for is remembered over restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
import structlog

from skerry.agent.retrying import Retry
from skerry.carrier.hub_trust import HubTrust
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Denied, SkerryError, Untrusted, as_failure
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.reconcile.records import RevokedFact
from skerry.spec.desired import DesiredState
from skerry.spec.report import MetadataHeld
from skerry.trust.metadata import Step, find_target, load_kept, refresh, run_steps
from skerry.trust.repository import revoked_publishers, target_path
from skerry.trust.vouching import Named, Standing, judge_release

_log = structlog.get_logger()

ASK_AGAIN_S = 60.0
"""What is not signed now may be so later; who is told so asks again after this time at the earliest."""
MAX_REMEMBERED = 256
_STORED = "vouched"
_REVOKED = "revoked"


class VouchingParts(msgspec.Struct, frozen=True):
    """What it works with. `now` is the trusted time; `token` returns the blob token, or asks for one."""

    trust: HubTrust
    store: AgentStore
    link: Link
    clock: Clock
    now: Callable[[], datetime]
    token: Callable[..., str]


class _Judged(msgspec.Struct, frozen=True):
    """Every standing, and the metadata that they go by."""

    standings: dict[str, Standing]
    view: MetadataHeld


class Vouching:
    """What one host knows of the releases it is to run. `on_change` is called when a standing changes."""

    def __init__(self, parts: VouchingParts) -> None:
        self._parts = parts
        self._wanted: dict[str, Named] = {}
        self._vouched = _load(parts.store)
        self._revoked = _load_revoked(parts.store)
        self._standings: dict[str, Standing] = {}
        self._doubts: dict[str, str] = {}
        self._needs_snapshot = 0
        self._wake = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._trouble = ""
        self._asked: frozenset[str] = frozenset()
        self.view = MetadataHeld()
        self.on_change: Callable[[], None] = lambda: None

    def follow(self, desired: DesiredState | None, host: str) -> None:
        """Take what a desired state names for this host."""
        if desired is None:
            return
        names = {assignment.release for assignment in desired.hosts.get(host, ())}
        names |= {up.release for up in desired.upcoming.get(host, ())}
        refs = {name: desired.releases[name] for name in names if name in desired.releases}
        wanted = {
            ref.digest: Named(name, ref.publisher, ref.digest, ref.size_bytes) for name, ref in refs.items()
        }
        if wanted != self._wanted or desired.snapshot > self._needs_snapshot:
            self._wanted, self._needs_snapshot = wanted, desired.snapshot
            self._asked = frozenset()
            self._wake.set()

    def withheld(self, digests: Iterable[str]) -> dict[str, str]:
        """Return why releases are not taken, by digest; those that may be taken are left out."""
        found: dict[str, str] = {}
        for digest in digests:
            standing = self._standings.get(digest)
            if standing is None:
                why = self._doubts.get(digest) or self._trouble
                found[digest] = why or "waiting for what is signed of it"
            elif standing.state == "withheld":
                found[digest] = f"{standing.why} ({self._trouble})" if self._trouble else standing.why
        return found

    def revoked(self) -> dict[str, RevokedFact]:
        """Return the releases that were revoked, by digest."""
        return {
            digest: RevokedFact(standing.why, standing.running)
            for digest, standing in self._standings.items()
            if standing.state == "revoked"
        }

    async def begin(self) -> None:
        """Judge by what was kept, before anything is asked of the upstream."""
        self._take(await asyncio.to_thread(self._judge_kept))

    async def run_forever(self) -> None:
        """Judge at every change of what is wanted, for ever; ask upstream when what is kept does not answer."""
        retry = Retry()
        while True:
            wait_s = ASK_AGAIN_S
            self._wake.clear()
            try:
                await self.step()
                retry.reset()
            except Exception as caught:
                failure = as_failure(caught)
                self._fail(failure)
                wait_s = retry.next_wait_s(failure)
            await sleep_unless_woken(self._parts.clock, wait_s, self._wake)
            if not self._wake.is_set():
                self._asked = frozenset()

    async def step(self) -> None:
        """Judge, with metadata from upstream if that is needed.

        Raises:
            SkerryError: why the newest metadata could not be had; standings are as they were.
        """
        async with self._stepping:
            await self._step()

    async def _step(self) -> None:
        self._take(await asyncio.to_thread(self._judge_kept))
        if not self._must_ask():
            self._succeed()
            return
        token = self._parts.token()
        if not token:
            return  # the sync brings one, and then this is woken
        asked = frozenset(self._wanted)
        try:
            self._doubts = await asyncio.to_thread(self._refresh, token)
        except Denied:
            self._parts.token(renew=True)
            raise
        self._asked = asked
        self._take(await asyncio.to_thread(self._judge_kept))
        self._succeed()

    def wake(self) -> None:
        """Look again at once: a token has come."""
        self._wake.set()

    def _must_ask(self) -> bool:
        if not self._wanted:
            return False
        if self.view.snapshot < self._needs_snapshot:
            return True
        clear = {digest for digest, standing in self._standings.items() if standing.state != "withheld"}
        return not self._wanted.keys() - clear <= self._asked

    def _refresh(self, token: str) -> dict[str, str]:
        """Bring the newest metadata; return what is doubtful about some of it, by release digest."""
        parts, doubts = self._parts, dict[str, str]()

        def answer(step: Step) -> bytes | None:
            return parts.trust.answer(step, parts.link, token)

        trusted = run_steps(refresh(parts.trust.pinned, now=parts.now()), answer)
        parts.trust.note_root(trusted.root)
        for named in self._questions():
            try:
                run_steps(find_target(trusted, target_path(named.publisher, named.release)), answer)
            except Untrusted as error:
                # One publisher's bad metadata must not keep those of others away.
                _log.warning(
                    "metadata.untrusted", release=named.release, code=error.code, reason=error.message
                )
                nothing = f"publisher {named.publisher} has not signed anything yet"
                doubts[named.digest] = nothing if error.code == "metadata.incomplete" else error.message
        return doubts

    def _judge_kept(self) -> _Judged:
        """Judge everything that is wanted or was vouched for by what is kept, whatever its age."""
        trust, now = self._parts.trust, self._parts.now()
        try:
            trusted = run_steps(load_kept(trust.pinned), trust.answer_kept)
        except Untrusted:
            standings = {digest: self._unjudged(digest) for digest in self._vouched}
            return _Judged(standings, MetadataHeld(root=trust.root_version))
        gone = revoked_publishers(trusted.targets)
        standings = dict[str, Standing]()
        for named in self._questions():
            before = named.digest in self._vouched
            path = target_path(named.publisher, named.release)
            try:
                found = run_steps(find_target(trusted, path), trust.answer_kept)
            except Untrusted:
                if before:
                    standings[named.digest] = self._unjudged(named.digest)
                continue  # not judged: what it takes is not here yet
            standings[named.digest] = judge_release(named, found, gone, before=before, now=now)
        root, _, snapshot = trusted.versions
        return _Judged(standings, MetadataHeld(root=root, snapshot=snapshot, expires_at=trusted.expires_at))

    def _questions(self) -> list[Named]:
        return list({**self._vouched, **self._wanted}.values())

    def _unjudged(self, digest: str) -> Standing:
        """Return the standing of what was vouched for, and cannot be judged by what is kept.

        A carrier that brings some of the newer metadata and holds back the rest must not undo a revocation.
        """
        return self._revoked.get(digest, Standing("vouched"))

    def _take(self, judged: _Judged) -> None:
        known = {**self._vouched, **self._wanted}
        remembered = {
            digest: known[digest]
            for digest, standing in judged.standings.items()
            if digest in known and (standing.state == "vouched" or digest in self._vouched)
        }
        remembered = self._vouched | remembered
        while len(remembered) > MAX_REMEMBERED:
            del remembered[next(iter(remembered))]
        if remembered != self._vouched:
            self._parts.store.save({_STORED: msgspec.json.encode(remembered)})
            self._vouched = remembered
        revoked = {
            digest: standing for digest, standing in self._revoked.items() if digest not in judged.standings
        }
        revoked |= {d: standing for d, standing in judged.standings.items() if standing.state == "revoked"}
        while len(revoked) > MAX_REMEMBERED:
            del revoked[next(iter(revoked))]
        if revoked != self._revoked:
            self._parts.store.save({_REVOKED: msgspec.json.encode(revoked)})
            self._revoked = revoked
        changed = judged.standings != self._standings
        self._standings = judged.standings
        self.view = msgspec.structs.replace(judged.view, trouble=self._trouble)
        if changed:
            self.on_change()

    def _fail(self, error: SkerryError) -> None:
        if self._trouble != error.message:
            _log.warning("metadata.failing", code=error.code, reason=str(error))
            self._trouble = error.message
            self.view = msgspec.structs.replace(self.view, trouble=error.message)
            self.on_change()

    def _succeed(self) -> None:
        if self._trouble:
            _log.info("metadata.restored")
            self._trouble = ""
            self.view = msgspec.structs.replace(self.view, trouble="")
            self.on_change()


def _load(store: AgentStore) -> dict[str, Named]:
    try:
        return msgspec.json.decode(store.load(_STORED) or b"{}", type=dict[str, Named])
    except UNREADABLE:
        return {}


def _load_revoked(store: AgentStore) -> dict[str, Standing]:
    try:
        return msgspec.json.decode(store.load(_REVOKED) or b"{}", type=dict[str, Standing])
    except UNREADABLE:
        return {}
