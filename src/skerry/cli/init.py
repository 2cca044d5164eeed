"""`skerry init`: a first Application out of what is there already, such as a Compose file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import click

from skerry.cli.output import format_data, output_option
from skerry.cli.text import clean, examples, plural
from skerry.client.compose.convert import Conversion, convert_compose
from skerry.client.compose.draft import Options
from skerry.client.compose.measures import convert_name
from skerry.client.compose.variables import Variables, parse_env_file, site_name
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.ids import is_name, is_version
from skerry.spec.parsing import decode_text
from skerry.spec.problems import DocumentRejected
from skerry.spec.yaml_tree import MAX_TEXT_BYTES


@click.command(
    epilog=examples(
        "skerry init --from-compose compose.yaml --name shop --version 1.0.0 --to release.yaml",
        "skerry init --from-compose compose.yaml --site-variable CAMERA_URL --dry-run",
    )
)
@click.option(
    "--from-compose",
    "source",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    help="The Compose file to start from.",
)
@click.option(
    "--name", default="", help="The application's name; else that of the Compose file or its folder."
)
@click.option("--version", default="", help="The application's version, 0.1.0 unless given.")
@click.option(
    "--image-source",
    type=click.Choice(("engine", "docker")),
    default="engine",
    show_default=True,
    help="Where a push finds the images: in the engine of this machine, or in their registries.",
)
@click.option(
    "--env-file",
    "env_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Values of variables; else .env.",
)
@click.option("--use-environment", is_flag=True, help="Take values of variables from this shell, too.")
@click.option(
    "--site-variable",
    "of_site",
    multiple=True,
    metavar="VAR",
    help="A variable each site gives its own value.",
)
@click.option("--keep-default-capabilities", is_flag=True, help="Keep the capabilities that Compose keeps.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Write the Application here, not to the screen."
)
@click.option("--force", is_flag=True, help="Replace the file that --to names.")
@click.option("--dry-run", is_flag=True, help="Say what would become of the file, and write nothing.")
@output_option("yaml", "json")
@click.pass_context
def init(
    context: click.Context, /, source: Path, target: Path | None, force: bool, dry_run: bool, **given: object
) -> None:
    """Turn a Compose file into an Application.

    What has no counterpart is refused, all at once and by its line; what is not kept as it was stands in a
    comment. `-o json` prints the document, the notes and the problems for programs.
    """
    options = _options(given, source)
    variables = _variables(given, source)
    text = decode_text(_content(source), file=_shown(source))
    made = convert_compose(text, variables, options, file=_shown(source))
    as_json = context.params.get("output") == "json"
    if as_json:
        told = {"document": made.document, "notes": made.notes, "problems": made.problems}
        click.echo(format_data(told, "json"))
        if made.problems:
            context.exit(Rejected("compose.refused", "").exit_code)
    if made.problems:
        raise DocumentRejected(made.problems)
    if dry_run:
        _tell(made, err=as_json)
    elif target is not None:
        _write(target, made.text, force=force)
        click.echo(f"{clean(str(target))} written, with {plural(len(made.notes), 'note')}", err=as_json)
    elif not as_json:
        click.echo(made.text, nl=False)


def _options(given: Mapping[str, object], source: Path) -> Options:
    name, version = str(given["name"]), str(given["version"])
    if name and not is_name(name):
        raise click.BadParameter(f"{name!r}: lower-case letters, digits and hyphens", param_hint="--name")
    if version and not is_version(version):
        raise click.BadParameter(f"{version!r}: letters, digits and . + _ -", param_hint="--version")
    folder = "" if str(source) == "-" else convert_name(source.absolute().parent.name)
    return Options(
        name=name,
        folder=folder,
        version=version,
        image_source=cast(Literal["engine", "docker"], given["image_source"]),
        keep_default_capabilities=bool(given["keep_default_capabilities"]),
    )


def _variables(given: Mapping[str, object], source: Path) -> Variables:
    of_site = cast(Sequence[str], given["of_site"])
    for name in of_site:
        try:
            site_name(name)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--site-variable") from None
    environment = dict(os.environ) if given["use_environment"] else {}
    files = list(cast(Sequence[Path], given["env_files"]))
    beside = source.parent / ".env"
    if not files and str(source) != "-" and beside.is_file():
        files = [beside]
    values: dict[str, str] = {}
    for file in files:
        try:
            values.update(
                parse_env_file(decode_text(_content(file), file=str(file)), {**values, **environment})
            )
        except ValueError as error:
            raise Rejected("compose.env_file", f"{file}: {error}") from None
    return Variables({**values, **environment}, frozenset(of_site))


def _shown(source: Path) -> str:
    return "stdin" if str(source) == "-" else str(source)


def _content(path: Path) -> bytes:
    """Return what a file holds, or its first part where it holds more than a text may."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise Rejected("compose.unreadable", f"{path}: {error.strerror}") from None


def _write(target: Path, text: str, *, force: bool) -> None:
    if target.exists() and not force:
        raise Conflict("compose.exists", f"{target} is there already", hint="replace it with --force")
    write_file(target, text.encode(), mode=0o644)


def _tell(made: Conversion, *, err: bool) -> None:
    names = [str(component["name"]) for component in made.document["spec"]["components"]]
    metadata, spec = made.document["metadata"], made.document["spec"]
    head = f"{metadata['name']}@{spec['version']} would have {plural(len(names), 'component')}: {', '.join(names)}"
    click.echo(clean(head), err=err)
    for note in made.notes:
        click.echo(clean(f"line {note.line}: {note.path}: {note.text}"), err=err)
