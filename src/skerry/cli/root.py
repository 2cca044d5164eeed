"""`skerry root`: the root of trust: who may say who publishes, and which keys the hub signs with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from tuf.api.metadata import Metadata, Root, Targets

from skerry.cli.output import output_option, print_view
from skerry.cli.root_options import RootOptions, root_options
from skerry.cli.signing_options import asking, open_hub, passphrase_option, signer_option
from skerry.cli.text import clean, examples, now, plural, until
from skerry.client.ceremony import (
    Needed,
    beside,
    counting_keys,
    hub_keys_differ,
    needed,
    next_root,
    next_targets,
    read_bytes,
    read_file,
    read_root,
    require_signed,
    targets_keys_differ,
    write_work,
)
from skerry.client.signing import add_signatures, open_signers
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected
from skerry.spec.publishing import MetadataRequest, SignedRole
from skerry.trust.metadata import hub_field
from skerry.trust.repository import read_as, to_bytes

file_type = click.Path(path_type=Path)


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A root or targets file: its version, whose signatures it needs, and how many are still missing."""

    role: str
    version: int
    expires_at: datetime
    hub: str = ""
    keys: dict[str, tuple[str, ...]] = {}
    thresholds: dict[str, int] = {}
    needs: tuple[Needed, ...] = ()
    missing: int = 0


class SentView(msgspec.Struct, frozen=True):
    """What was sent to the hub, or in a dry run would be: versions by role."""

    roles: dict[str, int]
    dry_run: bool = False


@click.group(
    epilog=examples(
        "skerry root show",
        "skerry root rotate --add-key new.pub --remove-key 3f2a91c0 --out 2.root.json",
        "skerry root sign 2.root.json --signer old.pem --signer new.pem",
        "skerry root publish 2.root.json",
    )
)
def root() -> None:
    """Look after the root of trust: offline keys, and the keys the hub signs with."""


@root.command(epilog=examples("skerry root show", "skerry root show 2.root.json"))
@click.argument("file", type=file_type, required=False)
@click.option(
    "--root", "before", type=file_type, help="The root whose keys count for FILE, if not FILE.root."
)
@output_option("table", "json", "yaml")
def show(file: Path | None, before: Path | None, output: str) -> None:
    """Show the hub's root, verified from the one that was pinned; or a FILE under way, without any hub."""
    if file is not None:
        made = read_file(file)
        view = _view(made, _root_of(file, before))
    else:
        with open_hub() as session:
            _, content = session.repository.newest_root()
        view = _view(read_as(content, Root), None)
    print_view(view, _lines(view), output)


@root.command(
    epilog=examples(
        "skerry root rotate --add-key new.pub --remove-key 3f2a91c0 --out 2.root.json",
        "skerry root rotate --from 1.root.json --add-key b.pub --add-key c.pub --threshold 2 --out 2.root.json",
    )
)
@root_options
@click.option("--out", type=file_type, required=True, metavar="FILE", help="Write the next root to FILE.")
@output_option("table", "json", "yaml")
def rotate(out: Path, output: str, **given: Any) -> None:
    """Make the next root, unsigned, with other keys. The root before it is written to FILE.root, for signing.

    With --from no hub is asked, so that this can be done on a machine that has no network.
    """
    options = RootOptions.of(given)
    before, content = _before(options.base)
    made = next_root(before, options.change, now())
    write_work(out, made, content)
    view = _view(made, before)
    lines = [f"wrote {out}, unsigned; {beside(out)} goes with it", *_lines(view)]
    if targets_keys_differ(before, made.signed):
        lines.append("the targets keys change, so the targets have to be signed anew as well:")
        lines.append(f"  skerry root targets --root {out} --out targets.json")
    print_view(view, [clean(line) for line in lines], output)


@root.command(
    epilog=examples(
        "skerry root targets --out targets.json",
        "skerry root targets --from old-targets.json --root 2.root.json --out targets.json",
    )
)
@click.option(
    "--from", "base", type=file_type, metavar="FILE", help="The targets to follow on; else the hub's."
)
@click.option("--root", "with_root", type=file_type, help="The root whose keys will sign; else the hub's.")
@click.option("--out", type=file_type, required=True, metavar="FILE", help="Write the next targets to FILE.")
@output_option("table", "json", "yaml")
def targets(base: Path | None, with_root: Path | None, out: Path, output: str) -> None:
    """Make the next targets metadata, unsigned: the same publishers, with a later expiry, for other keys.

    With --from and --root no hub is asked.
    """
    held = read_bytes(base) if base else None
    delegator, content = read_root(with_root) if with_root else (None, b"")
    if held is None or delegator is None:
        with open_hub() as session:
            believed = session.repository.refresh()
            held = held or believed.load(Targets.type)
            if delegator is None:
                delegator, content = believed.root, believed.root_bytes
    assert held is not None
    made = next_targets(held, now())
    write_work(out, made, content)
    view = _view(made, delegator)
    lines = [f"wrote {out}, unsigned; {beside(out)} goes with it", *_lines(view)]
    print_view(view, [clean(line) for line in lines], output)


@root.command(
    epilog=examples(
        "skerry root sign 2.root.json --signer old.pem", "skerry root sign targets.json --signer hsm:2"
    )
)
@click.argument("file", type=file_type)
@signer_option("An offline key", required=True)
@click.option(
    "--root", "before", type=file_type, help="The root whose keys count for FILE, if not FILE.root."
)
@passphrase_option
@output_option("table", "json", "yaml")
def sign(
    file: Path, signers: tuple[str, ...], before: Path | None, passphrase_file: Path | None, output: str
) -> None:
    """Add signatures to a root or targets FILE, and say how many are still missing. No hub is asked."""
    made, delegator = read_file(file), _root_of(file, before)
    if delegator is None and not isinstance(made.signed, Root):
        hint = f"name it with --root, or put it at {beside(file)}"
        raise Rejected("root.unknown", "targets are signed by keys that a root names", hint=hint)
    if isinstance(made.signed, Root) and made.signed.version > 1 and delegator is None:
        hint = f"name it with --root, or put it at {beside(file)}"
        raise Rejected("root.unknown", "the keys of the root before count as well; where is it?", hint=hint)
    needed(made, delegator)  # refuses a root that does not go with the file
    keys = counting_keys(made, delegator)
    signed = add_signatures(made, open_signers(signers, asking(passphrase_file)), keys)
    write_file(file, to_bytes(made), mode=0o644)
    view = _view(made, delegator)
    lines = [*(f"signed by {keyid[:16]}" for keyid in dict.fromkeys(signed)), *_needs_lines(view)]
    print_view(view, [clean(line) for line in lines], output)


@root.command(
    epilog=examples(
        "skerry root publish 2.root.json", "skerry root publish 2.root.json targets.json --dry-run"
    )
)
@click.argument("files", type=file_type, nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Check everything, send nothing.")
@output_option("table", "json", "yaml")
def publish(files: tuple[Path, ...], dry_run: bool, output: str) -> None:
    """Check signed FILES, a root or targets or both, against the hub's root and send them together."""
    made = {metadata.signed.type: metadata for metadata in map(read_file, files)}
    if len(made) != len(files):
        raise Rejected("root.twice", "one root and one targets file at most", hint="publish roots one by one")
    with open_hub() as session:
        held, _ = session.repository.newest_root()
        _check(held, made)
        roles = tuple(
            SignedRole(role=role, content=to_bytes(metadata)) for role, metadata in sorted(made.items())
        )
        if not dry_run:
            session.client.post_metadata(MetadataRequest(metadata=roles))
            for role in roles:
                if role.role == Targets.type:
                    session.files.keep_signed(role.role, role.content)
            session.repository.newest_root()  # kept here from now on
    view = SentView({role: metadata.signed.version for role, metadata in made.items()}, dry_run)
    done = "would be sent: all signatures are there" if dry_run else "is in force"
    print_view(view, [f"{role} {version} {done}" for role, version in view.roles.items()], output)


def _check(held: Root, made: dict[str, Metadata[Any]]) -> None:
    """Refuse what the hub would refuse, with a better explanation."""
    delegator = held
    if (metadata := made.get(Root.type)) is not None:
        needed(metadata, held)
        require_signed(Root.type, held, metadata)
        require_signed(Root.type, metadata.signed, metadata)
        if hub_field(metadata.signed).hub != hub_field(held).hub:
            raise Rejected("metadata.foreign_root", "this is the root of another hub")
        if hub_keys_differ(held, metadata.signed):
            hint = "it is put into force on the hub's machine: skerry hub keys install FILE --data DIR"
            raise Rejected("root.hub_keys", "this root names other keys of the hub itself", hint=hint)
        delegator = metadata.signed
        if targets_keys_differ(held, delegator) and Targets.type not in made:
            click.echo(
                "note: the targets keys change; the hub wants targets signed by them as well", err=True
            )
    if (metadata := made.get(Targets.type)) is not None:
        require_signed(Targets.type, delegator, metadata)


def _before(base: Path | None) -> tuple[Root, bytes]:
    if base is not None:
        return read_root(base)
    with open_hub() as session:
        return session.repository.newest_root()


def _root_of(file: Path, named: Path | None) -> Root | None:
    """Return the root whose keys count for a file, None where there is none to be found."""
    if named is not None:
        return read_root(named)[0]
    return read_root(beside(file))[0] if beside(file).exists() else None


def _view(made: Metadata[Any], delegator: Root | None) -> FileView:
    needs, signed = needed(made, delegator), made.signed
    own = signed if isinstance(signed, Root) else None
    return FileView(
        role=signed.type,
        version=signed.version,
        expires_at=signed.expires,
        hub=hub_field(own).hub if own else "",
        keys=(
            {
                **{name: tuple(role.keyids) for name, role in sorted(own.roles.items())},
                "desired": hub_field(own).desired,
            }
            if own
            else {}
        ),
        thresholds={name: role.threshold for name, role in own.roles.items()} if own else {},
        needs=needs,
        missing=sum(need.missing for need in needs),
    )


def _lines(view: FileView) -> list[str]:
    lines = [f"{view.role} {view.version}, expires {until(view.expires_at, now())}"]
    if view.hub:
        lines.append(f"hub: {view.hub}")
    for role, keys in view.keys.items():
        threshold = view.thresholds.get(role, 1)
        lines.append(f"{role}: {plural(threshold, 'signature')} of {plural(len(keys), 'key')}")
        lines += [f"  {key[:16]}" for key in keys]
    return [clean(line) for line in [*lines, *_needs_lines(view)]]


def _needs_lines(view: FileView) -> Sequence[str]:
    lines: list[str] = []
    for need in view.needs:
        state = f"{plural(need.missing, 'signature')} missing" if need.missing else "complete"
        lines.append(f"for {need.whose}: {len(need.signed)} of {need.threshold} signatures, {state}")
    return lines
