"""`skerry secret`: values that applications need and nobody else may read.

A value comes from a file, from standard input or from a prompt that shows nothing: never from an argument, which other
users of the machine could see. No command prints one.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from skerry.cli.output import Column, output_option, print_view, print_views
from skerry.cli.secret_before import as_before, request_like
from skerry.cli.secret_exposed import rotate_exposed
from skerry.cli.secret_forecast import forecast
from skerry.cli.secret_options import (
    changing_options,
    making_of,
    making_options,
    scope_options,
    shown_times,
    times_options,
)
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, local_time, now, plural
from skerry.kit.errors import Missing, Rejected
from skerry.matching.secrets import parse_scope, scope_text
from skerry.spec.api_secret import (
    ExposureView,
    MadeView,
    SecretAnswer,
    SecretRequest,
    SecretVersionView,
    SecretView,
)
from skerry.spec.secret import MAX_VALUE_BYTES

_views: tuple[Column[SecretView], ...] = (
    Column("NAME", lambda view: view.name),
    Column("VERSIONS", lambda view: str(len(view.versions))),
    Column("USED", lambda view: _numbers(view, "used")),
    Column("NEXT", lambda view: _numbers(view, "next"), 1),
    Column("USED BY", lambda view: ", ".join(view.used_by) or "nobody", 2),
)
_versions: tuple[Column[SecretVersionView], ...] = (
    Column("VERSION", lambda view: str(view.version)),
    Column("FOR", lambda view: view.scope),
    Column("STATE", lambda view: view.state),
    Column("FROM", lambda view: local_time(view.not_before) if view.not_before else "at once", 1),
    Column("EXPIRES", lambda view: local_time(view.expires_at) if view.expires_at else "never", 2),
    Column("MADE", lambda view: f"{age(view.created_at, now())} by {view.created_by}", 3),
    Column("KIND", lambda view: view.kind + (" at site" if view.at_site else ""), 4),
)
_made: tuple[Column[tuple[int, MadeView]], ...] = (
    Column("HOST", lambda view: view[1].host),
    Column("VERSION", lambda view: str(view[0])),
    Column("NUMBER", lambda view: str(view[1].round)),
    Column("STATE", lambda view: "used" if view[1].used else "next"),
    Column("FROM", lambda view: local_time(view[1].not_before) if view[1].not_before else "at once", 2),
    Column("MADE", lambda view: age(view[1].made_at, now()), 3),
    Column("AS OF", lambda view: age(view[1].reported_at, now()) if view[1].reported_at else "-", 4),
    Column("PUBLIC KEY", lambda view: view[1].public or "-", 1),
)
_exposures: tuple[Column[ExposureView], ...] = (
    Column("NAME", lambda view: view.name),
    Column("VERSION", lambda view: str(view.version)),
    Column("ROTATE", lambda view: "needed" if view.rotate_needed else "no"),
    Column("WHY", lambda view: view.why, 1),
    Column("SEALED", lambda view: age(view.sealed_at, now()), 2),
    Column("SITE", lambda view: view.site, 3),
)


@click.group(epilog=examples("skerry secret set db-password --from-file password", "skerry secret list"))
def secret() -> None:
    """Set, rotate and revoke secrets, and see which holds where."""


secret.add_command(forecast)
secret.add_command(rotate_exposed)


@secret.command(
    "set",
    epilog=examples(
        "skerry secret set db-password --from-file password",
        "skerry secret set db-password --selector region=north < password",
        "skerry secret set db-password --from-file new --not-before 2027-01-01T00:00:00Z",
    ),
)
@click.argument("name")
@click.option(
    "--from-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the value from this file, every byte of it; else from standard input.",
)
@scope_options
@times_options
@changing_options
def set_secret(name: str, from_file: Path | None, output: str, **said: Any) -> None:
    """Store a value of NAME: the first, or the next version.

    It holds at all sites, unless a site or a selector is named; a site gets the value that says most about it. With
    --not-before it travels ahead and is used from then on, whether there is a link or not.
    """
    value = base64.b64encode(_read_value(from_file)).decode()
    with connect() as client:
        _tell(client.add_secret_version(name, _asked(said, value=value)), output)


@secret.command(
    epilog=examples(
        "skerry secret generate api-key --kind random --length 48",
        "skerry secret generate door-code --kind random --alphabet digits --length 16",
        "skerry secret generate device-key --kind keypair --at-site --rotate-every 30d",
    )
)
@click.argument("name")
@making_options
@scope_options
@times_options
@changing_options
def generate(name: str, output: str, **said: Any) -> None:
    """Have a value made that nobody sees; of a pair of keys, the public half is shown.

    With --at-site each host that uses it makes a value of its own, which never leaves it. The hub has none of them;
    what hosts say of them is shown by skerry secret versions.
    """
    with connect() as client:
        request = _asked(
            said, generate=making_of(said), at_site=said["at_site"], rotate_every=said["rotate_every"]
        )
        _tell(client.add_secret_version(name, request), output)


@secret.command(
    epilog=examples(
        "skerry secret rotate db-password --from-file new-password --not-before 24h",
        "skerry secret rotate api-key --generate",
    )
)
@click.argument("name")
@click.option(
    "--from-file", type=click.Path(path_type=Path, dir_okay=False), help="As with skerry secret set."
)
@click.option("--generate", "anew", is_flag=True, help="Generate it anew, as the version before it.")
@scope_options
@times_options
@changing_options
def rotate(name: str, from_file: Path | None, anew: bool, output: str, **said: Any) -> None:
    """Store the next version of a secret that is there.

    Each application has the old value until it has the new one. The old one is used no more then; if somebody may have
    read it, revoke it as well.
    """
    if anew and from_file is not None:
        raise click.UsageError("write either --from-file or --generate")
    with connect() as client:
        before = _before(client.secret(name), said["site"], said["selector"])
        times = {key: said[name] for key, name in (("not_before", "not_before"), ("expires_at", "expires"))}
        times["dry_run"] = said["dry_run"]
        if anew:
            request = request_like(before, generate=as_before(name, before), **times)
        else:
            value = base64.b64encode(_read_value(from_file)).decode()
            request = request_like(before, value=value, **times)
        _tell(client.add_secret_version(name, request), output)


@secret.command(
    "list", epilog=examples("skerry secret list", "skerry secret list --exposed-by press-1 --rotate-needed")
)
@click.option(
    "--exposed-by", default="", metavar="HOST", help="What this host could read, also when it has gone."
)
@click.option("--rotate-needed", is_flag=True, help="Of that, only what is still in use.")
@output_option("table", "json", "yaml", "name")
def list_secrets(exposed_by: str, rotate_needed: bool, output: str) -> None:
    """List secrets, without their values."""
    if rotate_needed and not exposed_by:
        raise click.UsageError("write --exposed-by HOST with --rotate-needed")
    with connect() as client:
        if not exposed_by:
            views = client.secrets()
            print_views(views, _views, output, name=lambda view: view.name, empty="no secrets")
            return
        exposures = [view for view in client.exposures(exposed_by) if view.rotate_needed or not rotate_needed]
    print_exposures(exposures, exposed_by, output)


@secret.command(epilog=examples("skerry secret versions db-password"))
@click.argument("name")
@output_option("table", "json", "yaml")
def versions(name: str, output: str) -> None:
    """List the versions of NAME: for which sites each is, and whether it is used.

    Of what hosts make for themselves, it lists what they last said they have, with the public halves of pairs of keys.
    """
    with connect() as client:
        view = client.secret(name)
    print_views(view.versions, _versions, output, name=lambda one: str(one.version), empty="no versions")
    made = [(one.version, each) for one in view.versions for each in one.made]
    if output == "table" and any(one.at_site for one in view.versions):
        click.echo()
        print_views(
            made, _made, output, name=lambda one: one[1].host, empty="no host has told of a value yet"
        )


@secret.command(
    epilog=examples("skerry secret revoke db-password 3 --dry-run", "skerry secret revoke db-password 3")
)
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@click.option("--force", is_flag=True, help="Also when applications are left without a value.")
@changing_options
def revoke(name: str, version: int, *, force: bool, dry_run: bool, output: str) -> None:
    """Have VERSION of NAME used nowhere any more, for good: hosts wipe it when they next hear of it.

    Rotate it first: a version is not revoked where there is no other, unless by --force.
    """
    with connect() as client:
        answer = client.revoke_secret(name, version, dry_run=dry_run, force=force)
    done = "would be revoked" if dry_run else "is revoked"
    lines = [f"secret {name} version {version} {done}", *_reach(answer)]
    print_view(answer, [clean(line) for line in lines], output)


@secret.command(epilog=examples("skerry secret delete db-password"))
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def delete(name: str, dry_run: bool, yes: bool, output: str) -> None:
    """Forget NAME with all its versions; not while a release that sites are assigned uses it."""
    with connect() as client:
        view = client.secret(name)
        if not (dry_run or yes):
            if not sys.stdin.isatty():
                raise Rejected("secret.unconfirmed", "no terminal to ask on", hint="use --yes")
            click.confirm(f"Delete {plural(len(view.versions), 'version')} of {name}?", abort=True, err=True)
        if not dry_run:
            client.delete("secrets", name)
    print_view(view, [clean(f"secret {name} {'would be deleted' if dry_run else 'deleted'}")], output)


def print_exposures(exposures: list[ExposureView], host: str, output: str) -> None:
    """Print what a host could read."""
    empty = f"nothing that {host} could read"
    print_views(exposures, _exposures, output, name=lambda view: f"{view.name}@{view.version}", empty=empty)


def _read_value(file: Path | None) -> bytes:
    if file is not None:
        from skerry.client.ceremony import read_bytes

        value = read_bytes(file)
    elif sys.stdin.isatty():
        value = str(click.prompt("Value", hide_input=True, err=True)).encode()
    else:
        value = sys.stdin.buffer.read(MAX_VALUE_BYTES + 1)
    if not 0 < len(value) <= MAX_VALUE_BYTES:
        raise Rejected("secret.size", f"a value has 1 to {MAX_VALUE_BYTES} bytes")
    if value.endswith(b"\n"):
        click.echo("note: the value ends with a line break, which belongs to it", err=True)
    return value


def _asked(said: Mapping[str, Any], **what: Any) -> SecretRequest:
    return SecretRequest(
        site=said["site"],
        selector=said["selector"],
        not_before=said["not_before"],
        expires_at=said["expires"],
        dry_run=said["dry_run"],
        **what,
    )


def _before(view: SecretView, site: str, selector: str) -> SecretVersionView:
    """Return the newest version of what is named; where nothing is, of the only scope there is."""
    live = [one for one in view.versions if one.state != "revoked"]
    wanted = parse_scope(site=site, selector=selector)
    own = [one for one in live if parse_scope(site=one.site, selector=one.selector) == wanted]
    if not own and not (site or selector) and len({one.scope for one in live}) == 1:
        own = live
    if not own:
        hint = "skerry secret set stores a first value for sites"
        raise Missing("secret.missing", f"{view.name} has no value for {scope_text(wanted)}", hint=hint)
    return own[-1]


def _tell(answer: SecretAnswer, output: str) -> None:
    done = "ordered from the hosts" if answer.version.at_site else "stored"
    stored = f"would be {done}" if answer.dry_run else f"is {done}"
    lines = [
        f"secret {answer.name} version {answer.version.version} {stored}, for {answer.version.scope}",
        *shown_times(answer.version),
        *([f"public key: {answer.version.public}"] if answer.version.public and not answer.dry_run else []),
        *_reach(answer),
    ]
    print_view(answer, [clean(line) for line in lines], output)


def _reach(answer: SecretAnswer) -> list[str]:
    if not answer.sites:
        return ["no application that sites are assigned uses it there"]
    told = ", ".join(answer.sites[:10]) + (" ..." if len(answer.sites) > 10 else "")
    return [f"{plural(len(answer.sites), 'site')} affected: {told}"]


def _numbers(view: SecretView, state: str) -> str:
    return ", ".join(str(one.version) for one in view.versions if one.state == state) or "none"
