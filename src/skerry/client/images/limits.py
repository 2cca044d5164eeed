"""How large the parts of an image may be, and how its reading gets on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

MAX_DOCUMENT_BYTES = 4 << 20
"""Of a manifest, an index, a configuration: what registries take, too."""

MAX_IMAGE_BYTES = 64 << 30
"""Of all uncompressed layers of an image for one platform."""

MAX_IMAGES = 64
"""Of an index, over all platforms."""


class ImageProgress(msgspec.Struct, frozen=True):
    """How far one step with one part of an image is; `total_bytes` 0 means that nobody knows."""

    step: Literal["read", "check", "download", "unpack", "wait"]
    name: str
    done_bytes: int = 0
    total_bytes: int = 0


OnImage = Callable[[ImageProgress], None]
