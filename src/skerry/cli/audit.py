"""`skerry audit`: who did what, and whether anybody has changed what is written of it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from skerry.cli.output import Column, format_data, output_option, print_views
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time, plural
from skerry.client.client import Client
from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.errors import Rejected
from skerry.spec.api import AuditView
from skerry.spec.audit import AuditHead
from skerry.trust.chain import AuditCheck, ChainHead, Flaw

PAGE = 1000
MAX_ANCHOR_BYTES = 64 << 10

_columns: tuple[Column[AuditView], ...] = (
    Column("NUMBER", lambda view: str(view.id), 2),
    Column("AT", lambda view: local_time(view.at)),
    Column("WHO", lambda view: view.who),
    Column("ACTION", lambda view: view.action),
    Column("SUBJECT", lambda view: view.subject),
    Column("OUTCOME", lambda view: view.outcome, 1),
    Column("DECISION", lambda view: view.decision, 3),
    Column("WHY", lambda view: view.why, 2),
)


class Audited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of checking an audit: how many entries, the first and the last of them, and what is wrong."""

    entries: int
    first: int
    head: ChainHead
    anchors: int
    flaws: tuple[Flaw, ...] = ()


@click.group(epilog=examples("skerry audit head > head.json", "skerry audit verify --anchor head.json"))
def audit() -> None:
    """See who did what, and check that nobody has changed what is written of it."""


@audit.command("list", epilog=examples("skerry audit list --limit 20"))
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@output_option("table", "json", "yaml")
def list_audit(limit: int, output: str) -> None:
    """List who did what, the newest first."""
    with connect() as client:
        views = client.audit(limit=limit)
    print_views(views, _columns, output, name=lambda view: str(view.id), empty="nothing yet")


@audit.command(epilog=examples("skerry audit head > head.json"))
def head() -> None:
    """Print the newest entry's number and digest as JSON, to be kept where nobody of the hub can write.

    Entries that are altered, cut off or written anew later are found by `skerry audit verify --anchor`.
    """
    with connect() as client:
        found = client.audit_head()
    click.echo(encode_canonical(found).decode())


@audit.command(
    epilog=examples("skerry audit verify", "skerry audit verify --anchor head.json --anchor older.json")
)
@click.option(
    "--anchor",
    "anchors",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    multiple=True,
    help="What `skerry audit head` printed before; repeatable.",
)
@output_option("table", "json", "yaml")
@click.pass_context
def verify(context: click.Context, anchors: tuple[Path, ...], output: str) -> None:
    """Check every entry that the hub has; the exit code is 1 if one was altered, left out or put in.

    The entries are checked here, not by the hub. Whoever can write to the hub's database can write all of it anew, or
    cut off the newest entries with the note of which was the newest: that is found with an anchor alone.
    """
    kept = [_read_anchor(path) for path in anchors]
    with connect() as client:
        found = check_audit(client, [ChainHead(one.number, one.digest) for one in kept])
    if output in ("json", "yaml"):
        click.echo(format_data(found, output))
    else:
        for flaw in found.flaws:
            click.echo(clean(f"{flaw.code}: {flaw.message}"))
        click.echo(_summary(found))
    context.exit(1 if found.flaws else 0)


def _summary(found: Audited) -> str:
    if not found.entries:
        return "no entries"
    well = plural(len(found.flaws), "flaw")
    if not found.flaws:
        kept = f", and {plural(found.anchors, 'anchor')} found as kept" if found.anchors else ""
        well = f"each follows on the one before{kept}"
    return f"entries {found.first} to {found.head.number}: {well}"


def check_audit(client: Client, anchors: list[ChainHead]) -> Audited:
    """Fetch and check all entries."""
    told = client.audit_head()
    check = AuditCheck(ChainHead(told.number, told.digest), anchors)
    after = 0
    while page := client.audit_entries(after=after, limit=PAGE):
        if page[-1].number <= after:
            break  # a hub that answers in circles; what follows is missing, and that is told
        check.add(page)
        after = page[-1].number
    flaws = check.conclude()
    first = check.base.number + 1 if check.entries else 0
    return Audited(entries=check.entries, first=first, head=check.head, anchors=len(anchors), flaws=flaws)


def _read_anchor(path: Path) -> AuditHead:
    hint = "give what `skerry audit head` printed"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ANCHOR_BYTES)
        return msgspec.json.decode(raw, type=AuditHead)
    except OSError as error:
        raise Rejected(
            "audit.anchor_unreadable", f"{path} cannot be read: {error.strerror}", hint=hint
        ) from None
    except UNREADABLE as error:
        message = f"{path} is no head of an audit: {error}"
        raise Rejected("audit.anchor_unreadable", message, hint=hint) from None
