"""What a caller sees: all sites, or those that its token's selector matches, with all that belongs to them.

Rules: a site outside is treated as one that is not there. A scope is a conjunction of terms, and so is every selector:
what a caller selects is narrowed by adding the scope's terms. Releases belong to no site and are seen by everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from skerry.hub.services import Hub
from skerry.hub.views import view_rollout
from skerry.kit.errors import Denied, Missing
from skerry.matching.selector import Selector, parse_selector
from skerry.ports.hub_store import EventRecord, HostRecord, RolloutRecord, SiteRecord, TokenRecord
from skerry.spec.api import RolloutView
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site


class Scope:
    """The part of the fleet that a token is for; an empty text is all of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.selector = parse_selector(text) if text else Selector()

    @property
    def limited(self) -> bool:
        """Tell whether there are sites outside."""
        return bool(self.selector.terms)

    def covers(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a site of this name and these labels is inside."""
        return self.selector.matches(name, labels)

    def holds(self, selector: str) -> bool:
        """Tell whether a selector can never match a site outside: it has all terms of the scope."""
        return set(self.selector.terms) <= set(parse_selector(selector).terms)

    def narrow(self, selector: str) -> str:
        """Return a selector of the sites that both the given one and the scope match.

        Raises:
            Rejected: it is not a selector.
        """
        chosen = parse_selector(selector)
        if not self.limited or self.holds(selector):
            return selector
        return f"{selector.strip()},{self.text}" if chosen.terms else self.text


class Seen:
    """The hub's store as one caller sees it. Synchronous; call it in a thread."""

    def __init__(self, hub: Hub, token: TokenRecord) -> None:
        self._store = hub.store
        self._who = token.name
        self.scope = Scope(token.sites)

    def sites(self) -> Sequence[SiteRecord]:
        """Return the sites inside, by name."""
        sites = self._store.sites()
        return [site for site in sites if self.covers(site)] if self.scope.limited else sites

    def names(self) -> frozenset[str]:
        """Return the names of the sites inside."""
        return frozenset(site.name for site in self.sites())

    def site(self, name: str) -> SiteRecord:
        """Return a site.

        Raises:
            Missing: there is none, or it is outside.
        """
        site = self._store.site(name)
        if site is None or not self.covers(site):
            raise Missing("site.missing", f"there is no site {name}", hint="skerry get sites lists them")
        return site

    def hosts(self, site: str | None = None) -> Sequence[HostRecord]:
        """Return the hosts of the sites inside, or of one of them."""
        hosts, names = self._store.hosts(site), self.names()
        return [host for host in hosts if host.site in names]

    def host(self, name: str) -> HostRecord:
        """Return a host.

        Raises:
            Missing: there is none, or its site is outside.
        """
        host = self._store.host(name)
        site = self._store.site(host.site) if host is not None else None
        if host is None or site is None or not self.covers(site):
            raise Missing("host.missing", f"there is no host {name}", hint="skerry get hosts lists them")
        return host

    def events(self, *, site: str, host: str, limit: int) -> Sequence[EventRecord]:
        """Return the newest events of the sites inside, newest first."""
        if not self.scope.limited:
            return self._store.events(site=site, host=host, limit=limit)
        names = self.names() & {site} if site else self.names()
        found = [record for name in names for record in self._store.events(site=name, host=host, limit=limit)]
        return sorted(found, key=lambda record: record.id, reverse=True)[:limit]

    def rollout(self, record: RolloutRecord) -> RolloutView | None:
        """Return what is seen of a rollout: its part inside, or None when it has none and gets none."""
        view = view_rollout(record)
        if not self.scope.limited:
            return view
        names = self.names()
        sites = {name: progress for name, progress in record.sites.items() if name in names}
        document = msgspec.json.decode(record.document, type=Rollout)
        if self.scope.holds(document.spec.sites) and len(sites) == len(record.sites):
            return view
        chosen = parse_selector(document.spec.sites)
        if not sites and not any(self._selects(chosen, site) for site in self.sites()):
            return None
        return self._part(view, document, sites)

    def require_whole(self, record: RolloutRecord) -> None:
        """Let a caller change a rollout that lies inside.

        Raises:
            Denied: it reaches, or can reach, sites outside (`scope.rollout`).
            Missing: nothing of it is seen.
        """
        if not self.scope.limited:
            return
        if self.rollout(record) is None:
            raise Missing("rollout.missing", f"there is no rollout {record.name}")
        document = msgspec.json.decode(record.document, type=Rollout)
        outside = {site.name for site in self._store.sites()} - self.names()
        if not self.scope.holds(document.spec.sites) or outside & set(record.sites):
            message = f"rollout {record.name} is not only of the sites that {self._who} is for"
            raise Denied("scope.rollout", message, hint=f"those are {self.scope.text}")

    def _part(self, view: RolloutView, document: Rollout, sites: dict[str, SiteProgress]) -> RolloutView:
        """Leave out what tells of sites outside: who is selected, the counts in the reason."""
        states = [progress.state for progress in sites.values()]
        counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        shown = {
            "apiVersion": "skerry/v1",
            "kind": "Rollout",
            "metadata": {"name": view.name},
            "spec": {"release": document.spec.release, "sites": self.scope.text},
        }
        why = f"the sites of {self._who}: {counted or 'not looked at yet'}"
        return msgspec.structs.replace(view, document=shown, why=why, sites=sites)

    def covers(self, site: SiteRecord) -> bool:
        """Tell whether a site is inside as it is stored."""
        return not self.scope.limited or self._selects(self.scope.selector, site)

    @staticmethod
    def _selects(selector: Selector, site: SiteRecord) -> bool:
        labels = msgspec.json.decode(site.document, type=Site).metadata.labels
        return selector.matches(site.name, labels)
