"""Options that the commands of `skerry secret` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from skerry.cli.output import output_option
from skerry.cli.text import local_time, now
from skerry.kit.instants import parse_instant
from skerry.kit.quantities import parse_duration
from skerry.spec.api_secret import SecretVersionView
from skerry.spec.secret import Making

Command = TypeVar("Command", bound=Callable[..., object])


class InstantType(click.ParamType[datetime]):
    """An instant such as `2027-01-01T00:00:00Z`, or a duration such as `24h` from now."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant, or fail with what one looks like."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            return now() + timedelta(seconds=parse_duration(text))
        except ValueError:
            pass
        try:
            return parse_instant(text)
        except ValueError:
            self.fail(f"{text!r} is neither 2027-01-01T00:00:00Z nor a duration such as 24h", param, ctx)


INSTANT = InstantType()


def making_options(command: Command) -> Command:
    """Return the command with the options that say how and where a value is made."""
    options = (
        click.option(
            "--kind",
            type=click.Choice(["random", "keypair"]),
            required=True,
            help="Random text, or a private key in PEM.",
        ),
        click.option(
            "--length",
            type=click.IntRange(16, 1024),
            default=32,
            show_default=True,
            help="Of random text: so many characters; with base64url, so many random bytes.",
        ),
        click.option(
            "--alphabet",
            type=click.Choice(["base64url", "alphanumeric", "hex", "digits"]),
            default="base64url",
            show_default=True,
            help="What random text is made of.",
        ),
        click.option(
            "--algorithm",
            type=click.Choice(["ed25519", "p256"]),
            default="ed25519",
            show_default=True,
            help="Of a pair of keys.",
        ),
        click.option("--at-site", is_flag=True, help="Each host that uses it makes its own, and keeps it."),
        click.option(
            "--rotate-every",
            metavar="DURATION",
            help="With --at-site: hosts make the next one after this time, with a link or without.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def making_of(said: Mapping[str, Any]) -> Making:
    """Return what `making_options` say of how a value is made."""
    return Making(
        kind=said["kind"], length=said["length"], alphabet=said["alphabet"], algorithm=said["algorithm"]
    )


def scope_options(command: Command) -> Command:
    """Return the command with the options that say where a value holds."""
    command = click.option(
        "--selector", default="", metavar="SELECTOR", help="Only at sites with these labels."
    )(command)
    return click.option("--site", default="", help="Only at this site.")(command)


def times_options(command: Command) -> Command:
    """Return the command with the options that say when a value holds."""
    command = click.option(
        "--expires", type=INSTANT, help="When it ends: an instant, or a duration from now."
    )(command)
    return click.option(
        "--not-before", type=INSTANT, help="Use it from then on: an instant, or a duration from now."
    )(command)


def changing_options(command: Command) -> Command:
    """Return the command with `--dry-run` and `-o`."""
    command = output_option("table", "json", "yaml")(command)
    return click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")(command)


def shown_times(version: SecretVersionView) -> list[str]:
    """Return when a version holds, in lines."""
    lines = [f"used from {local_time(version.not_before)} on"] if version.not_before else []
    return [*lines, *([f"expires {local_time(version.expires_at)}"] if version.expires_at else [])]
