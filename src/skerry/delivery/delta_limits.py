"""What a delta may ask of its reader: every bound of the format, and how a delta is refused.

The numbers are part of the format (docs/internals/delta.md): a writer stays below them, and a reader refuses
what passes them before it reserves memory or reads on.
"""

from __future__ import annotations

from skerry.kit.errors import Fact, Untrusted

# A file, before or after. Places with a bit beside them stay below 2**53, as integers of JSON readers do.
MAX_FILE_BYTES = 1 << 42
# Output of one block; more than CODED_BYTES of it can only be copies, which need no memory.
MAX_BLOCK_BYTES = 16 << 20
# Output of a block that is not copied: what a reader holds in memory.
MAX_CODED_BYTES = 1 << 20
# References of a block, together.
MAX_REFERENCE_BYTES = 4 << 20
MAX_SEGMENTS = 4096
MAX_REFERENCES = 1024
# Descriptors and payloads of a block; a writer stores what does not shrink, so payloads are hardly longer than output.
MAX_BODY_BYTES = MAX_CODED_BYTES + (256 << 10)
# Windows of zstd frames: a frame never needs to look further back than its own content and its prefix.
MAX_WINDOW_LOG = 20
# zstd takes no shorter prefix.
MIN_PREFIX_BYTES = 16
# What is copied or hashed at a time.
PIECE_BYTES = 256 << 10


def refusal(code: str, message: str, **facts: Fact) -> Untrusted:
    """Return the error by which a delta is refused; `code` is without its leading `delta.`."""
    return Untrusted(
        f"delta.{code}", message, hint="fetch the delta again, or the whole content instead", **facts
    )
