"""Small ONNX files and tars, written byte by byte."""

from __future__ import annotations

import io
import tarfile

from skerry.delivery.delta_format import encode_integer


def onnx_of(tensors: dict[str, tuple[int, bytes]]) -> bytes:
    """Return an ONNX model of initialisers: their TensorProto.DataType and raw data."""
    initialisers = b"".join(
        _field(5, b"\x10" + encode_integer(kind) + _field(8, name.encode()) + _field(9, content))
        for name, (kind, content) in tensors.items()
    )
    return b"\x08\x0a" + _field(7, _field(2, b"graph") + initialisers)


def _field(number: int, content: bytes) -> bytes:
    return encode_integer(number << 3 | 2) + encode_integer(len(content)) + content


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return a tar, without the padding to a whole record."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        size = archive.offset
    return out.getvalue()[: size + 1024]
