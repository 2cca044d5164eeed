"""Platforms in the words of images (Go's `GOOS`, `GOARCH`), and what a host must be to run them.

The words of facts are those of `uname -m`; both lists are short because they name what Linux containers are built for.
"""

from __future__ import annotations

import msgspec

from skerry.spec.hardware import Requirements

_uname: dict[tuple[str, str], tuple[str, ...]] = {
    ("amd64", ""): ("x86_64",),
    ("arm64", ""): ("aarch64",),
    ("arm", "v5"): ("armv5tel", "armv6l", "armv7l", "armv8l"),
    ("arm", "v6"): ("armv6l", "armv7l", "armv8l"),
    ("arm", "v7"): ("armv7l", "armv8l"),
    ("386", ""): ("i386", "i586", "i686"),
    ("riscv64", ""): ("riscv64",),
    ("ppc64le", ""): ("ppc64le",),
    ("s390x", ""): ("s390x",),
    ("loong64", ""): ("loongarch64",),
    ("mips64le", ""): ("mips64",),
}
_LEVELS = {"v2": "x86-64-v2", "v3": "x86-64-v3", "v4": "x86-64-v4"}


class Platform(msgspec.Struct, frozen=True):
    """What an image is made for."""

    os: str
    architecture: str
    variant: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether nothing runs on it: BuildKit's attestations say so."""
        return self.os == "unknown" or self.architecture == "unknown"

    @property
    def words(self) -> tuple[str, ...]:
        """Its parts, those that are stated."""
        return tuple(word for word in (self.os, self.architecture, self.variant) if word)

    @property
    def text(self) -> str:
        """As people write it: `linux/arm64/v8`."""
        return "/".join(self.words)

    @property
    def name(self) -> str:
        """As it can stand in a name: `linux-arm64-v8`."""
        return "-".join(self.words).lower().replace("_", "-").replace(".", "-")

    def is_same(self, other: Platform) -> bool:
        """Tell whether two platforms mean the same, however much of it they spell out."""
        return self._plain() == other._plain()

    def _plain(self) -> tuple[str, str, str]:
        implied = {"arm64": "v8", "arm": "v7", "amd64": "v1"}.get(self.architecture, "")
        return self.os, self.architecture, self.variant or implied


def parse_platform(text: str) -> Platform:
    """Return the platform of a text such as `linux/arm64/v8`."""
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return Platform(os=os, architecture=architecture, variant=variant)


def requirements_of(platform: Platform) -> Requirements:
    """Return what a host must be so that an image for this platform can run there."""
    architecture, variant = platform.architecture, platform.variant
    level = _LEVELS.get(variant, "") if architecture == "amd64" else ""
    key = (architecture, (variant or "v7") if architecture == "arm" else "")
    return Requirements(arch=_uname.get(key, (architecture,)), arch_level=level)
