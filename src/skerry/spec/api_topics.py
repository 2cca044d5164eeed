"""Topics of a site as the operator API shows them."""

from __future__ import annotations

from typing import Literal

from skerry.spec.metadata import Part


class TopicFlow(Part, frozen=True, kw_only=True):
    """A pattern of an application, and who is at its other end; `trouble` says what is wrong where nobody is.

    `linked` are those of `joined` that only other hosts run, reached over links between hosts.
    """

    site: str
    application: str
    does: Literal["publishes", "reads"]
    topic: str
    joined: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    trouble: str = ""


class SiteTopics(Part, frozen=True, kw_only=True):
    """What the applications of a site do on its buses, and what each host says of its own.

    `broker` is the one that the site has; `hosts` says, by host, what is wrong with its bus, empty where it runs.
    `links` says, by host, of each other host that something is to come from, what is wrong with the link.
    """

    site: str
    broker: str
    flows: tuple[TopicFlow, ...] = ()
    hosts: dict[str, str] = {}
    links: dict[str, dict[str, str]] = {}
