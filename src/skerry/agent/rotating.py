"""Changes a host's keys: stages new ones, has the hub confirm them, and puts them in the place of the old.

- The hub is asked again, with the same keys, until it has answered; the change is signed by both keys, so whichever
  of them it knows, it confirms. Only then are the old ones gone. What was cut in between is finished at the next start.
- The last change stays beside the keys. It is public. A hub that was restored from a backup of before it knows the
  old key, refuses the new one, and is shown the change again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from skerry.agent.identity import Place
from skerry.agent.keys import KeyFiles
from skerry.agent.retrying import Retry
from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import SkerryError, Unavailable, as_failure
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.spec.carrier import JsonEnvelope, KeyChange, KeyChangeRequest
from skerry.trust.key_change import sign_key_change
from skerry.trust.keys import SigningKey

_log = structlog.get_logger()

LOOK_EVERY_S = 2.0
UNKNOWN = "host.unknown"


class RotationAnswer(msgspec.Struct, frozen=True):
    """What became of a request to change the keys."""

    key: str = ""
    problem: str = ""


def settle_keys(files: KeyFiles, place: Place, link: Link) -> SigningKey:
    """Have the hub confirm the staged keys, put them in their place, and return the signing key. Blocking.

    Raises:
        SkerryError: the hub was not reached, or refuses; the keys stay staged, and asking again is safe.
    """
    staged, old = files.stage(), files.load()
    change = KeyChange(
        host=place.host,
        site=place.site,
        old_key=old.public,
        sign_key=staged.sign.public,
        seal_key=staged.seal_public,
    )
    envelope = sign_key_change(change, old, staged.sign)
    write_file(files.folder / "change.json", msgspec.json.encode(envelope))
    link.change_keys(KeyChangeRequest(change=envelope))
    files.promote()
    return staged.sign


class KeyRotation:
    """Changes the keys while the agent runs. `on_key` is told of a new key; `failing` says why no sync succeeds."""

    def __init__(
        self,
        files: KeyFiles,
        place: Place,
        link: Link,
        clock: Clock,
        *,
        on_key: Callable[[SigningKey], None],
        failing: Callable[[], str],
    ) -> None:
        self._files, self._place, self._link, self._clock = files, place, link, clock
        self._on_key, self._failing = on_key, failing
        self._due = files.pending
        self._shown = False
        self._troubled = ""

    async def run_forever(self) -> None:
        """Finish what was cut off, then do what is asked for, for ever."""
        retry = Retry()
        while True:
            wait_s = LOOK_EVERY_S
            try:
                await self.look()
                retry.reset()
                self._troubled = ""
            except Exception as error:
                failure = as_failure(error)
                if failure.code != self._troubled:
                    _log.warning("keys.failing", code=failure.code, reason=str(failure))
                self._troubled = failure.code
                wait_s = retry.next_wait_s(failure)
            await self._clock.sleep(wait_s)

    async def look(self) -> None:
        """Do what there is to do now.

        Raises:
            Unavailable: the hub was not reached; the next call tries again.
        """
        asked = request_of(self._files).exists()
        if asked or self._due:
            self._due = True
            try:
                key = await asyncio.to_thread(settle_keys, self._files, self._place, self._link)
            except Unavailable:
                raise
            except SkerryError as error:
                self._finish(RotationAnswer(problem=f"{error.code}: {error.message}"))
                raise
            self._on_key(key)
            _log.info("keys.changed", key=key.key_id)
            self._finish(RotationAnswer(key=key.key_id))
        if self._failing() != UNKNOWN:
            self._shown = False
        elif not self._shown:
            await asyncio.to_thread(self._show_again)
            self._shown = True

    def _finish(self, answer: RotationAnswer) -> None:
        self._due = False
        request = request_of(self._files)
        if request.exists():
            write_file(answer_of(self._files), msgspec.json.encode(answer))
            request.unlink(missing_ok=True)

    def _show_again(self) -> None:
        """Show the last change to a hub that knows us by no key, as it may be one from before it."""
        try:
            envelope = msgspec.json.decode(
                (self._files.folder / "change.json").read_bytes(), type=JsonEnvelope
            )
        except (OSError, *UNREADABLE):
            return
        try:
            answer = self._link.change_keys(KeyChangeRequest(change=envelope))
        except Unavailable:
            raise
        except SkerryError:
            return  # it knows us by neither key
        _log.info("keys.shown_again", known=answer.sign_key == self._files.load().public)


def request_of(files: KeyFiles) -> Path:
    """Return the file whose being there asks a running agent for new keys."""
    return files.folder / "rotate.request"


def answer_of(files: KeyFiles) -> Path:
    """Return the file of the agent's answer."""
    return files.folder / "rotate.json"
