"""`skerry hub rekey`: another key for what the hub stores of secrets."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.text import examples, plural


@click.command(epilog=examples("skerry hub rekey --data /var/lib/skerry"))
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data directory."
)
def rekey(data: Path) -> None:
    """Wrap all stored secrets under a new key, and forget the old one. The hub must be stopped.

    Hosts notice nothing. Run it again after a power cut: it goes on where it was.
    """
    from skerry.hub.wiring.console import rekey_secrets

    count, key = rekey_secrets(data.absolute())
    click.echo(f"{plural(count, 'secret version')} wrapped under the new key {key[:16]}; start the hub")
