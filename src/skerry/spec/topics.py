"""Topics of a message bus, patterns of them, and what an application does with them.

A topic is levels joined by `/`. In a pattern `+` stands for one level, and `#` at the end for the level before it and
all below. The first level is always spelled out: brokers keep their own topics beside those of applications, and no
pattern can reach them. Levels have letters, digits, `_` and `-` alone, which mean the same to every broker.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Part, Size

TOPIC_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)*$"
TOPIC_FILTER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*(/([A-Za-z0-9_-]+|\+))*(/#)?$"
MAX_TOPIC_LENGTH = 200

Topic = Annotated[
    str,
    Meta(
        pattern=TOPIC_PATTERN,
        max_length=MAX_TOPIC_LENGTH,
        description="a topic such as plant/line1/count: letters, digits, _ and -, levels joined by /",
    ),
]
TopicFilter = Annotated[
    str,
    Meta(
        pattern=TOPIC_FILTER_PATTERN,
        max_length=MAX_TOPIC_LENGTH,
        description="a topic such as plant/line1/count; + for any level but the first, # at the end for all below",
    ),
]

BUS_ADDRESS_FACT = "bus_address"

BrokerKind = Literal["nats", "mosquitto", "none"]


UplinkPriority = Literal["low", "normal", "high"]
REDUCTION_PATTERN = r"^(last|mean|count|sample [1-9][0-9]{0,5})$"


class UplinkSpec(Part, frozen=True, kw_only=True):
    """Messages that go up to the hub: those of `topic`, which the application publishes or reads.

    With `reduce` one message stands for all of a topic in each `window`: the `last` one, the `mean` of the numbers, or
    their `count`; `sample 10` is every tenth one, whenever it comes. No more than `max_rate` go up in a second, as a
    mean over ten seconds, and none that is larger than `max_size`.
    """

    topic: TopicFilter
    priority: UplinkPriority = "normal"
    reduce: Annotated[str, Meta(pattern=REDUCTION_PATTERN)] | None = None
    window: Duration = "1m"
    max_rate: Annotated[float, Meta(gt=0, le=1000)] = 10.0
    max_size: Size = "64KiB"


class TopicsSpec(Part, frozen=True, kw_only=True):
    """What an application may do on the bus of its host: exactly this, and nothing where it is empty.

    `uplink` goes up to the hub. Messages from the hub may come to topics of `downlink`, and to no others.
    """

    publish: Annotated[tuple[TopicFilter, ...], Meta(max_length=64)] = ()
    subscribe: Annotated[tuple[TopicFilter, ...], Meta(max_length=64)] = ()
    uplink: Annotated[tuple[UplinkSpec, ...], Meta(max_length=64)] = ()
    downlink: Annotated[tuple[TopicFilter, ...], Meta(max_length=64)] = ()

    @property
    def is_used(self) -> bool:
        """Whether the application needs a bus at all."""
        return bool(self.publish or self.subscribe)


class BusView(Part, frozen=True, kw_only=True):
    """The message bus of a host: the broker, whether it runs, who has an account, and what hinders it.

    `links` are the hosts that something is to come from: what is wrong with each, empty where it is open.
    """

    broker: BrokerKind = "none"
    running: bool = False
    applications: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()
    trouble: Annotated[str, Meta(max_length=1024)] = ""
    links: Annotated[dict[str, Annotated[str, Meta(max_length=256)]], Meta(max_length=256)] = {}


class HostTopics(Part, frozen=True, kw_only=True):
    """What the applications of a host publish and read, and where the bus of that host is found by the others."""

    address: Annotated[str, Meta(max_length=256)] = ""
    publish: Annotated[tuple[TopicFilter, ...], Meta(max_length=4096)] = ()
    subscribe: Annotated[tuple[TopicFilter, ...], Meta(max_length=4096)] = ()
