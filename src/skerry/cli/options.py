"""Values of options, as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from skerry.kit.quantities import parse_duration


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


DURATION = DurationType()


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
