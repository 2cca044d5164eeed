"""Shows how far long work is: one line on a terminal that is written over, elsewhere nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from skerry.kit.quantities import format_size


def percent_teller(what: str) -> Callable[[int, int], None]:
    """Return who is told how many bytes are done, and of how many; `what` says what was done with them."""
    if not sys.stderr.isatty():
        return lambda _done, _total: None
    shown = -1

    def tell(at: int, total: int) -> None:
        nonlocal shown
        percent = 100 * at // max(1, total)
        if percent != shown:
            shown = percent
            end = "\n" if at >= total else ""
            click.echo(f"\r{percent:3} % of {format_size(total)} {what}{end}", nl=False, err=True)

    return tell
