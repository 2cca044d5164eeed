"""A problem of a document: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.kit.errors import Rejected


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong in a document.

    `path` is as people would say it (`spec.components[0].ports[1].port`); `line` counts from 1, 0 when unknown.
    """

    path: str
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.file:
            place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        else:
            place = f"line {self.line}: " if self.line else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.path}: {self.message}{hint}" if self.path else f"{place}{self.message}{hint}"


class DocumentRejected(Rejected):
    """A document, or several, with all their problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("document.invalid", "\n".join(map(str, problems)), count=len(problems))
        self.problems = tuple(problems)
