"""`skerry release verify` and `revoke`; and who signs what `skerry release push` pushes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

import click
import msgspec
from tuf.api.metadata import Targets

from skerry.cli.output import output_option, print_view
from skerry.cli.signing_options import (
    HubSession,
    asking,
    choose_author,
    open_hub,
    passphrase_option,
    revocation_options,
    signer_option,
)
from skerry.cli.text import clean, examples, now, until
from skerry.client.publishing import Publishing
from skerry.client.vouching import RoleStep, Vouching, verify_release
from skerry.kit.digests import short
from skerry.kit.errors import Missing, Rejected, Untrusted
from skerry.spec.publishing import Revocation, Running
from skerry.trust.repository import publisher_role, read_as

_ROLES = {"root": "root", "targets": "targets (who may publish)"}


class Signing(msgspec.Struct, frozen=True):
    """Who signs a push; or, where that may be told and no more, why nobody can."""

    publishing: Publishing | None
    problem: str = ""


class RevokedView(msgspec.Struct, frozen=True):
    """A release that was revoked, or in a dry run would be."""

    release: str
    publisher: str
    running: str
    roles: dict[str, int]
    dry_run: bool = False


def choose_publishing(
    session: HubSession,
    publisher: str,
    signers: Sequence[str],
    passphrase_file: Path | None,
    *,
    patient: bool = False,
) -> Signing:
    """Return who signs, checked against what the hub's targets say; whoever is `patient` gets a problem as text.

    Raises:
        Rejected: nobody can, and what to do (`publisher.none`, `publisher.no_key`, `signing.too_few`, ...).
        Untrusted: the hub's metadata is not to be trusted.
    """
    try:
        author = choose_author(session, publisher, signers, asking(passphrase_file))
        publishing = Publishing(session.client, session.repository, author)
        publishing.check()
    except Rejected as error:
        if not patient:
            raise
        return Signing(None, str(error))
    return Signing(publishing)


@click.command(
    epilog=examples(
        "skerry release verify meter-reader@1.1.0", "skerry release verify meter-reader@1.1.0 -o json"
    )
)
@click.argument("name")
@click.option("--publisher", default="", metavar="NAME", help="Ask only this publisher.")
@output_option("table", "json", "yaml")
def verify(name: str, publisher: str, output: str) -> int:
    """Follow who vouches for the release APPLICATION@VERSION, from the pinned root to the document's bytes.

    Everything is verified on this machine, as a host does it. The exit code is 0 only if the release is vouched for.
    """
    with open_hub() as session:
        found = verify_release(session.client, session.repository, name, publisher)
    print_view(found, _lines(found, now()), output)
    return 0 if found.vouched else Untrusted.exit_code


@click.command(
    epilog=examples(
        'skerry release revoke meter-reader@1.1.0 --why "reads wrong digits"',
        'skerry release revoke meter-reader@1.1.0 --why "CVE-2031-1234" --running replace',
    )
)
@click.argument("name")
@revocation_options
@click.option("--publisher", default="", metavar="NAME", help="Whose release it is, if not as the hub says.")
@signer_option("A key of the publisher, if not the one this machine knows")
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Verify everything and say who would sign; sign nothing.")
@output_option("table", "json", "yaml")
def revoke(name: str, why: str, running: Running, publisher: str, output: str, **how: object) -> None:
    """Revoke the release APPLICATION@VERSION, for good: no host takes it from then on."""
    passphrase_file, signers = how["passphrase_file"], cast(tuple[str, ...], how["signers"])
    assert passphrase_file is None or isinstance(passphrase_file, Path)
    with open_hub() as session:
        publisher = publisher or session.client.release(name).publisher
        found = choose_publishing(session, publisher, signers, passphrase_file).publishing
        assert found is not None
        shelf = session.repository.refresh().shelf(found.author.publisher)
        if shelf.find(name) is None:
            message = f"publisher {found.author.publisher} has not signed {name}"
            raise Missing("release.unsigned", message, hint="skerry release verify says who did")
        if how["dry_run"]:
            roles: dict[str, int] = {}
        else:
            signed = found.revoke_release(name, Revocation(why=why, at=now(), running=running))
            roles = {role.role: int(read_as(role.content, Targets).signed.version) for role in signed}
    view = RevokedView(name, found.author.publisher, running, roles, bool(how["dry_run"]))
    done = "would be revoked" if view.dry_run else "is revoked"
    after = {
        "keep": "runs on where it runs",
        "replace": "is replaced where it runs",
        "stop": "is ended where it runs",
    }
    lines = [f"release {name} {done}, and {after[running]}", *(f"  {r} {v} signed" for r, v in roles.items())]
    print_view(view, [clean(line) for line in lines], output)


def _lines(found: Vouching, at: datetime) -> list[str]:
    lines = [_step_line(step, found.publisher, at) for step in found.steps]
    if found.publisher:
        size = f"{found.size_bytes} bytes"
        lines.append(f"{found.publisher} vouches for {found.release}: {short(found.digest)}, {size}")
        lines += [f"  evidence: {one.kind} ({one.format}), {short(one.digest)}" for one in found.evidence]
    if found.vouched:
        lines.append("the hub's document is the one that was signed, and names every file by digest")
        lines.append(f"VOUCHED FOR: {found.release}; all of this holds {until(found.expires_at, at)}")
    else:
        lines.append(f"NOT VOUCHED FOR: {found.release}: {found.problem}")
    return [clean(line) for line in lines]


def _step_line(step: RoleStep, publisher: str, at: datetime) -> str:
    who = ", ".join(key[:16] for key in step.signed_by)
    name = _ROLES.get(step.role) or (
        f"publisher {publisher}" if step.role == publisher_role(publisher) else f"part {step.role}"
    )
    needed = f"needed: {step.threshold}"
    return f"{name} {step.version}: signed by {who} ({needed}), expires {until(step.expires_at, at)}"
