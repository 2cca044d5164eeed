"""Shows how a push gets on: a bar on a terminal, a line per file elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from skerry.cli.text import clean, colours_wanted, plural
from skerry.client.images.limits import ImageProgress
from skerry.client.push import PushProgress
from skerry.client.snapping_report import SnapOutcome, VariantSnap
from skerry.kit.quantities import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DOING = {"read": "reading", "check": "checking", "download": "downloading", "unpack": "unpacking"}


class PushDisplay:
    """Callbacks for hashing, reading images and pushing; use it in a `with`, so that the bar is taken away again."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = _bar(stream) if stream.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._file = ""
        self._part = ("", "")

    def __enter__(self) -> PushDisplay:  # noqa: PYI034 - nobody inherits from it
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def hashing(self, path: Path, done_bytes: int, total_bytes: int) -> None:
        """Show how far the hashing of a file is."""
        if self._bar:
            self._show("hash", f"hashing {path.name}", done_bytes, total_bytes)
        elif done_bytes == total_bytes:
            click.echo(clean(f"hashed {path.name} ({format_size(total_bytes)})"), err=True)

    def reading(self, progress: ImageProgress) -> None:
        """Show how far the reading of an image is: downloading, unpacking, checking."""
        if progress.step == "wait":
            click.echo(clean(progress.name), err=True)
        elif self._bar:
            text = f"{_DOING[progress.step]} {_shortened(progress.name)}"
            self._show("image", text, progress.done_bytes, progress.total_bytes)
        elif (progress.step, progress.name) != self._part:
            self._part = (progress.step, progress.name)
            size = f" ({format_size(progress.total_bytes)})" if progress.total_bytes else ""
            click.echo(clean(f"{_DOING[progress.step]} {progress.name}{size}"), err=True)

    def snapping(self, doing: str) -> None:
        """Say what of the snapping is being done."""
        if self._bar:
            self._show("snap", doing, 0, 0)
        else:
            click.echo(clean(doing), err=True)

    def pushing(self, progress: PushProgress) -> None:
        """Show how far the push is, and why it waits."""
        if progress.step == "wait":
            click.echo(clean(progress.message), err=True)
        elif self._bar:
            text = f"pushing {_shortened(progress.path)}" if progress.step == "upload" else "publishing"
            self._show("push", text, progress.done_bytes, progress.total_bytes)
        elif progress.step == "upload" and progress.path != self._file:
            self._file = progress.path
            total = format_size(progress.total_bytes)
            line = f"pushing {_shortened(progress.path)} ({format_size(progress.done_bytes)} of {total} sent)"
            click.echo(clean(line), err=True)

    def _show(self, key: str, text: str, done_bytes: int, total_bytes: int) -> None:
        assert self._bar is not None
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(clean(text), total=total_bytes)
        self._bar.update(self._tasks[key], description=clean(text), completed=done_bytes, total=total_bytes)


def snapping_lines(outcome: SnapOutcome | None) -> list[str]:
    """Return what was snapped and what that saves, for people."""
    if outcome is None:
        return []
    if not outcome.variants:
        return [clean(f"nothing is snapped: {outcome.why}")]
    return [clean(line) for variant in outcome.variants for line in _variant_lines(variant, outcome.release)]


def _variant_lines(variant: VariantSnap, release: str) -> Iterator[str]:
    name = f"{variant.model}/{variant.variant}"
    if variant.bits:
        yield f"{name}: snapped to {release} by {variant.bits} bits"
    else:
        yield f"{name}: stays exact: {variant.why}"
    for file in variant.files:
        deltas = f"delta {format_size(file.exact_delta_bytes)}"
        if file.snapped_delta_bytes is not None:
            deltas = f"delta {format_size(file.snapped_delta_bytes)} instead of {format_size(file.exact_delta_bytes)}"
        yield f"  {file.path}: {format_size(file.full_bytes)}, {deltas}"
        if file.words_changed:
            error = f"each by at most {file.largest_error:.2g} of its size"
            weights, tensors = plural(file.words_changed, "weight"), plural(file.tensors, "tensor")
            yield f"    {weights} of {tensors} moved, {error}"
    for metric in variant.metrics:
        yield f"  {metric.name}: {metric.exact:g} exact, {metric.snapped:g} snapped"
    for attempt in variant.attempts:
        if attempt.failure:
            yield f"  not by {attempt.bits} bits: {attempt.failure}"


def _shortened(name: str) -> str:
    """Return a path's last part; the name of a layer keeps what tells it from others."""
    return name if " layer " in name or name.endswith(" configuration") else Path(name).name


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(file=stream, no_color=not colours_wanted(err=True))
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
