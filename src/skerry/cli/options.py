"""Options that several commands take, and the values of options as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from skerry.kit.quantities import parse_duration, parse_size

Command = TypeVar("Command", bound=Callable[..., object])


class DurationType(click.ParamType[float]):
    """A duration such as `90s` or `1h30m`, handed over in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, or fail with what a duration looks like."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail("must be longer than 0", param, ctx)
        return seconds


class SizeType(click.ParamType[int]):
    """A size such as `500MiB`, handed over in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes, or fail with what a size looks like."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()
SIZE = SizeType()


def files_option(help: str) -> Callable[[Command], Command]:
    """Return the option `-f`, handed over as the names `files`."""
    return click.option(
        "-f", "--file", "files", multiple=True, required=True, metavar="FILE|DIR|-", help=help
    )


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Return KEY=VALUE arguments as a mapping.

    Raises:
        click.BadParameter: one has no `=`, or a key is there twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
        if key in found:
            raise click.BadParameter(f"{key} is there twice", param_hint=option)
        found[key] = value
    return found
