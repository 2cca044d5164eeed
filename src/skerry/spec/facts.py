"""Facts: what a host found out about itself, each with where it was read."""

from __future__ import annotations

from skerry.spec.metadata import Part

FactValue = str | int | bool | tuple[str, ...]


class Fact(Part, frozen=True, kw_only=True):
    """One fact; `source` names the file or call it came from, or `override` when a person stated it."""

    value: FactValue
    source: str


HostFacts = dict[str, Fact]
"""Facts by name: `arch`, `os`, `os_version`, `kernel`, `hostname`, `cpu_model`, `cpu_count`, `cpu_flags`,
`memory_bytes`."""
