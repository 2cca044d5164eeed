"""What importing a bundle tells at a host and at a relay alike."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.cli.text import plural
from skerry.kit.quantities import format_size
from skerry.spec.bundle import ImportView, RelayImportView


def file_lines(view: ImportView | RelayImportView, *, dry_run: bool) -> Iterator[str]:
    """Yield what became of the files, and what else is to be imported."""
    verb = "to be copied" if dry_run else "copied"
    here = view.files - view.copied
    yield f"  {plural(view.copied, 'file')} {verb} ({format_size(view.copied_bytes)}), {here} here already"
    if view.parts > 1:
        yield f"  part {view.part} of {view.parts}: import the others, too, in any order"
