"""Checks of what hardware something asks for: words that no host would ever answer to are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from skerry.spec.checks_files import known_words
from skerry.spec.hardware import ARCH_LEVELS, Preference, Requirements
from skerry.spec.problems import Problem

RUNTIMES = ("onnxruntime", "openvino", "tensorrt")
"""The inference runtimes whose presence is a fact."""

_OTHER_NAMES = {
    "amd64": "x86_64", "x64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "armv8": "aarch64",
    "armhf": "armv7l", "armv7": "armv7l", "arm": "armv7l", "386": "i686", "x86": "i686",
}  # fmt: skip


def check_requirements(path: str, requires: Requirements) -> Iterator[Problem]:
    """Yield what is wrong with requirements."""
    for index, arch in enumerate(requires.arch):
        if arch.lower() in _OTHER_NAMES:
            hint = f"write {_OTHER_NAMES[arch.lower()]}: architectures are named as uname -m does"
            yield Problem(f"{path}.arch[{index}]", f"no host calls itself {arch}", hint)
    if requires.arch_level and requires.arch_level not in ARCH_LEVELS:
        hint = known_words(requires.arch_level, ARCH_LEVELS)
        yield Problem(f"{path}.arch_level", f"unknown level {requires.arch_level}", hint)
    for runtime in requires.runtimes:
        if runtime not in RUNTIMES:
            yield Problem(
                f"{path}.runtimes.{runtime}", f"unknown runtime {runtime}", known_words(runtime, RUNTIMES)
            )


def check_preferences(path: str, prefer: Iterable[Preference]) -> Iterator[Problem]:
    """Yield what is wrong with preferences."""
    for index, preference in enumerate(prefer):
        yield from check_requirements(f"{path}[{index}].when", preference.when)
