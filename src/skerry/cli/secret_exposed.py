"""`skerry secret rotate-exposed`: rotates everything that a lost host could read, in one go."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import click

from skerry.cli.output import Column, output_option, print_views
from skerry.cli.secret_before import as_before, newest_of, request_like
from skerry.cli.session import connect
from skerry.cli.text import examples
from skerry.client.client import Client
from skerry.kit.errors import Rejected
from skerry.spec.api_secret import SecretRequest, SecretVersionView
from skerry.spec.metadata import Part
from skerry.spec.secret import MAX_VALUE_BYTES


class Rotation(Part, frozen=True, kw_only=True):
    """What became of a secret that a host could read; `version` is None while it still needs a value."""

    name: str
    scope: str
    version: int | None = None
    why: str = ""


_columns: tuple[Column[Rotation], ...] = (
    Column("NAME", lambda one: one.name),
    Column("FOR", lambda one: one.scope, 1),
    Column("NEXT VERSION", lambda one: str(one.version) if one.version is not None else "none"),
    Column("WHY", lambda one: one.why),
)


@click.command(
    "rotate-exposed",
    epilog=examples(
        "skerry secret rotate-exposed press-1 --dry-run",
        "skerry secret rotate-exposed press-1 --from-dir next-values",
    ),
)
@click.argument("host")
@click.option(
    "--from-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the next values are of what was set: one file for each, named as the secret.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@output_option("table", "json", "yaml")
@click.pass_context
def rotate_exposed(
    context: click.Context, host: str, from_dir: Path | None, *, dry_run: bool, output: str
) -> None:
    """Rotate everything that HOST could read and that is in use; also when the host has gone.

    What was generated is generated anew. What was set needs its next value: a file in --from-dir. The exit code is 1
    while something still needs one; run it again with that.
    """
    if from_dir is not None and not from_dir.is_dir():
        raise Rejected("secret.no_folder", f"there is no directory {from_dir}")
    with connect() as client:
        done = list(_rotate(client, host, from_dir, dry_run=dry_run))
    empty = f"nothing that {host} could read is in use"
    print_views(done, _columns, output, name=lambda one: one.name, empty=empty)
    context.exit(1 if any(one.version is None for one in done) else 0)


def _rotate(client: Client, host: str, folder: Path | None, *, dry_run: bool) -> Iterator[Rotation]:
    exposed: dict[str, set[int]] = {}
    for one in client.exposures(host):
        if one.rotate_needed:
            exposed.setdefault(one.name, set()).add(one.version)
    for name, numbers in exposed.items():
        versions = client.secret(name).versions
        # One next version for each place where a value holds, and not one for each that was exposed.
        scopes = {one.scope: newest_of(versions, one) for one in versions if one.version in numbers}
        for scope, before in scopes.items():
            request, why = _next(name, before, folder, alone=len(scopes) == 1, dry_run=dry_run)
            if request is None:
                yield Rotation(name=name, scope=scope, why=why)
                continue
            answer = client.add_secret_version(name, request)
            done = "would be stored" if dry_run else "is stored"
            yield Rotation(name=name, scope=scope, version=answer.version.version, why=f"{why}, and {done}")


def _next(
    name: str, before: SecretVersionView, folder: Path | None, *, alone: bool, dry_run: bool
) -> tuple[SecretRequest | None, str]:
    """Return what to ask for, None when a person has to say; and how it comes about, or what is needed."""
    if before.kind != "set":
        return request_like(before, generate=as_before(name, before), dry_run=dry_run), "it is generated anew"
    if not alone:
        return None, f"it has several values: skerry secret rotate {name}, for each"
    file = folder / name if folder is not None else None
    if file is None or not file.is_file():
        return None, f"it was set: it needs a value, from a file named {name} in --from-dir"
    from skerry.client.ceremony import read_bytes

    value = read_bytes(file)
    if not 0 < len(value) <= MAX_VALUE_BYTES:
        raise Rejected("secret.size", f"{file}: a value has 1 to {MAX_VALUE_BYTES} bytes")
    request = request_like(before, value=base64.b64encode(value).decode(), dry_run=dry_run)
    return request, f"it is taken from {file}"
