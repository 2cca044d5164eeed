"""Waits until the hub has made the deltas whose sizes a command tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

from skerry.cli.options import DURATION
from skerry.cli.text import plural
from skerry.client.client import Client
from skerry.kit.quantities import format_duration
from skerry.spec.api_delivery import DeltaOrder

Command = TypeVar("Command", bound=Callable[..., object])

_POLL_S = (0.3, 5.0)
_SAY_EVERY_S = 5.0


def making_options(*, make: bool) -> Callable[[Command], Command]:
    """Return the options `--make`, on or off where nothing is said, and `--timeout`."""

    def decorate(command: Command) -> Command:
        timeout = click.option(
            "--timeout",
            type=DURATION,
            default="10m",
            show_default=True,
            help="Wait no longer for deltas to be made.",
        )
        making = click.option(
            "--make/--no-make",
            default=make,
            show_default=True,
            help="Have the hub make the deltas it has not made yet.",
        )
        return making(timeout(command))

    return decorate


def await_deltas(
    client: Client,
    release: str,
    order: DeltaOrder,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Have deltas made and wait for them, saying on standard error how far that is; False when time ran out."""
    began = clock()
    said_at = float("-inf")
    while (ordered := client.order_deltas(release, order)).pending:
        left_s = timeout_s - (clock() - began)
        if left_s <= 0:
            message = f"{plural(ordered.pending, 'delta')} still to be made; what is shown is without them"
            click.echo(message, err=True)
            return False
        if clock() - said_at >= _SAY_EVERY_S:
            said_at = clock()
            left = format_duration(max(1.0, ordered.left_s))
            click.echo(f"making {plural(ordered.pending, 'delta')}, about {left} to go", err=True)
        sleep(min(_POLL_S[1], max(_POLL_S[0], ordered.left_s / 2), left_s))
    return True
