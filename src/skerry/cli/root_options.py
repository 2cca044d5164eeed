"""What `skerry root rotate` can be told: what the next root follows on, and what is different in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from skerry.client.ceremony import RootChange, read_hub_keys
from skerry.client.key_files import read_public

Command = TypeVar("Command", bound=Callable[..., Any])

_file = click.Path(path_type=Path)
_count = click.IntRange(1, 100)

_OPTIONS = (
    click.option(
        "--from", "base", type=_file, metavar="FILE", help="The root to follow on; else the hub's newest."
    ),
    click.option(
        "--add-key", "add", type=_file, multiple=True, metavar="PUB", help="A public key for root; repeatable."
    ),
    click.option(
        "--remove-key", "remove", multiple=True, metavar="ID", help="A key id, or its beginning, of root."
    ),
    click.option(
        "--add-targets-key", "add_targets", type=_file, multiple=True, metavar="PUB",
        help="A public key for targets; repeatable.",
    ),
    click.option(
        "--remove-targets-key", "remove_targets", multiple=True, metavar="ID",
        help="A key id, or its beginning, of targets.",
    ),
    click.option("--threshold", type=_count, help="How many root keys have to sign, if not as many as before."),
    click.option(
        "--targets-threshold", type=_count, help="How many targets keys have to sign, if not as many as before."
    ),
    click.option(
        "--hub-keys", "hub_keys", type=_file, metavar="FILE",
        help="A file with other public keys of the hub itself, such as a new hub's trust-root.json.",
    ),
)  # fmt: skip


class RootOptions(msgspec.Struct, frozen=True):
    """What the next root follows on, None for the hub's newest, and what is different in it."""

    base: Path | None
    change: RootChange

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RootOptions:
        """Return what the options say.

        Raises:
            Rejected: a file does not hold what it should.
        """
        change = RootChange(
            add=[read_public(path) for path in given["add"]],
            remove=given["remove"],
            add_targets=[read_public(path) for path in given["add_targets"]],
            remove_targets=given["remove_targets"],
            threshold=given["threshold"],
            targets_threshold=given["targets_threshold"],
            hub=read_hub_keys(given["hub_keys"]) if given["hub_keys"] else None,
        )
        return cls(given["base"], change)


def root_options(command: Command) -> Command:
    """Return the command with the options of `RootOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
