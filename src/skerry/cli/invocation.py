"""What one run of the command line was asked for, wherever in it that was said."""

from __future__ import annotations

import click


class Invocation:
    """The options that hold for the whole run."""

    def __init__(self) -> None:
        self.output = "table"
        self.context = ""
        self.debug = False


def current() -> Invocation:
    """Return the run under way."""
    context = click.get_current_context(silent=True)
    found = context.find_object(Invocation) if context else None
    return found or Invocation()
