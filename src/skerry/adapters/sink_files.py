"""Files with secrets of sinks: looked up by name in one directory, and read when they are used."""

from __future__ import annotations

import re
from pathlib import Path

from skerry.kit.errors import Rejected
from skerry.spec.sink import FILE_NAME_PATTERN

MAX_SECRET_BYTES = 4096


def sink_file(folder: Path, name: str) -> Path:
    """Return the file of this name in the directory, and in no other.

    Raises:
        Rejected: it would be elsewhere, or is not there (`sink.file`).
    """
    file = folder / name
    if re.fullmatch(FILE_NAME_PATTERN, name) is None or file.parent != folder:
        raise Rejected("sink.file", f"not the name of a file: {name[:80]!r}")
    if not file.is_file():
        hint = "put it into the directory sinks of the hub's data"
        raise Rejected("sink.file", f"there is no file {name}", hint=hint)
    return file


def read_sink_secret(folder: Path, name: str) -> bytes:
    """Return what a file holds, without white space around it.

    Raises:
        Rejected: it cannot be read, is empty, or is too large for a secret (`sink.file`).
    """
    try:
        with sink_file(folder, name).open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise Rejected("sink.file", f"{name} cannot be read: {error.strerror}") from None
    secret = content.strip()
    if not secret or len(content) > MAX_SECRET_BYTES:
        raise Rejected("sink.file", f"{name} is empty, or longer than {MAX_SECRET_BYTES} bytes")
    return secret
