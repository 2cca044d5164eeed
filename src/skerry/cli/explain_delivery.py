"""`skerry explain delivery`: how a release would come to a host, and why that way."""

from __future__ import annotations

from collections.abc import Iterator

import click

from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, now, plural
from skerry.delivery.relatives import MIN_BYTES
from skerry.kit.quantities import format_size
from skerry.spec.api_delivery import FileDelivery, HostDelivery


@click.command(epilog=examples("skerry explain delivery meter-reader@1.1.0 --host press-3"))
@click.argument("release")
@click.option("--host", required=True, help="The host it would come to.")
def delivery(release: str, host: str) -> None:
    """Say how each file of RELEASE would come to a host: by delta, compressed or in full, and why.

    By what the host last reported to run, and the deltas there are; the host decides by what it really holds.
    """
    with connect() as client:
        view = client.delivery(release, host)
    for line in delivery_sentences(view):
        click.echo(clean(line))


def delivery_sentences(view: HostDelivery) -> Iterator[str]:
    """Yield how a release would come to a host."""
    if view.reasons:
        yield f"{view.host} would fetch nothing of {view.release}:"
        yield from (f"  {reason}" for reason in view.reasons)
        return
    runs = f"runs {view.before}" if view.before else "runs no release of it"
    if view.as_of is None:
        yield f"{view.host} has not reported what it runs."
    else:
        yield f"As of {age(view.as_of, now())}, {view.host} {runs}."
    if view.here:
        yield f"{plural(view.here, 'file')} of {view.release} it has already."
    if view.files:
        less = f", in place of {format_size(view.full_bytes)}" if view.size_bytes < view.full_bytes else ""
        yield f"It would fetch {format_size(view.size_bytes)} for {plural(len(view.files), 'file')}{less}:"
    for file in sorted(view.files, key=lambda file: -file.way_bytes):
        yield f"  {file.owner}/{file.path} ({format_size(file.size_bytes)}): {_why(file)}"


def _why(file: FileDelivery) -> str:
    from_what = "what it replaces" if file.bases == 1 else f"the {file.bases} layers that it replaces"
    known = [
        f"{name} it would take {format_size(size)}"
        for name, size, way in (
            (f"by delta from {from_what}", file.delta_bytes, "delta"),
            ("compressed", file.compressed_bytes, "compressed"),
        )
        if size is not None and way != file.way
    ]
    said = {
        "delta": f"by delta from {from_what}, {format_size(file.way_bytes)}",
        "compressed": f"compressed, {format_size(file.way_bytes)}",
        "full": "in full",
    }[file.way]
    if not file.bases:
        is_small = file.size_bytes < MIN_BYTES
        known.append("too small for a delta" if is_small else "nothing that it has is related")
    elif file.delta_bytes is None:
        known.append("a delta is being made" if file.pending else "no delta was made yet")
    return "; ".join([said, *known])
