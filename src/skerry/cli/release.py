"""`skerry release`: push releases, show them, and follow who vouches for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict, Unpack

import click
import msgspec

from skerry.cli.describe import show_described
from skerry.cli.listing import show_list
from skerry.cli.output import output_option, print_view
from skerry.cli.proofs import summary_of
from skerry.cli.push_display import PushDisplay, snapping_lines
from skerry.cli.release_diff import diff
from skerry.cli.release_evidence import evidence
from skerry.cli.release_preview import preview
from skerry.cli.release_signing import Signing, choose_publishing, revoke, verify
from skerry.cli.resources import Query
from skerry.cli.signing_options import HubSession, open_hub, passphrase_option, signer_option
from skerry.cli.text import clean, examples, plural
from skerry.client.client import Client
from skerry.client.evidence import attach_evidence
from skerry.client.images.cache import BlobCache, cache_capacity, cache_path
from skerry.client.images.reader import ImageReader
from skerry.client.push import PushPlan, PushResult, plan_push, push_release
from skerry.client.snapping_report import SnapOutcome
from skerry.client.sources import PreparedRelease, read_release
from skerry.kit.digests import digest_of, short
from skerry.kit.errors import Rejected
from skerry.kit.quantities import format_size
from skerry.spec.evidence import Evidence


class ImagePreview(msgspec.Struct, frozen=True):
    """One variant of a component's image, as it would be pushed."""

    component: str
    variant: str
    platform: str
    layers: int
    size_bytes: int


class PushPreview(msgspec.Struct, frozen=True):
    """What pushing a release would carry to the hub."""

    name: str
    digest: str
    missing_bytes: int
    total_bytes: int
    images: tuple[ImagePreview, ...] = ()
    snapping: SnapOutcome | None = None
    evidence: tuple[Evidence, ...] = ()
    publisher: str = ""
    signing_problem: str = ""


@click.group(epilog=examples("skerry release push release.yaml"))
def release() -> None:
    """Push releases to the hub, show them, and follow who vouches for them."""


release.add_command(preview)
release.add_command(diff)
release.add_command(evidence)
release.add_command(verify)
release.add_command(revoke)


class PushOptions(TypedDict):
    """What was said about snapping, evidence and signing."""

    snap: bool
    snap_base: str
    snap_bits: int | None
    evidence: tuple[str, ...]
    publisher: str
    signers: tuple[str, ...]
    passphrase_file: Path | None


@release.command(
    epilog=examples(
        "skerry release push release-1.1.0.yaml",
        "skerry release push release.yaml --dry-run",
        "skerry release push release.yaml --publisher acme --signer acme.pem",
        "skerry release push release.yaml --snap",
        "skerry release push release.yaml --evidence sbom.json --evidence evaluation=metrics.json",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything and say what would travel, send nothing.")
@click.option(
    "--snap",
    is_flag=True,
    help="Move new weights, within a bound, to where their difference to the release before is small.",
)
@click.option(
    "--snap-base",
    metavar="APP@VERSION",
    default="",
    help="The release to snap to, if not the newest of the application.",
)
@click.option(
    "--snap-bits",
    type=click.IntRange(1, 22),
    help="How many low bits of an fp32 weight may change; by default the most of 18, 14 and 10 that pass.",
)
@click.option(
    "--insecure-registry",
    "insecure",
    multiple=True,
    metavar="HOST:PORT",
    help="Speak plain HTTP with this registry; one on this machine need not be named.",
)
@click.option(
    "--evidence",
    "evidence",
    multiple=True,
    metavar="KIND=FILE",
    help="Attach an sbom, vulnerabilities, model-card, evaluation or attestation; repeatable.",
)
@click.option(
    "--publisher",
    default="",
    metavar="NAME",
    help="Who vouches for it, if this machine knows not exactly one.",
)
@signer_option("A key of the publisher, if not the one this machine knows")
@passphrase_option
@output_option("table", "json", "yaml")
def push(
    file: Path, dry_run: bool, insecure: tuple[str, ...], output: str, **said: Unpack[PushOptions]
) -> None:
    """Push the release that FILE describes: one Application, its Models, and the files and images they name.

    Only what the hub lacks travels, and a push that was cut goes on where it stopped. Pushing the same
    release again changes nothing; a version that has been pushed cannot be changed.

    Layers of images are kept in a cache of 20 GiB, or of SKERRY_CACHE_SIZE.

    It is signed on this machine, in the name of a publisher, once the hub has its files. `skerry publisher add` says
    who may; the hub cannot sign releases, and hosts take no others.

    The evidence's files are checked and summed up here; the publisher signs the sums with the release.

    With --snap each changed model runs its spec.evaluation here, on the exact files and on the snapped ones, and is
    pushed snapped only if it stays within the tolerances stated there. --snap-base and --snap-bits imply --snap.
    """
    cache = BlobCache(cache_path(os.environ), capacity_bytes=cache_capacity(os.environ))
    with cache:
        with PushDisplay(sys.stderr) as display:
            images = ImageReader(
                cache, display.reading, environment=os.environ, insecure_registries=frozenset(insecure)
            )
            prepared = read_release(file, display.hashing, images=images)
        with open_hub() as session:
            prepared, snapping = _complete(prepared, said, file.parent, (session, cache))
            signing = choose_publishing(
                session, said["publisher"], said["signers"], said["passphrase_file"], patient=dry_run
            )
            if dry_run:
                preview = _preview(prepared, plan_push(session.client, prepared), snapping, signing)
                print_view(preview, _preview_lines(preview), output)
                return
            assert signing.publishing is not None
            with PushDisplay(sys.stderr) as display:
                publish = signing.publishing.publish_release
                result = push_release(session.client, prepared, publish, display.pushing)
    result = msgspec.structs.replace(result, snapping=snapping)
    print_view(result, [*snapping_lines(snapping), *_lines(result)], output)


@release.command("list", epilog=examples("skerry release list --app meter-reader"))
@click.option("--app", "application", default="", help="Only releases of this application.")
@output_option("table", "json", "yaml", "name")
def list_releases(application: str, output: str) -> None:
    """List the releases."""
    show_list("releases", Query(application=application), output)


@release.command(epilog=examples("skerry release show meter-reader@1.1.0"))
@click.argument("name")
@output_option("table", "json", "yaml")
def show(name: str, output: str) -> None:
    """Show the release APPLICATION@VERSION: its components, models and files."""
    show_described("release", name, output)


def _complete(
    prepared: PreparedRelease,
    said: PushOptions,
    directory: Path,
    tools: tuple[HubSession, BlobCache],
) -> tuple[PreparedRelease, SnapOutcome | None]:
    """Return the release as it is pushed: snapped if that is asked for, and with its evidence."""
    (session, cache), snapping = tools, None
    if said["snap"] or said["snap_base"] or said["snap_bits"] is not None:
        with PushDisplay(sys.stderr) as display:
            prepared, snapping = _snap(prepared, said, directory, (session.client, cache, display.snapping))
    # After snapping: attestations speak of the release as it is pushed.
    return attach_evidence(prepared, said["evidence"]), snapping


def _snap(
    prepared: PreparedRelease,
    options: PushOptions,
    directory: Path,
    tools: tuple[Client, BlobCache, Callable[[str], None]],
) -> tuple[PreparedRelease, SnapOutcome]:
    """Return the release with weights snapped as far as its models allow.

    Raises:
        Rejected: there is no numpy (`snap.no_numpy`), or what `snap_release` raises.
    """
    if find_spec("numpy") is None:
        hint = "install it beside skerry: pip install numpy"
        raise Rejected("snap.no_numpy", "snapping weights needs numpy", hint=hint)
    # numpy takes longer to import than all the rest.
    from skerry.client.snapping import SnapRequest, snap_release
    from skerry.client.snapping_variant import Workshop

    client, cache, on_step = tools
    shop = Workshop(client, cache, prepared.sources, on_step)
    request = SnapRequest(directory, os.environ, options["snap_base"], options["snap_bits"])
    return snap_release(shop, prepared, request)


def _preview(
    prepared: PreparedRelease, plan: PushPlan, snapping: SnapOutcome | None, signing: Signing
) -> PushPreview:
    return PushPreview(
        name=prepared.release.name,
        digest=digest_of(prepared.content),
        missing_bytes=plan.missing_bytes,
        total_bytes=plan.total_bytes,
        images=tuple(
            ImagePreview(
                component=component.name,
                variant=variant.name,
                platform=variant.platform,
                layers=len(variant.layers),
                size_bytes=sum(layer.size_bytes for layer in variant.layers),
            )
            for component in prepared.release.application.spec.components
            for variant in (component.image.variants if component.image else ())
        ),
        snapping=snapping,
        evidence=prepared.evidence,
        publisher=signing.publishing.author.publisher if signing.publishing else "",
        signing_problem=signing.problem,
    )


def _lines(result: PushResult) -> list[str]:
    view = result.release
    done = "pushed" if result.created else "is on the hub already, unchanged"
    sent = f"{format_size(result.uploaded_bytes)} sent in {plural(result.uploaded_blobs, 'file')}"
    whose = f", signed by publisher {view.publisher}" if view.publisher else ""
    return [
        clean(f"release {view.name} {done} (digest {short(view.digest)}){whose}"),
        f"{sent}, {format_size(result.skipped_bytes)} were there already",
    ]


def _preview_lines(preview: PushPreview) -> list[str]:
    images = [
        f"image of {image.component}: {image.variant} for {image.platform}, "
        f"{plural(image.layers, 'layer')}, {format_size(image.size_bytes)}"
        for image in preview.images
    ]
    return [
        *(clean(line) for line in images),
        *snapping_lines(preview.snapping),
        *(clean(f"{one.kind} ({one.format}): {summary_of(one)}") for one in preview.evidence),
        clean(f"release {preview.name} would be pushed (digest {short(preview.digest)})"),
        f"{format_size(preview.missing_bytes)} of {format_size(preview.total_bytes)} would travel",
        clean(
            f"it could not be signed: {preview.signing_problem}"
            if preview.signing_problem
            else f"it would be signed by publisher {preview.publisher}"
        ),
    ]
