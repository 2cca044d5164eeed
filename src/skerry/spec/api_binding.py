"""Bindings over the operator API: what an application is joined to at a site, host by host, and why."""

from __future__ import annotations

from skerry.spec.binding import BindingView
from skerry.spec.metadata import Part


class HostJoined(Part, frozen=True, kw_only=True):
    """What an application is joined to on one host: the binding of each need, or the `reasons` why not.

    `why` has one line per need and binding of its type. `seen` is how the host last saw what it is joined to.
    """

    host: str
    bindings: dict[str, str] = {}
    why: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    seen: dict[str, BindingView] = {}


class BindingDecision(Part, frozen=True, kw_only=True):
    """What a release needs to be joined to at a site, and what each of its hosts gets.

    `release` is the one that the site is assigned, else the newest; `excluded` says why no rollout brings it there.
    A site without hosts is judged as if one had everything attached to it.
    """

    application: str
    site: str
    release: str
    needs: tuple[str, ...] = ()
    offered: int = 0
    hosts: tuple[HostJoined, ...] = ()
    excluded: str = ""
