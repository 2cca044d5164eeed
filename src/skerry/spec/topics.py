"""Topics of a message bus, and patterns of them.

A topic is levels joined by `/`. In a pattern `+` stands for one level, and `#` at the end for the level before it and
all below. The first level is always spelled out: brokers keep their own topics beside those of applications, and no
pattern can reach them. Levels have letters, digits, `_` and `-` alone, which mean the same to every broker.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

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
