"""zstd frames of known size: one frame, its content bounded before anything is unpacked.

By `compression.zstd` of Python 3.14, and by its backport below. Source of the format: RFC 8878; a raw-content
prefix is what its section 5 calls a dictionary without a header. Frames carry neither a checksum nor a
dictionary's id: the block's digest is stronger.
"""

from __future__ import annotations

import sys

from skerry.delivery.delta_limits import MAX_WINDOW_LOG, refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Wide enough for a prefix and what follows it.
_PREFIX_WINDOW_LOG = 23


def compress(content: bytes | memoryview, level: int) -> bytes:
    """Return a frame of `content`, which is at most 1 MiB."""
    options: dict[int, int] = {zstd.CompressionParameter.compression_level: level}
    return zstd.ZstdCompressor(options=options).compress(content, zstd.ZstdCompressor.FLUSH_FRAME)


def compress_after(prefix: bytes, content: bytes | memoryview, level: int) -> bytes:
    """Return a frame of `content` that refers to `prefix` as if it stood before it."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: _PREFIX_WINDOW_LOG,
    }
    dictionary = zstd.ZstdDict(prefix, is_raw=True)
    packer = zstd.ZstdCompressor(options=options, zstd_dict=dictionary.as_prefix)
    return packer.compress(content, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack(frame: bytes | memoryview, size: int, *, prefix: bytes = b"") -> bytes:
    """Return the content of a frame, which is `size` bytes, in memory of about that size.

    Raises:
        Untrusted: it is no whole frame, or of another size, or needs too large a window (`delta.bad_frame`).
    """
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    unpacker = zstd.ZstdDecompressor(
        zstd_dict=dictionary, options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    )
    try:
        # One byte more than may come: the end of the frame is seen, and so is content that goes on.
        content = unpacker.decompress(frame, max_length=size + 1)
    except zstd.ZstdError as error:
        raise refusal("bad_frame", f"a payload cannot be unpacked: {str(error)[:100]}") from error
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        raise refusal("bad_frame", "a payload does not hold what it should")
    return content
