"""`skerry hub keys`: new online keys for a hub, with the root that names them."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.text import examples

_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Data directory of the hub.",
)


@click.group()
def keys() -> None:
    """Replace the keys that a hub signs with, such as after somebody else had the machine."""


@keys.command("new", epilog=examples("skerry hub keys new --data /var/lib/skerry --out hub-keys.json"))
@_data
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
def new(data: Path, out: Path) -> None:
    """Make the next keys, and write their public halves for skerry root rotate --hub-keys.

    The hub goes on with the keys that it has until skerry hub keys install.
    """
    import msgspec

    from skerry.hub.wiring.console import new_hub_keys
    from skerry.kit.durable import write_file

    made = new_hub_keys(data.absolute())
    write_file(out, msgspec.json.encode(made), mode=0o644)
    click.echo(f"new keys are ready; their public halves are in {out}")
    click.echo(f"next:              skerry root rotate --hub-keys {out} --out ROOT, have it signed, then")
    click.echo(f"                   skerry hub keys install ROOT --data {data}, while the hub is stopped")


@keys.command("install", epilog=examples("skerry hub keys install root-2.json --data /var/lib/skerry"))
@click.argument("root", type=click.Path(path_type=Path, dir_okay=False))
@_data
def install(root: Path, data: Path) -> None:
    """Take a signed root that names the next keys, and those keys, into use. The hub must be stopped.

    Hosts follow at their next sync; until then what runs there runs on.
    """
    from skerry.client.ceremony import read_bytes
    from skerry.hub.wiring.console import install_hub_root

    version = install_hub_root(data.absolute(), read_bytes(root))
    click.echo(f"root {version} and the new keys are in use; start the hub")
