"""What is in a tar, by name and place: read header by header, nothing extracted, nothing believed.

The format is POSIX.1-1988 `ustar` with the extensions that tools write: GNU long names (`L`, `K`), pax headers
(`x`, `g`; POSIX.1-2001) and sizes in base 256. The standard library's reader is not used because it stops without a
word at a damaged header and holds extended headers of any size in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import msgspec

from skerry.client.source_files import open_source
from skerry.kit.errors import Rejected

MAX_MEMBERS = 20_000
_BLOCK = 512
_MAX_EXTENDED_BYTES = 64 << 10
_KINDS: dict[bytes, Literal["file", "link", "directory"]] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "link", b"5": "directory",
}  # fmt: skip


class Member(msgspec.Struct, frozen=True):
    """One member: what it is, and where in the archive its bytes are."""

    name: str
    kind: Literal["file", "link", "directory"]
    start: int
    size_bytes: int


def index_tar(path: Path) -> dict[str, Member]:
    """Return the members of an archive by name.

    Raises:
        OSError: it cannot be read.
        Rejected: it is no tar, damaged, cut short, or hostile (`image.archive`).
    """
    members: dict[str, Member] = {}
    with open_source(path) as file:
        for member in _members(file, path):
            name = member.name
            if name in members and member.kind != "directory":
                _refuse(path, f"{name!r} is there twice")
            if len(members) >= MAX_MEMBERS:
                _refuse(path, f"it has more than {MAX_MEMBERS} members")
            members[name] = member
    return members


def _members(file: BinaryIO, path: Path) -> Iterator[Member]:
    end = os.fstat(file.fileno()).st_size
    extended: dict[str, str] = {}
    while True:
        place = file.tell()
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            _refuse(path, "it is cut short" if place else "it is no tar archive")
        if not any(header):
            return
        _check_sum(header, path, place)
        kind = header[156:157]
        size = _number(header[124:136], path)
        if kind in (b"x", b"g", b"L", b"K"):
            if size > _MAX_EXTENDED_BYTES:
                _refuse(path, f"an extended header of {size} bytes")
            content = file.read(size)
            file.seek(place + _BLOCK + _padded(size))
            extended |= _extended(kind, content, path)
            continue
        size = _decimal(extended.get("size", ""), path, otherwise=size)
        name = _safe(extended.get("path") or _name(header, path), path)
        if kind not in _KINDS:
            _refuse(path, f"{name!r} is neither a file nor a directory")
        if any(key.startswith("GNU.sparse") for key in extended):
            _refuse(path, f"{name!r} is stored with holes")
        held = size if kind in (b"0", b"\0", b"7") else 0
        start = place + _BLOCK
        if start + held > end:
            _refuse(path, f"it is cut short in {name!r}")
        yield Member(name, _KINDS[kind], start, held)
        file.seek(start + _padded(held))
        extended = {}


def _check_sum(header: bytes, path: Path, place: int) -> None:
    text = header[148:156].strip(b" \0")
    stated = int(text, 8) if re.fullmatch(rb"[0-7]+", text) else -1
    if stated != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
        _refuse(path, f"damaged at byte {place}" if place else "it is no tar archive")


def _number(field: bytes, path: Path) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes((field[0] & 0x7F, *field[1:])), "big")
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        _refuse(path, "a header with a number that is none")
    return int(text or b"0", 8)


def _decimal(text: str, path: Path, *, otherwise: int) -> int:
    if not text:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,19}", text):
        _refuse(path, "an extended header with a size that is none")
    return int(text)


def _name(header: bytes, path: Path) -> str:
    name = _text(header[:100].split(b"\0", 1)[0], path)
    prefix = _text(header[345:500].split(b"\0", 1)[0], path) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _extended(kind: bytes, content: bytes, path: Path) -> dict[str, str]:
    if kind == b"L":
        return {"path": _text(content.split(b"\0", 1)[0], path)}
    if kind in (b"K", b"g"):
        return {}  # where links lead, and what holds for all members: neither is looked at
    found: dict[str, str] = {}
    while content:
        length, space, _ = content.partition(b" ")
        if (
            not space
            or not re.fullmatch(rb"[0-9]{1,6}", length)
            or not len(length) < int(length) <= len(content)
        ):
            _refuse(path, "a damaged extended header")
        record, content = content[len(length) + 1 : int(length)], content[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            found[_text(key, path)] = _text(value, path)
    return found


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        _refuse(path, f"a name that is not UTF-8: {content[:80]!r}")


def _safe(name: str, path: Path) -> str:
    """Return a member's name without what means nothing; a name that would lead out of a folder is refused."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or len(name) > 1024:
        _refuse(path, f"a member with a name that leads elsewhere: {name[:200]!r}")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _refuse(path: Path, reason: str) -> NoReturn:
    hint = "save the image again; nothing of this archive was used"
    raise Rejected("image.archive", f"{path}: {reason}", hint=hint)
