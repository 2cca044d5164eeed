"""What commands that sign share: who signs, passphrases, and the hub's metadata as this machine believes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from skerry.cli.invocation import current
from skerry.cli.text import clean, now
from skerry.client.client import Client
from skerry.client.connection import fetch_trust_root
from skerry.client.hub_files import HubFiles
from skerry.client.key_files import read_passphrase
from skerry.client.profile import choose_context, profile_path
from skerry.client.publishing import Author
from skerry.client.signing import AskSecret, KeyFileSigner, RoleSigner, open_signers, same_key
from skerry.client.trusting import Believed, HubRepository
from skerry.kit.errors import Rejected
from skerry.trust.repository import publishers_of

Command = TypeVar("Command", bound=Callable[..., Any])

KEY_METAVAR = "KEY"
_how = "a key file, a URI such as hsm:2, or command:PROGRAM; repeatable."


class HubSession(msgspec.Struct, frozen=True):
    """One hub: its API, and its metadata as it was verified here."""

    client: Client
    repository: HubRepository

    @property
    def files(self) -> HubFiles:
        """What this machine keeps of the hub."""
        return self.repository.files


def signer_option(
    help: str, name: str = "signers", *, required: bool = False
) -> Callable[[Command], Command]:
    """Return the option `--signer`."""
    flag = "--signer" if name == "signers" else "--publisher-signer"
    return click.option(
        flag, name, multiple=True, required=required, metavar=KEY_METAVAR, help=f"{help}: {_how}"
    )


def passphrase_option(command: Command) -> Command:
    """Return the command with the option `--passphrase-file`."""
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        envvar="SKERRY_KEY_PASSPHRASE_FILE",
        show_envvar=True,
        help="A file with the passphrase, or PIN, of keys; asked for on the terminal if not given.",
    )(command)


def revocation_options(command: Command) -> Command:
    """Return the command with the options that say why something is revoked, and what becomes of what runs."""
    running = click.option(
        "--running",
        type=click.Choice(["keep", "replace", "stop"]),
        default="keep",
        show_default=True,
        help="What hosts do that run it: run on, go back to the good release before, or end it.",
    )
    return click.option("--why", required=True, metavar="TEXT", help="Why; hosts and people are told.")(
        running(command)
    )


def asking(passphrase_file: Path | None) -> AskSecret:
    """Return who is asked for passphrases and PINs: a file, or the person at the terminal."""

    def ask(what: str) -> str:
        if passphrase_file is not None:
            return read_passphrase(passphrase_file)
        if not sys.stdin.isatty():
            hint = "name a file with --passphrase-file or SKERRY_KEY_PASSPHRASE_FILE"
            raise Rejected("key.no_passphrase", f"no terminal to ask: {what}", hint=hint)
        return str(click.prompt(clean(what), hide_input=True, err=True))

    return ask


def new_passphrase(passphrase_file: Path | None) -> str:
    """Return the passphrase for a key that is made: empty where none was named."""
    return "" if passphrase_file is None else read_passphrase(passphrase_file)


@contextmanager
def open_hub() -> Generator[HubSession]:
    """Open the hub of this run.

    Raises:
        Rejected: nobody is logged in.
        Untrusted: the hub is not the one that was meant.
    """
    chosen = choose_context(os.environ, current().context)
    if not (chosen.ca_pem and chosen.hub_id and chosen.metadata_root):
        root = fetch_trust_root(chosen.hub, chosen.root)
        chosen = msgspec.structs.replace(
            chosen, ca_pem=root.ca_pem, hub_id=root.hub, metadata_root=root.root_bytes.decode()
        )
    files = HubFiles(profile_path(os.environ), chosen.hub_id)
    with Client(chosen.hub, ca_pem=chosen.ca_pem, token=chosen.token) as client:
        yield HubSession(client, HubRepository(files, chosen.metadata_root.encode(), client.metadata, now))


def choose_author(session: HubSession, publisher: str, signers: Sequence[str], ask: AskSecret) -> Author:
    """Return the publisher to sign for, and who signs: as named, or as this machine knows.

    Raises:
        Rejected: nobody is named, and there is not exactly one to choose (`publisher.unnamed`, `publisher.no_key`).
    """
    known = session.files.publishers()
    opened = open_signers(signers, ask)
    publisher = publisher or _only(known) or _of_keys(session.repository.refresh(), opened)
    if not opened:
        if publisher not in known:
            hint = f"name its key with --signer, or have one made: skerry publisher add {publisher}"
            raise Rejected("publisher.no_key", f"no key of publisher {publisher} is known here", hint=hint)
        opened = open_signers(known[publisher], ask)
    return Author(publisher, opened)


def _only(known: dict[str, tuple[str, ...]]) -> str:
    return next(iter(known)) if len(known) == 1 else ""


def _of_keys(believed: Believed, signers: Sequence[RoleSigner]) -> str:
    """Return the one publisher there is, or the one for whom these keys sign."""
    names = sorted(publishers_of(believed.targets))
    if not names:
        hint = "let one sign with: skerry publisher add NAME --signer TARGETS_KEY"
        raise Rejected(
            "publisher.none", "this hub has no publisher yet, so nobody can sign releases", hint=hint
        )
    held = [signer.public for signer in signers if isinstance(signer, KeyFileSigner)]
    fitting = [
        name
        for name in names
        if held and all(any(same_key(key, own) for own in believed.holders(name).keys) for key in held)
    ]
    chosen = fitting if len(fitting) == 1 else names
    if len(chosen) > 1:
        hint = f"name one with --publisher: {', '.join(names)}"
        raise Rejected("publisher.unnamed", "there are several publishers", hint=hint)
    return chosen[0]
