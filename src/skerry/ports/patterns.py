"""Patterns: regular expressions of strangers, whose search takes a time that is linear in the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Patterns(Protocol):
    """No pattern, whatever it is, makes a search take longer than the text's length, or memory than a bound."""

    def compile(self, pattern: str) -> Callable[[str], bool]:
        """Return what tells whether a text holds something that matches. Usable from any thread.

        Raises:
            Rejected: it is no regular expression of RE2, or too large (`pattern.malformed`).
        """
        ...
