"""`skerry publisher`: who may sign releases, and with which keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from tuf.api.metadata import Targets

from skerry.cli.output import Column, output_option, print_view, print_views
from skerry.cli.publisher_keys import PublisherKeys, choose_keys, noting
from skerry.cli.session import connect
from skerry.cli.signing_options import (
    asking,
    choose_author,
    new_passphrase,
    open_hub,
    passphrase_option,
    revocation_options,
    signer_option,
)
from skerry.cli.text import clean, examples, now, plural, until
from skerry.client.delegating import (
    Signers,
    check_new_publisher,
    sign_new_publisher,
    sign_publisher_revocation,
    sign_rotation,
)
from skerry.client.key_files import KeyKind, make_key_pair, public_path
from skerry.client.publishing import Publishing, Roles, check_signers, publish_metadata
from skerry.client.resending import find_lost
from skerry.client.resending import resend as send_lost
from skerry.client.signing import open_signers
from skerry.kit.errors import Rejected
from skerry.spec.publishing import PublisherView, Revocation, Running
from skerry.trust.publishers import Holders, Shelf
from skerry.trust.repository import read_as

Command = TypeVar("Command", bound=Callable[..., object])

_targets_help = "An offline key of the hub's targets role"


class KeyMade(msgspec.Struct, frozen=True):
    """A key pair that was made."""

    file: str
    public: str
    id: str


class Signed(msgspec.Struct, frozen=True):
    """What was signed and taken by the hub, or in a dry run would be: versions by role."""

    publisher: str
    roles: dict[str, int]
    dry_run: bool = False
    keys: tuple[str, ...] = ()
    signs_here: bool = False


@click.group(
    epilog=examples(
        "skerry publisher add acme --signer targets.pem",
        "skerry publisher list",
        "skerry publisher key acme.pem",
    )
)
def publisher() -> None:
    """Say who may sign releases, and with which keys."""


@publisher.command(
    epilog=examples("skerry publisher key acme.pem", "skerry publisher key acme.pem --type ecdsa")
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "kind",
    type=click.Choice(["ed25519", "ecdsa"]),
    default="ed25519",
    show_default=True,
    help="The kind of key; ecdsa is P-256.",
)
@passphrase_option
@output_option("table", "json", "yaml")
def key(file: Path, kind: KeyKind, passphrase_file: Path | None, output: str) -> None:
    """Make a key pair: FILE, which is private, and FILE.pub.

    With --passphrase-file the private key is encrypted. No hub is asked, and nothing is overwritten.
    """
    made = make_key_pair(file, kind, passphrase=new_passphrase(passphrase_file))
    view = KeyMade(str(file), str(public_path(file)), made.keyid)
    lines = [f"private key in {view.file}, public key in {view.public}", f"key id {view.id}"]
    print_view(view, [clean(line) for line in lines], output)


def _public_keys(what: str) -> Callable[[Command], Command]:
    """Return the options that say whose signatures count for a publisher."""

    def decorate(command: Command) -> Command:
        keys = click.option(
            "--key",
            "keys",
            multiple=True,
            metavar="PUB",
            type=click.Path(path_type=Path),
            help=f"{what}; repeatable. Without one, a key pair is made on this machine.",
        )
        threshold = click.option(
            "--threshold",
            type=click.IntRange(1, 100),
            default=1,
            show_default=True,
            help="How many of the keys have to sign.",
        )
        return keys(threshold(command))

    return decorate


@publisher.command(
    epilog=examples(
        "skerry publisher add acme --signer targets.pem",
        "skerry publisher add acme --key one.pub --key two.pub --key three.pub --threshold 2 --signer targets.pem",
    )
)
@click.argument("name")
@_public_keys("A public key of the publisher")
@signer_option(_targets_help, required=True)
@signer_option("A key of the publisher itself, to sign its first, empty list of releases", "own")
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Verify everything and say what would be signed; sign nothing.")
@output_option("table", "json", "yaml")
def add(
    name: str,
    signers: tuple[str, ...],
    passphrase_file: Path | None,
    dry_run: bool,
    output: str,
    **given: object,
) -> None:
    """Let the publisher NAME sign releases: those below releases/NAME/, and no others.

    Without --key a key pair is made beside the login, and signs what is pushed from here. A --passphrase-file
    protects that key as well.
    """
    ask, choice = asking(passphrase_file), PublisherKeys.of(name, given)
    with open_hub() as session:
        believed = session.repository.refresh()
        check_new_publisher(believed, name)
        targets = open_signers(signers, ask)
        check_signers(targets, believed.targets_holders(), "the targets role")
        if dry_run:
            _print_dry(name, {"targets": believed.targets.version + 1}, output)
            return
        chosen = choose_keys(session.files, choice, new_passphrase(passphrase_file), ask)
        both = Signers(targets, chosen.signers)
        with noting(session.files, name, chosen.names):
            roles = publish_metadata(
                session.client,
                session.repository,
                lambda seen: sign_new_publisher(seen, name, chosen.holders, both),
            )
    _print_signed(name, roles, chosen.holders, bool(chosen.names), output)


@publisher.command("list", epilog=examples("skerry publisher list"))
@output_option("table", "json", "yaml", "name")
def list_publishers(output: str) -> None:
    """List the publishers: how many keys they have, and until when what they signed holds."""
    with connect() as client:
        views = client.publishers()
    print_views(
        views, _columns(now()), output, name=lambda view: f"publisher/{view.name}", empty="no publishers"
    )


@publisher.command(
    epilog=examples(
        "skerry publisher rotate acme --key new.pem.pub --publisher-signer new.pem --signer targets.pem"
    )
)
@click.argument("name")
@_public_keys("A public key that signs from now on")
@signer_option(_targets_help, required=True)
@signer_option("A new key of the publisher, which signs everything anew", "own")
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Verify everything and say what would be signed; sign nothing.")
@output_option("table", "json", "yaml")
def rotate(
    name: str,
    signers: tuple[str, ...],
    passphrase_file: Path | None,
    dry_run: bool,
    output: str,
    **given: object,
) -> None:
    """Put other keys of the publisher NAME in the place of the present ones.

    Everything the publisher vouches for is signed anew by the new keys and goes to the hub with them; the old keys are
    worth nothing from then on.
    """
    ask, choice = asking(passphrase_file), PublisherKeys.of(name, given, rotating=True)
    with open_hub() as session:
        believed = session.repository.refresh()
        believed.delegation(name)
        targets = open_signers(signers, ask)
        check_signers(targets, believed.targets_holders(), "the targets role")
        if dry_run:
            versions = {"targets": believed.targets.version + 1, **_next_version(believed.shelf(name))}
            _print_dry(name, versions, output)
            return
        chosen = choose_keys(session.files, choice, new_passphrase(passphrase_file), ask)
        if len(chosen.signers) < chosen.holders.threshold:
            hint = "name the new private keys with --publisher-signer"
            message = "everything has to be signed anew by the new keys, and too few of them are here"
            raise Rejected("signing.too_few", message, hint=hint)
        both = Signers(targets, chosen.signers)
        with noting(session.files, name, chosen.names):
            roles = publish_metadata(
                session.client,
                session.repository,
                lambda seen: sign_rotation(seen, name, chosen.holders, both),
            )
    _print_signed(name, roles, chosen.holders, bool(chosen.names), output)


@publisher.command(
    epilog=examples('skerry publisher revoke acme --why "their key was stolen" --signer targets.pem')
)
@click.argument("name")
@revocation_options
@signer_option(_targets_help, required=True)
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Verify everything and say what would be signed; sign nothing.")
@output_option("table", "json", "yaml")
def revoke(
    name: str,
    why: str,
    running: Running,
    signers: tuple[str, ...],
    passphrase_file: Path | None,
    **how: object,
) -> None:
    """Trust the publisher NAME no more, for good: no host takes any of its releases from then on."""
    output = str(how["output"])
    with open_hub() as session:
        believed = session.repository.refresh()
        believed.delegation(name)
        targets = open_signers(signers, asking(passphrase_file))
        check_signers(targets, believed.targets_holders(), "the targets role")
        if how["dry_run"]:
            _print_dry(name, {"targets": believed.targets.version + 1}, output)
            return
        revocation = Revocation(why=why, at=now(), running=running)
        roles = publish_metadata(
            session.client,
            session.repository,
            lambda seen: sign_publisher_revocation(seen, name, revocation, targets),
        )
        session.files.set_publisher(name, ())
    view = Signed(name, _versions(roles))
    print_view(view, [clean(f"publisher {name} is revoked; targets {view.roles['targets']}")], output)


@publisher.command(epilog=examples("skerry publisher renew acme"))
@click.argument("name")
@signer_option("A key of the publisher, if not the one this machine knows")
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Verify everything and say who would sign; sign nothing.")
@output_option("table", "json", "yaml")
def renew(
    name: str, signers: tuple[str, ...], passphrase_file: Path | None, dry_run: bool, output: str
) -> None:
    """Sign everything of the publisher NAME anew, with an expiry two years from now."""
    with open_hub() as session:
        author = choose_author(session, name, signers, asking(passphrase_file))
        publishing = Publishing(session.client, session.repository, author)
        holders = publishing.check()
        if dry_run:
            _print_dry(name, _next_version(session.repository.refresh().shelf(name)), output)
            return
        roles = publishing.renew()
    _print_signed(name, roles, holders, True, output)


@publisher.command(epilog=examples("skerry publisher resend acme --dry-run", "skerry publisher resend acme"))
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what the hub lacks, send nothing.")
@output_option("table", "json", "yaml")
def resend(name: str, dry_run: bool, output: str) -> None:
    """Give a hub that was restored from an older backup what it has lost of the publisher NAME's signatures.

    Nothing is signed: it sends what was signed or verified on this machine and is newer than what the hub holds.
    Releases whose files are lost, too, are pushed again afterwards.
    """
    with open_hub() as session:
        lost = find_lost(session.client, session.files, name)
        if not dry_run:
            send_lost(session.client, lost)
    view = Signed(name, lost.versions, dry_run)
    done = "would be sent" if dry_run else "sent"
    lines = [f"{role} {version} {done}" for role, version in view.roles.items()]
    print_view(
        view, [clean(line) for line in lines or ["the hub lacks nothing of what is known here"]], output
    )


def _print_signed(name: str, roles: Roles, holders: Holders, signs_here: bool, output: str) -> None:
    keys = tuple(key.keyid for key in holders.keys)
    view = Signed(name, _versions(roles), keys=keys, signs_here=signs_here)
    who = f"{plural(holders.threshold, 'signature')} of {plural(len(keys), 'key')}"
    lines = [f"publisher {name} signs with {who}", *(f"  key {key[:16]}" for key in keys)]
    lines += [f"signed and sent: {role} {version}" for role, version in _few(view.roles)]
    if signs_here:
        lines.append("releases pushed from here are signed by it: skerry release push FILE")
    print_view(view, [clean(line) for line in lines], output)


def _print_dry(name: str, versions: dict[str, int], output: str) -> None:
    lines = [f"{role} {version} would be signed and sent" for role, version in versions.items()]
    print_view(Signed(name, versions, dry_run=True), [clean(line) for line in lines], output)


def _next_version(shelf: Shelf) -> dict[str, int]:
    held = shelf.read(shelf.role)
    return {shelf.role: held.version + 1 if held else 1}


def _few(versions: dict[str, int]) -> Sequence[tuple[str, int]]:
    """Return the roles but bins, of which there are many."""
    return [(role, version) for role, version in versions.items() if not role.startswith("bin-")]


def _versions(roles: Roles) -> dict[str, int]:
    return {role.role: int(read_as(role.content, Targets).signed.version) for role in roles}


def _columns(at: datetime) -> list[Column[PublisherView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("STATE", lambda v: "revoked" if v.revoked else "trusted"),
        Column("KEYS", lambda v: "" if v.revoked else f"{v.threshold} of {len(v.keys)}"),
        Column("RELEASES", lambda v: str(v.releases)),
        Column("EXPIRES", lambda v: until(v.expires_at, at) if v.expires_at else "", 1),
        Column("WHY", lambda v: v.revoked.why if v.revoked else "", 2),
    ]
