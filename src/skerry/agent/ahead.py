"""Fetches what will be assigned later, when nothing else is to be fetched, and says how far that is.

Rules: what is fetched ahead is neither laid out nor started; it is kept for as long as the desired state names it; it
goes the same ways and is checked as everything else.
"""

from __future__ import annotations

from collections.abc import Callable

from skerry.agent.fetcher import Fetcher, Priority
from skerry.agent.finding_ways import Bases
from skerry.agent.releases import Releases
from skerry.agent.vouching import Vouching
from skerry.kit.quantities import format_size
from skerry.spec.desired import DesiredState, ReleaseRef


class Ahead:
    """What one host fetches ahead. `digests` are the releases it keeps for that."""

    def __init__(self, releases: Releases, fetcher: Fetcher, bases: Callable[[str, str], Bases]) -> None:
        """`bases` returns, for an application and a release, what deltas to its files may be made from."""
        self._releases = releases
        self._fetcher = fetcher
        self._bases = bases
        self.digests: frozenset[str] = frozenset()
        self.views: dict[str, str] = {}

    def follow(self, desired: DesiredState, host: str, assigned: set[str], vouching: Vouching) -> None:
        """Fetch what a desired state announces for a host; releases that are assigned by now come by themselves."""
        named = {up.release: up.application for up in desired.upcoming.get(host, ())}
        refs = {name: desired.releases[name] for name in named if name in desired.releases}
        self.digests = frozenset(ref.digest for ref in refs.values()) - assigned
        against = vouching.withheld(self.digests)
        against |= {digest: f"not fetched: {fact.why}" for digest, fact in vouching.revoked().items()}
        self.views = {
            name: against.get(ref.digest) or self._fetch(named[name], ref)
            for name, ref in refs.items()
            if ref.digest in self.digests
        }

    def _fetch(self, application: str, ref: ReleaseRef) -> str:
        """Ask for what is missing, and say what that is."""
        fact = self._releases.fact(ref.digest)
        if fact is None:
            self._fetcher.want(ref.digest, [(ref.digest, ref.size_bytes)], priority=Priority.PREFETCH)
            return self._why(ref.digest, "fetching its document")
        if fact.problem:
            return f"not fetched: {fact.problem}"
        files = [(str(file.digest), file.size_bytes) for file in self._releases.missing(ref.digest)]
        if not files:
            return "fetched"
        self._fetcher.want(
            ref.digest, files, priority=Priority.PREFETCH, bases=lambda: self._bases(application, ref.digest)
        )
        return self._why(ref.digest, self._how_far(ref.digest))

    def _why(self, digest: str, otherwise: str) -> str:
        return self._fetcher.troubles.get(digest) or otherwise

    def _how_far(self, digest: str) -> str:
        """Return a figure that moves in steps: it is reported whenever it changes."""
        progress = self._fetcher.progress().get(digest)
        if progress is None or not progress.total_bytes:
            return "fetching"
        return f"fetching, {format_size(progress.done_bytes)} of {format_size(progress.total_bytes)}"
