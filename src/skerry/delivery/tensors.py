"""Where the tensors of a model file lie, by name: safetensors and ONNX, also within a tar.

Sources: the safetensors format (huggingface/safetensors, README "Format"); onnx.proto3 (ONNX IR 3 and later); the
wire format of protocol buffers (protobuf.dev, "Encoding"); the ustar header (POSIX.1, pax). Only places are read,
never the values.

Rules:
- A file that is not understood has no tensors; that is no error, for other ways to code it remain.
- At most 16 MiB of header and 1 Mi of fields are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

_MAX_HEADER_BYTES = 16 << 20
_MAX_FIELDS = 1 << 20
_MAX_NAME_BYTES = 4096
_MAX_MEMBERS = 1 << 20
_TAR_BLOCK_BYTES = 512
_OCTAL_DIGITS = b"01234567"
# Smaller files in a tar are left to zstd.
_MIN_MODEL_BYTES = 16 << 10


class Tensor(NamedTuple):
    """A tensor's place in its file, and what its numbers are: `f32`, `f16`, `bf16`, or bytes (`u8`)."""

    name: str
    kind: str
    offset: int
    size: int


_SAFETENSORS_KINDS = {
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "I32": "u32",
    "U32": "u32",
    "I16": "u16",
    "U16": "u16",
}
# TensorProto.DataType
_ONNX_KINDS = {1: "f32", 10: "f16", 16: "bf16", 4: "u16", 5: "u16", 6: "u32", 12: "u32"}


def find_tensors(file: BinaryIO, size: int) -> list[Tensor]:
    """Return a file's tensors in the order of their places; none when it is of another format.

    In a tar, such as a layer of an image, those of every model in it, named after their files.
    """
    found = _tensors_within(file, 0, size)
    if not found and _is_tar(file):
        for name, begins, length in _members(file, size):
            found += [
                tensor._replace(name=f"{name}:{tensor.name}")
                for tensor in _tensors_within(file, begins, begins + length)
            ]
    return found


def _tensors_within(file: BinaryIO, begins: int, ends: int) -> list[Tensor]:
    for read in (_read_safetensors, _read_onnx):
        try:
            found = sorted(read(file, begins, ends), key=lambda tensor: tensor.offset)
        except (_NotThisFormat, msgspec.DecodeError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if found and _are_apart(found, begins, ends):
            return found
    return []


class _NotThisFormat(Exception):
    pass


def _are_apart(tensors: list[Tensor], begins: int, ends: int) -> bool:
    at = begins
    for tensor in tensors:
        if tensor.offset < at or tensor.size < 0:
            return False
        at = tensor.offset + tensor.size
    return at <= ends


def _is_tar(file: BinaryIO) -> bool:
    file.seek(257)
    return file.read(5) == b"ustar"


def _members(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name, place, size) of the plain files of a tar that may be models."""
    at = 0
    for _ in range(_MAX_MEMBERS):
        file.seek(at)
        header = file.read(_TAR_BLOCK_BYTES)
        if len(header) < _TAR_BLOCK_BYTES or header[257:262] != b"ustar":
            return
        digits = header[124:136].strip(b" \0")
        if not digits or digits.strip(_OCTAL_DIGITS):
            return
        length = int(digits, 8)
        if header[156:157] in b"0\0" and _MIN_MODEL_BYTES <= length <= size - at - _TAR_BLOCK_BYTES:
            name = (header[345:500].rstrip(b"\0") + b"/" + header[:100].rstrip(b"\0")).decode("latin-1")
            yield name, at + _TAR_BLOCK_BYTES, length
        at += _TAR_BLOCK_BYTES + -(-length // _TAR_BLOCK_BYTES) * _TAR_BLOCK_BYTES


def _read_safetensors(file: BinaryIO, begins: int, ends: int) -> Iterator[Tensor]:
    file.seek(begins)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, ends - begins - 8):
        raise _NotThisFormat
    header: dict[str, Any] = msgspec.json.decode(file.read(length), type=dict[str, Any])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        if type(first) is not int or type(end) is not int:
            raise _NotThisFormat
        kind = _SAFETENSORS_KINDS.get(entry["dtype"], "u8")
        yield Tensor(name, kind, begins + 8 + length + first, end - first)


class _Fields:
    """Walks over the fields of a message in a file, in bounds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_FIELDS

    def walk(self, begins: int, ends: int) -> Iterator[tuple[int, int, int]]:
        """Yield (field, place, length) of what has a length, and (field, value, -1) of numbers."""
        at = begins
        while at < ends:
            self._left -= 1
            if self._left < 0:
                raise _NotThisFormat
            key, at = self._number(at)
            field, wire_type = key >> 3, key & 7
            if wire_type == 0:
                value, at = self._number(at)
                yield field, value, -1
            elif wire_type == 2:
                length, at = self._number(at)
                if length > ends - at:
                    raise _NotThisFormat
                yield field, at, length
                at += length
            elif wire_type in (1, 5):
                at += 8 if wire_type == 1 else 4
            else:
                raise _NotThisFormat
        if at != ends:
            raise _NotThisFormat

    def _number(self, at: int) -> tuple[int, int]:
        self._file.seek(at)
        value = 0
        for index, byte in enumerate(self._file.read(10)):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value, at + index + 1
        raise _NotThisFormat

    def text(self, at: int, length: int) -> str:
        """Return a name."""
        if length > _MAX_NAME_BYTES:
            raise _NotThisFormat
        self._file.seek(at)
        return self._file.read(length).decode()


def _read_onnx(file: BinaryIO, begins: int, ends: int) -> Iterator[Tensor]:
    fields = _Fields(file)
    graph_field, initializer_field = 7, 5
    for field, place, length in fields.walk(begins, ends):
        if field != graph_field or length < 0:
            continue
        for inner, at, inner_length in fields.walk(place, place + length):
            if inner == initializer_field and inner_length >= 0:
                yield from _read_tensor(fields, at, inner_length)


def _read_tensor(fields: _Fields, place: int, length: int) -> Iterator[Tensor]:
    name, data_type, data = "", 0, (0, 0)
    for field, at, size in fields.walk(place, place + length):
        if field == 2 and size < 0:
            data_type = at
        elif field == 8 and size >= 0:
            name = fields.text(at, size)
        elif field in (4, 9) and size >= 0:
            # float_data, packed, lies there as raw_data does.
            data = (at, size)
    if data[1]:
        yield Tensor(name, _ONNX_KINDS.get(data_type, "u8"), *data)
