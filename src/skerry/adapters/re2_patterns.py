"""Re2Patterns: regular expressions by RE2, which never backtracks; imported when the first one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from skerry.kit.errors import Rejected
from skerry.ports.patterns import Patterns

MAX_MEMORY_BYTES = 2 << 20


class Re2Patterns(Patterns):
    """`Patterns` over the library."""

    def compile(self, pattern: str) -> Callable[[str], bool]:
        re2: Any = importlib.import_module("re2")  # 4 MB, which an agent that is never asked does not spend
        options: Any = re2.Options()
        options.log_errors = False
        options.max_mem = MAX_MEMORY_BYTES
        options.never_capture = True
        try:
            compiled: Any = re2.compile(pattern, options=options)
        except re2.error as caught:
            error: Exception = caught
            said: object = error.args[0] if error.args else b""
            why = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
            hint = "the syntax is RE2's: no look-around, no back-references"
            raise Rejected(
                "pattern.malformed", f"not a regular expression: {why[:200]}", hint=hint
            ) from error
        return lambda text: compiled.search(text) is not None
