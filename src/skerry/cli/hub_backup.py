"""`skerry hub backup`, `restore`, `backup-key` and `doctor`: keep a hub, bring it back, and look it over.

No secret is ever an argument: a passphrase comes from a file, standard input or the terminal.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from skerry.cli.output import output_option, print_view
from skerry.cli.text import age, clean, colour, examples, local_time, now, plural
from skerry.kit.errors import Conflict, Rejected, Unavailable
from skerry.kit.quantities import format_size
from skerry.spec.backup import BackupManifest, BackupView, DoctorView, RestoreView

MAX_SECRET_BYTES = 4096
SITES_SHOWN = 20
EXIT_FAIL = 1

R = TypeVar("R")

_file = click.Path(path_type=Path, dir_okay=False)
_data = click.Path(path_type=Path, file_okay=False)


class _Secret(NamedTuple):
    """Where the secret comes from that locks or opens a backup; `key` is a public key, or the file of a private one."""

    file: Path | None
    stdin: bool
    key: str

    def passphrase(self, *, confirm: bool) -> str:
        """Read the passphrase.

        Raises:
            Rejected: none is given, or it is no text.
        """
        return _passphrase(self.file, stdin=self.stdin, confirm=confirm)


def _secret_options(key: str, metavar: str, text: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return the options that say how a backup is locked, handed over as one `secret`."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def run(*, passphrase_file: Path | None, passphrase_stdin: bool, key: str, **rest: object) -> R:
            if sum((passphrase_file is not None, passphrase_stdin, bool(key))) > 1:
                raise click.UsageError("A backup is locked in one way: give one of these options.")
            return command(secret=_Secret(passphrase_file, passphrase_stdin, key), **rest)

        run = click.option(key, "key", default="", metavar=metavar, help=text)(run)
        run = click.option(
            "--passphrase-stdin", is_flag=True, help="Read the passphrase from standard input."
        )(run)
        return click.option("--passphrase-file", type=_file, help="Read the passphrase from a file.")(run)

    return decorate


@click.command(
    epilog=examples(
        "skerry hub backup /mnt/backups/hub.backup --data /var/lib/skerry --passphrase-file /etc/skerry/passphrase",
        "skerry hub backup hub.backup --data /var/lib/skerry --recipient 3q2+7w...=",
    )
)
@click.argument("file", type=_file)
@click.option("--data", type=_data, required=True, help="Data directory of the hub.")
@_secret_options("--recipient", "PUBLICKEY", "Lock it with a key of hub backup-key.")
@click.option(
    "--with-blobs/--no-blobs", "blobs", default=True, show_default=True, help="With the files of releases."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@output_option("table", "json", "yaml")
def backup(file: Path, data: Path, *, secret: _Secret, blobs: bool, force: bool, output: str) -> None:
    """Write everything that a hub is made of to one locked file; works while the hub serves.

    With --recipient this machine can write backups and not read them.
    """
    from skerry.hub.wiring.console import back_up
    from skerry.trust.backup import Lock

    lock = Lock(recipient=secret.key) if secret.key else Lock(passphrase=secret.passphrase(confirm=True))
    view = back_up(
        data.absolute(), file.absolute(), lock, blobs=blobs, force=force, tell=_teller("backed up")
    )
    print_view(view, _backup_lines(view), output)


@click.command(epilog=examples("skerry hub restore hub.backup --data /var/lib/skerry"))
@click.argument("file", type=_file)
@click.option("--data", type=_data, help="Directory to restore into: an empty one, or one that is not there.")
@_secret_options("--identity-file", "FILE", "Private key, if the backup is locked with --recipient.")
@click.option("--dry-run", is_flag=True, help="Verify it all and say what is in it; write nothing.")
@click.option("--revoke-tokens", is_flag=True, help="Revoke all API tokens, too.")
@output_option("table", "json", "yaml")
def restore(
    file: Path, data: Path | None, *, secret: _Secret, dry_run: bool, revoke_tokens: bool, output: str
) -> None:
    """Bring a hub back from a backup. Nothing is there before all of it has been verified.

    Join tokens and one-time secrets are revoked. Sites that have gone on since the backup are held.
    """
    from skerry.hub.wiring.console import restore as run
    from skerry.trust.backup import Opening

    if data is None and not dry_run:
        raise click.UsageError("Missing option '--data'.")
    opening = (
        Opening(identity_pem=_read_secret(Path(secret.key)))
        if secret.key
        else Opening(passphrase=secret.passphrase(confirm=False))
    )
    view = run(
        file.absolute(),
        (data or Path()).absolute(),
        opening,
        dry_run=dry_run,
        revoke_tokens=revoke_tokens,
        tell=_teller("verified" if dry_run else "restored"),
    )
    print_view(view, _restore_lines(view), output)
    if not dry_run:
        for line in _hints(view):
            click.echo(clean(line), err=True)


@click.command("backup-key", epilog=examples("skerry hub backup-key backup-key.pem"))
@click.argument("file", type=_file)
def backup_key(file: Path) -> None:
    """Make a key that opens backups, and print its public half for hub backup --recipient.

    Make it on another machine than the hub's, and keep the file there, locked away.
    """
    from skerry.kit.durable import write_file
    from skerry.trust.keys import new_sealing_key

    if file.exists() or file.is_symlink():
        raise Conflict("backup.exists", f"there is a file {file} already", hint="a key is never overwritten")
    pem, public = new_sealing_key()
    write_file(file.absolute(), pem)
    click.echo(public)


@click.command(epilog=examples("skerry hub doctor --data /var/lib/skerry"))
@click.option("--data", type=_data, required=True, help="Data directory of the hub.")
@output_option("table", "json", "yaml")
def doctor(data: Path, output: str) -> int:
    """Look a hub's data directory over, whether the hub runs or not; ends with 1 when something is broken."""
    from skerry.hub.wiring.console import examine

    view = examine(data.absolute())
    print_view(view, _doctor_lines(view), output)
    return EXIT_FAIL if view.level == "fail" else 0


COMMANDS: Sequence[click.Command] = (backup, restore, backup_key, doctor)


def _backup_lines(view: BackupView) -> list[str]:
    lines = [f"backed up to {view.file}: {format_size(view.size_bytes)}", *_manifest_lines(view.manifest)]
    lines += [f"damaged on this disk, and of no use in the backup: {digest}" for digest in view.damaged]
    return [clean(line) for line in lines]


def _restore_lines(view: RestoreView) -> list[str]:
    head = "the backup is whole; nothing was written" if view.dry_run else f"restored into {view.data}"
    lines = [head, *_manifest_lines(view.manifest)]
    if view.dry_run:
        sites = sorted(view.manifest.sites.items())
        lines += [f"  site {name}: generation {generation}" for name, generation in sites[:SITES_SHOWN]]
        if len(sites) > SITES_SHOWN:
            lines.append(f"  and {plural(len(sites) - SITES_SHOWN, 'more site')}; -o json lists all")
    lines += [f"damaged when it was backed up, left out: {digest}" for digest in view.damaged]
    return [clean(line) for line in lines]


def _manifest_lines(manifest: BackupManifest) -> list[str]:
    blobs = plural(manifest.blobs, "blob") + (
        "" if manifest.whole else " (the files of releases are left out)"
    )
    what = f"{plural(len(manifest.sites), 'site')}, {plural(manifest.hosts, 'host')}"
    made = f"{local_time(manifest.made_at)} ({age(manifest.made_at, now())})"
    return [
        f"  hub {manifest.hub}, made {made} by version {manifest.version}",
        f"  {what}, {plural(len(manifest.releases), 'release')}, {blobs}",
    ]


def _hints(view: RestoreView) -> list[str]:
    """Say what to do next."""
    lines = [f"{plural(view.join_tokens_revoked, 'join token')} revoked: make new ones for hosts yet to join"]
    if view.tokens_kept:
        lines.append(
            "LOOK THROUGH THE API TOKENS: one that was revoked after this backup was made is valid again: "
            + ", ".join(view.tokens_kept)
        )
        lines.append("  skerry token list, skerry token revoke ID; or restore with --revoke-tokens")
    else:
        lines.append(f"{plural(view.tokens_revoked, 'API token')} revoked")
    data = view.data
    lines += [
        "next:",
        f"  skerry hub doctor --data {data}",
        "  start the hub under the same URL; make sure that the old one is not running",
        "  skerry describe site NAME, where skerry hub doctor says that a site is held",
        "  hosts that joined after the backup was made are not known: join them again",
    ]
    if not view.manifest.whole:
        lines.append("  push the releases again: their files are not in this backup")
    return lines


def _doctor_lines(view: DoctorView) -> list[str]:
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    lines: list[str] = []
    for finding in view.findings:
        lines.append(f"{colour(finding.level.ljust(5), colours[finding.level])} {clean(finding.message)}")
        if finding.hint:
            lines.append(f"      {clean(finding.hint)}")
    return lines


def _passphrase(file: Path | None, *, stdin: bool, confirm: bool) -> str:
    if file is not None and stdin:
        raise click.UsageError("--passphrase-file and --passphrase-stdin exclude each other.")
    if file is not None:
        raw = _read_secret(file)
    elif stdin:
        raw = sys.stdin.buffer.read(MAX_SECRET_BYTES + 1)
    elif sys.stdin.isatty():
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    else:
        hint = "--passphrase-file FILE or --passphrase-stdin"
        raise Rejected("backup.no_passphrase", "a passphrase is needed", hint=hint)
    if len(raw) > MAX_SECRET_BYTES:
        raise Rejected("backup.bad_passphrase", f"a passphrase has at most {MAX_SECRET_BYTES} bytes")
    try:
        # An editor ends the line; that is not a part of it.
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Rejected("backup.bad_passphrase", "the passphrase is not UTF-8 text") from None


def _read_secret(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise Unavailable("backup.no_secret", f"cannot read {file}: {error.strerror}") from error


def _teller(done: str) -> Callable[[int, int], None]:
    """Return who shows progress: one line on a terminal that is written over, elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda _done, _total: None
    shown = -1

    def tell(at: int, total: int) -> None:
        nonlocal shown
        percent = 100 * at // max(1, total)
        if percent != shown:
            shown = percent
            end = "\n" if at >= total else ""
            click.echo(f"\r{percent:3} % of {format_size(total)} {done}{end}", nl=False, err=True)

    return tell
