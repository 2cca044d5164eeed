"""`skerry release`: push releases, and show them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from skerry.cli.describe import show_described
from skerry.cli.listing import show_list
from skerry.cli.output import output_option, print_view
from skerry.cli.push_display import PushDisplay
from skerry.cli.release_preview import preview
from skerry.cli.resources import Query
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, plural
from skerry.client.images.cache import BlobCache, cache_capacity, cache_path
from skerry.client.images.reader import ImageReader
from skerry.client.push import PushPlan, PushResult, plan_push, push_release
from skerry.client.sources import PreparedRelease, read_release
from skerry.kit.digests import digest_of, short
from skerry.kit.quantities import format_size


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


@click.group(epilog=examples("skerry release push release.yaml"))
def release() -> None:
    """Push releases to the hub, and show them."""


release.add_command(preview)


@release.command(
    epilog=examples("skerry release push release-1.1.0.yaml", "skerry release push release.yaml --dry-run")
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything and say what would travel, send nothing.")
@click.option(
    "--insecure-registry",
    "insecure",
    multiple=True,
    metavar="HOST:PORT",
    help="Speak plain HTTP with this registry; one on this machine need not be named.",
)
@output_option("table", "json", "yaml")
def push(file: Path, dry_run: bool, insecure: tuple[str, ...], output: str) -> None:
    """Push the release that FILE describes: one Application, its Models, and the files and images they name.

    Only what the hub lacks travels, and a push that was cut goes on where it stopped. Pushing the same
    release again changes nothing; a version that has been pushed cannot be changed.

    Layers of images are kept in a cache of 20 GiB, or of SKERRY_CACHE_SIZE.
    """
    cache = BlobCache(cache_path(os.environ), capacity_bytes=cache_capacity(os.environ))
    with PushDisplay(sys.stderr) as display, cache:
        images = ImageReader(
            cache, display.reading, environment=os.environ, insecure_registries=frozenset(insecure)
        )
        prepared = read_release(file, display.hashing, images=images)
        with connect() as client:
            if dry_run:
                preview = _preview(prepared, plan_push(client, prepared))
                print_view(preview, _preview_lines(preview), output)
                return
            result = push_release(client, prepared, display.pushing)
    print_view(result, _lines(result), output)


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


def _preview(prepared: PreparedRelease, plan: PushPlan) -> PushPreview:
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
    )


def _lines(result: PushResult) -> list[str]:
    view = result.release
    done = "pushed" if result.created else "is on the hub already, unchanged"
    sent = f"{format_size(result.uploaded_bytes)} sent in {plural(result.uploaded_blobs, 'file')}"
    return [
        clean(f"release {view.name} {done} (digest {short(view.digest)})"),
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
        clean(f"release {preview.name} would be pushed (digest {short(preview.digest)})"),
        f"{format_size(preview.missing_bytes)} of {format_size(preview.total_bytes)} would travel",
    ]
