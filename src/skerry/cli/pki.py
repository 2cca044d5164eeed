"""`skerry pki`: who issues certificates, what was issued to whom, and a root that is kept away from the hub."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.output import Column, output_option, print_view, print_views
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time, now
from skerry.spec.api_pki import AuthorityView, IssuerView, PkiView


def _state(view: AuthorityView) -> str:
    if view.revoked_at is not None:
        return "revoked"
    if view.not_after <= now():
        return "run out"
    return "in use" if view.in_use else "superseded"


_issuers: tuple[Column[IssuerView], ...] = (
    Column("ROLE", lambda view: view.role),
    Column("ISSUES", lambda view: "now" if view.issues else "no"),
    Column("SUBJECT", lambda view: view.subject),
    Column("UNTIL", lambda view: local_time(view.not_after)),
    Column("SERIAL", lambda view: view.serial, 1),
)
_authorities: tuple[Column[AuthorityView], ...] = (
    Column("SITE", lambda view: view.site),
    Column("HOST", lambda view: view.host),
    Column("STATE", _state),
    Column("UNTIL", lambda view: local_time(view.not_after)),
    Column("RENEWED FROM", lambda view: local_time(view.renew_from), 1),
    Column("CERTIFICATES", lambda view: ", ".join(view.certificates) or "none", 2),
    Column("SERIAL", lambda view: view.serial, 3),
)
_path = click.Path(path_type=Path, dir_okay=False)


@click.group(epilog=examples("skerry pki list", "skerry pki bundle harbour --out harbour.pem"))
def pki() -> None:
    """Show certificates, and have them issued below a root kept elsewhere."""


@pki.command(epilog=examples("skerry pki show"))
@output_option("table", "json", "yaml", "name")
def show(output: str) -> None:
    """Show the roots that sites trust, and who issues to their hosts."""
    with connect() as client:
        view = client.pki()
    _print(view, output)


@pki.command("list", epilog=examples("skerry pki list", "skerry pki list --site harbour -o json"))
@click.option("--site", default="", metavar="SITE", help="Those of one site only.")
@output_option("table", "json", "yaml", "name")
def list_(site: str, output: str) -> None:
    """List hosts' intermediates, and what the hosts have issued with them."""
    with connect() as client:
        found = client.authorities(site)
    empty = "no host has asked for an intermediate yet"
    print_views(found, _authorities, output, name=lambda view: view.serial, empty=empty)


@pki.command(
    epilog=examples("skerry pki bundle harbour --out harbour.pem", "skerry pki bundle harbour --crls")
)
@click.argument("site")
@click.option("--crls", is_flag=True, help="Write the lists of what is revoked instead of the roots.")
@click.option("--out", type=_path, help="File to write; standard output if not given.")
def bundle(site: str, crls: bool, out: Path | None) -> None:
    """Print what verifies SITE's certificates from outside, PEM: give it to curl --cacert."""
    with connect() as client:
        found = client.trust_bundle(site)
    _write("".join(found.crls if crls else found.roots), out)


@pki.command(epilog=examples("skerry pki csr --out hub.csr"))
@click.option("--out", type=_path, help="File to write; standard output if not given.")
def csr(out: Path | None) -> None:
    """Have the hub ask for a certificate of its own, to be signed by a root kept elsewhere.

    The hub goes on with what it has until skerry pki import.
    """
    with connect() as client:
        found = client.request_issuer()
    _write(found.request, out)
    click.echo(f"next:              skerry pki sign HUB.CSR --root DIR --domain {found.domain}", err=True)


@pki.command(epilog=examples("skerry pki root /media/safe/root --name 'Example root'"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--name", default="Skerry root", show_default=True, help="Its name in certificates.")
def root(folder: Path, name: str) -> None:
    """Make a root in DIR, on the machine that keeps it. No hub is asked."""
    from skerry.client.pki_root import make_root_files

    found = make_root_files(folder, name, now())
    click.echo(clean(f"root {found.subject} is in {folder}, until {local_time(found.not_after)}"))
    click.echo(f"whoever has {folder / 'root.key'} can make certificates for every site: keep it offline")


@pki.command(
    epilog=examples("skerry pki sign hub.csr --root /media/safe/root --domain edge.example.com --out hub.pem")
)
@click.argument("request", type=_path)
@click.option(
    "--root", "folder", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The root."
)
@click.option("--domain", required=True, help="The domain that the hub may issue for, and no other.")
@click.option("--out", type=_path, help="File to write; standard output if not given.")
def sign(request: Path, folder: Path, domain: str, out: Path | None) -> None:
    """Sign what skerry pki csr printed, on the machine that keeps the root. No hub is asked."""
    from skerry.client.pki_root import read_request, sign_request

    _write(sign_request(folder, read_request(request), domain, now()), out)
    click.echo("next:              skerry pki import, where the hub can be reached", err=True)


@pki.command("import", epilog=examples("skerry pki import hub.pem --dry-run", "skerry pki import hub.pem"))
@click.argument("file", type=_path)
@click.option("--dry-run", is_flag=True, help="Check it, change nothing.")
@output_option("table", "json", "yaml", "name")
def import_(file: Path, dry_run: bool, output: str) -> None:
    """Have the hub issue with what a root has signed: FILE has the certificate, the root, and their lists, PEM.

    Sites trust the new root from their next contact on, and the old one until what it issued has run out.
    """
    from skerry.client.pki_root import read_request

    with connect() as client:
        view = client.install_issuer(read_request(file), dry_run=dry_run)
    if dry_run:
        print_view(view, [clean("it can be imported; nothing was changed")], output)
    else:
        _print(view, output)


def _print(view: PkiView, output: str) -> None:
    if output in ("json", "yaml"):
        print_view(view, [], output)
        return
    print_views(list(view.issuers), _issuers, output, name=lambda one: one.serial, empty="no issuer")
    if output != "name":
        waits = "; a request waits for skerry pki import" if view.requested else ""
        click.echo(f"\nnames of sites are below SITE.{view.domain}{waits}")


def _write(text: str, out: Path | None) -> None:
    from skerry.kit.durable import write_file

    if out is None:
        click.echo(text, nl=False)
    else:
        write_file(out, text.encode(), mode=0o644)
        click.echo(f"written to {out}", err=True)
