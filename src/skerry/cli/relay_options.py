"""Options that the commands at a relay take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def data_option() -> Callable[[Command], Command]:
    """Return the option `--data`, the data directory of a relay."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/var/lib/skerry-relay"),
        show_default=True,
        help="Data directory.",
    )
