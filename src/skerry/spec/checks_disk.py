"""Checks of a Site's disk budget: sizes that would let nothing be fetched, for ever and by mistake."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.kit.quantities import format_size, parse_size
from skerry.spec.problems import Problem
from skerry.spec.site import SiteSpec

MIN_BLOBS = 1 << 20
MAX_BYTES = 1 << 50


def check_site_disk(spec: SiteSpec) -> Iterator[Problem]:
    """Yield what is wrong with a site's disk budget."""
    disk = spec.disk
    if disk.keep_free is not None and parse_size(disk.keep_free) > MAX_BYTES:
        hint = "each host keeps this much of its own disk free; for no such limit, leave it out"
        expected = f"expected at most {format_size(MAX_BYTES)}, got {disk.keep_free}"
        yield Problem("spec.disk.keep_free", expected, hint)
    if disk.blobs is not None and not MIN_BLOBS <= parse_size(disk.blobs) <= MAX_BYTES:
        limits = f"{format_size(MIN_BLOBS)} to {format_size(MAX_BYTES)}"
        hint = "room for what runs, what ran before and what is fetched next; for no limit, leave it out"
        yield Problem("spec.disk.blobs", f"expected {limits}, got {disk.blobs}", hint)
