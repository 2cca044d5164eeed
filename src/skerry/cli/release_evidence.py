"""`skerry release evidence`: what a release proves of itself, and the files that say so."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skerry.cli.output import Column, output_option, print_views
from skerry.cli.proofs import summary_of
from skerry.cli.session import connect
from skerry.cli.text import clean, examples
from skerry.client.evidence import download_evidence
from skerry.kit.digests import short
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.kit.quantities import format_size
from skerry.spec.evidence import EVIDENCE_KINDS, Evidence

_columns = (
    Column[Evidence]("KIND", lambda e: e.kind),
    Column[Evidence]("FORMAT", lambda e: e.format),
    Column[Evidence]("SIZE", lambda e: format_size(e.size_bytes), 2),
    Column[Evidence]("DIGEST", lambda e: short(e.digest), 1),
    Column[Evidence]("SAYS", summary_of),
)


@click.command(
    epilog=examples(
        "skerry release evidence meter-reader@1.1.0",
        "skerry release evidence meter-reader@1.1.0 --kind sbom --out sbom.json",
    )
)
@click.argument("name", metavar="RELEASE")
@click.option("--kind", type=click.Choice(EVIDENCE_KINDS), help="Only evidence of this kind.")
@click.option("--digest", default="", metavar="HEX", help="Only the file whose digest begins so.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Download the one that is left to this file; - prints it."
)
@output_option("table", "json", "yaml")
def evidence(name: str, kind: str | None, digest: str, out: Path | None, output: str) -> None:
    """List what RELEASE carries as evidence, or download a file of it."""
    with connect() as client:
        found = [
            one
            for one in client.release(name).evidence
            if kind in (None, one.kind) and one.digest.startswith(f"sha256:{digest.removeprefix('sha256:')}")
        ]
        if out is None:
            print_views(found, _columns, output, name=lambda e: e.digest, empty="no evidence")
            return
        one = _only(found, name)
        content = download_evidence(client, name, one)
    if str(out) == "-":
        sys.stdout.buffer.write(content)
        return
    if out.exists():
        raise Conflict("file.exists", f"{out} is there already", hint="name another file")
    try:
        write_file(out, content)
    except OSError as error:
        raise Rejected("file.unwritable", f"{out}: {error.strerror}") from None
    click.echo(clean(f"{out}: the {one.kind} of {name} ({format_size(len(content))})"))


def _only(found: list[Evidence], release: str) -> Evidence:
    if not found:
        raise Missing("evidence.missing", f"{release} carries no such evidence")
    if len(found) > 1:
        hint = f"choose with --kind and --digest: {', '.join(f'{e.kind} {short(e.digest)}' for e in found)}"
        raise Rejected("evidence.ambiguous", f"{release} carries {len(found)} of these", hint=hint)
    return found[0]
