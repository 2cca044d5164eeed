"""Whole numbers as few bytes: little-endian groups of seven bits (LEB128), signed ones in zigzag.

Source: https://protobuf.dev/programming-guides/encoding/#varints. Rules: what is read is bounded by its bytes.
"""

from __future__ import annotations

MAX_BITS = 126


class Unreadable(ValueError):
    """The bytes are not what they should be."""


def put_unsigned(out: bytearray, value: int) -> None:
    """Append a number of 0 or more."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def put_signed(out: bytearray, value: int) -> None:
    """Append a number."""
    put_unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)


class Reader:
    """Reads numbers and texts one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    @property
    def at_end(self) -> bool:
        """Tell whether all was read."""
        return self._place >= len(self._content)

    def unsigned(self) -> int:
        """Return the next number of 0 or more.

        Raises:
            Unreadable: there is none.
        """
        content, place = self._content, self._place
        try:
            value = content[place]
            place += 1
            if value > 127:
                value &= 127
                shift = 7
                while True:
                    part = content[place]
                    place += 1
                    value |= (part & 127) << shift
                    if part < 128:
                        break
                    shift += 7
                    if shift > MAX_BITS:
                        raise Unreadable("a number is too long")
        except IndexError:
            raise Unreadable("the bytes end too early") from None
        self._place = place
        return value

    def signed(self) -> int:
        """Return the next number.

        Raises:
            Unreadable: there is none.
        """
        value = self.unsigned()
        return value >> 1 if not value & 1 else -((value + 1) >> 1)

    def text(self, *, most: int) -> str:
        """Return the next text, of `most` bytes at most.

        Raises:
            Unreadable: there is none, or it is longer.
        """
        size = self.unsigned()
        if size > most or self._place + size > len(self._content):
            raise Unreadable("a text is too long")
        raw = self._content[self._place : self._place + size]
        self._place += size
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Unreadable("a text is no UTF-8") from error


def put_text(out: bytearray, text: str) -> None:
    """Append a text: its length in bytes, and UTF-8."""
    raw = text.encode()
    put_unsigned(out, len(raw))
    out += raw
