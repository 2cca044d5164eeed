"""What this machine believes of a hub's signed metadata: only what was verified from the pinned root downwards.

Rules: nothing is signed, and no state built upon, before it was verified here and now; what was verified or signed
here once counts against anything older, so that a stolen or restored hub cannot have older or foreign metadata signed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Root, Targets

from skerry.client.hub_files import HubFiles
from skerry.kit.errors import Missing, SkerryError, Untrusted
from skerry.trust.metadata import Keep, Local, Remote, Step, Steps, Trusted, follow_root, refresh, run_steps
from skerry.trust.publishers import Holders, Shelf
from skerry.trust.repository import publisher_of, publisher_role, publishers_of, read_as

T = TypeVar("T")

Fetch = Callable[[str, int], bytes | None]
"""Returns a metadata file of the hub, of at most so many bytes; None where it has none."""


class Believed:
    """The newest state of a hub's repository, as it was verified; what is not at hand yet is fetched and verified."""

    def __init__(self, repository: HubRepository, trusted: Trusted) -> None:
        self._repository = repository
        self.trusted = trusted

    @property
    def root(self) -> Root:
        """The newest root."""
        return self.trusted.root

    def now(self) -> datetime:
        """Return the present instant."""
        return self._repository.now()

    @property
    def root_bytes(self) -> bytes:
        """The newest root, as it was signed."""
        return self._repository.root_bytes(self.root.version)

    @property
    def targets(self) -> Targets:
        """The top-level targets."""
        return self.trusted.targets

    def load(self, role: str) -> bytes | None:
        """Return a role's newest metadata, None for one that has none yet.

        Raises:
            Untrusted: it is not signed as it must be, or older than what was signed here (`metadata.rollback`).
        """
        if role == Root.type:
            return self.root_bytes
        publisher = publisher_of(role)
        if self.trusted.listed_version(role) is None:
            self._repository.refuse_loss(role, 0)
            return None
        if publisher and publisher not in publishers_of(self.targets):
            return None
        top = publisher_role(publisher)
        delegator = Root.type if not publisher else Targets.type if role == top else top
        if delegator == top:
            self.load(top)
        loaded = self._repository.run(self.trusted.load_role(role, delegator))
        self._repository.refuse_loss(role, loaded.version)
        return self._repository.verified(role)

    def shelf(self, publisher: str) -> Shelf:
        """Return what a publisher has signed."""
        return Shelf(publisher, self.load)

    def holders(self, publisher: str) -> Holders:
        """Return whose signatures count for a publisher.

        Raises:
            Missing: there is no such publisher (`publisher.missing`).
        """
        delegation = self.delegation(publisher)
        held = self.targets.delegations.keys if self.targets.delegations else {}
        return Holders(
            [held[name] for name in delegation.keyids if name in held], threshold=delegation.threshold
        )

    def delegation(self, publisher: str) -> DelegatedRole:
        """Return the delegation to a publisher. Raises as `holders`."""
        found = publishers_of(self.targets)
        if publisher not in found:
            known = ", ".join(sorted(found)) or "none yet"
            hint = f"publishers are: {known}; skerry publisher add NAME lets another one sign"
            raise Missing("publisher.missing", f"there is no publisher {publisher}", hint=hint)
        return found[publisher]

    def targets_holders(self) -> Holders:
        """Return whose signatures count for the top-level targets."""
        role = self.root.roles[Targets.type]
        keys: list[Key] = [self.root.keys[name] for name in role.keyids if name in self.root.keys]
        return Holders(keys, threshold=role.threshold)


class HubRepository:
    """A hub's repository, seen through what this machine keeps of it."""

    def __init__(self, files: HubFiles, pinned: bytes, fetch: Fetch, now: Callable[[], datetime]) -> None:
        """`pinned` is the root of the trust root that was pinned."""
        self.files = files
        self.now = now
        self._pinned = pinned
        self._fetch = fetch
        self._verified: dict[str, bytes] = {}

    def refresh(self, *, renewing: bool = True) -> Believed:
        """Bring what is believed up to date; whoever is `renewing` may build upon what has expired.

        Raises:
            Untrusted: what the hub offers is not what this machine can trust (`metadata.*`), with a hint.
            Unavailable: it did not answer.
        """
        self._verified = {}
        try:
            trusted = self.run(refresh(self._pinned, now=self.now(), renewing=renewing))
            self.refuse_loss(Targets.type, trusted.targets.version)
        except Untrusted as error:
            error.hint = error.hint or _hint_of(error)
            raise
        return Believed(self, trusted)

    def newest_root(self) -> tuple[Root, bytes]:
        """Return the newest root alone: for when the rest has expired or is lost. Raises as `refresh`."""
        root = self.run(follow_root(self._pinned, online=True)).root
        return root, self.root_bytes(root.version)

    def run(self, steps: Steps[T]) -> T:
        """Take the steps of `skerry.trust.metadata`, with what is kept here and what the hub gives."""
        with self.files.locked():
            return run_steps(steps, self._answer)

    def verified(self, role: str) -> bytes:
        """Return the bytes of a role that was loaded."""
        return self._verified[f"{role}.json"]

    def root_bytes(self, version: int) -> bytes:
        """Return a root of the chain that was followed."""
        return self._verified.get(f"{version}.root.json", self._pinned)

    def refuse_loss(self, role: str, version: int) -> None:
        """Refuse a role that is older than what was signed here and the hub has taken.

        Raises:
            Untrusted: `metadata.rollback`.
        """
        content = self.files.signed(role)
        if content is None:
            return
        signed = 0
        with suppress(SkerryError):
            signed = read_as(content, Targets).signed.version
        if version < signed:
            message = f"the hub has {role} {version}, and {signed} was signed here"
            raise Untrusted("metadata.rollback", message, hint=_resend_hint)

    def _answer(self, step: Step) -> bytes | None:
        if isinstance(step, Local):
            content = self.files.metadata(step.name)
        elif isinstance(step, Remote):
            return self._fetch(step.name, step.max_bytes)
        else:
            assert isinstance(step, Keep)
            content = step.content
            self.files.keep_metadata(step.name, content)
        if content is not None:
            # Of a file that was kept and does not hold, the one that takes its place comes by as well.
            self._verified[step.name] = content
        return content


_resend_hint = (
    "if the hub was restored from an older backup: skerry publisher resend NAME; if not, it may be stolen: "
    "see docs/how-to/root-ceremony.md"
)


def _hint_of(error: Untrusted) -> str:
    if error.code == "metadata.rollback":
        return _resend_hint
    if error.code == "metadata.expired":
        return "is this machine's clock right? if so, the hub has not renewed its metadata, or somebody holds it back"
    return "nothing was signed; the hub may be stolen, or somebody stands in between"
