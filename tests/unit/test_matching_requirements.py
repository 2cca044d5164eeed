"""Requirements against facts, each by what it says when it is not met."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.clauses import version_within
from skerry.matching.requirements import (
    clauses_of,
    describe_met,
    match_requirements,
    platform_clauses,
    unmet_of,
)
from skerry.spec.facts import HostFacts
from skerry.spec.hardware import ARCH_LEVELS, GpuRequirement, Requirements
from tests.unit.matching_world import GIB, facts, gpus

NVIDIA = gpus(("nvidia", 4, "8.6", "535.104.05"), ("nvidia", 12, "7.2", "535.104.05"))


def lacks(host: HostFacts, **requires: Any) -> list[str]:
    return match_requirements(Requirements(**requires), host)


@pytest.mark.parametrize(
    ("requires", "met", "unmet", "says"),
    (
        (
            {"arch": ("x86_64", "aarch64")},
            facts(arch="aarch64"),
            facts(arch="riscv64"),
            "arch x86_64 or aarch64, has riscv64",
        ),
        ({"os": ("debian",)}, facts(os="debian"), facts(), "os debian, which is unknown of this host"),
        (
            {"arch_level": "x86-64-v3"},
            facts(arch_level="x86-64-v4"),
            facts(arch_level="x86-64-v2"),
            "architecture level x86-64-v3, has x86-64-v2",
        ),
        (
            {"arch_level": "armv8.2-a"},
            facts(arch_level="armv9-a"),
            facts(arch_level="x86-64-v4"),
            "architecture level armv8.2-a, has x86-64-v4",
        ),
        (
            {"cpu_flags": ("avx2", "vnni")},
            facts(cpu_flags=("avx2", "vnni")),
            facts(cpu_flags=("avx2",)),
            "CPU flags vnni, which this CPU does not have",
        ),
        (
            {"memory": "1GiB"},
            facts(memory_bytes=GIB),
            facts(memory_bytes=GIB - 1),
            "memory >= 1 GiB, has 1 B less",
        ),
        ({"memory": "1GiB"}, facts(memory_bytes=GIB), facts(), "memory >= 1 GiB, has an unknown amount"),
        (
            {"disk": "2GiB"},
            facts(disk__free_bytes=2 * GIB),
            facts(disk__free_bytes=GIB),
            "disk >= 2 GiB, has 1 GiB free",
        ),
        (
            {"accelerators": ("coral-usb", "coral-pcie")},
            facts(accelerators=("coral-pcie",)),
            facts(accelerators=()),
            "accelerator coral-usb or coral-pcie, has none",
        ),
        (
            {"runtimes": {"openvino": ("NPU", "GPU")}},
            {**facts(runtime__openvino="2025.1"), **facts(runtime__openvino__devices=("CPU", "NPU"))},
            facts(runtime__openvino__devices=("CPU",)),
            "runtime openvino with NPU or GPU, has CPU",
        ),
        (
            {"runtimes": {"tensorrt": ()}},
            facts(runtime__tensorrt="10.1"),
            facts(),
            "runtime tensorrt, has none",
        ),
        (
            {"devices": ("camera",)},
            facts(devices__camera=("/dev/video0",)),
            facts(devices__camera=()),
            "device camera, has none",
        ),
        (
            {"devices": ("camera",)},
            facts(devices__camera=("/dev/video0",)),
            facts(),
            "device camera, which is unknown of this host",
        ),
        (
            {"facts": {"custom.line": "a"}},
            facts(custom__line="a"),
            facts(custom__line="b"),
            "custom.line = a, has b",
        ),
        (
            {"facts": {"custom.safe": "true"}},
            facts(custom__safe=True),
            facts(custom__safe=False),
            "custom.safe = true, has false",
        ),
        ({"facts": {"custom.n": "7"}}, facts(custom__n=7), facts(custom__n=8), "custom.n = 7, has 8"),
        (
            {"facts": {"custom.tags": "x"}},
            facts(custom__tags=("x", "y")),
            facts(custom__tags=("y",)),
            "custom.tags = x, has y",
        ),
    ),
)
def test_a_requirement_says_what_it_asks_and_what_is_there(
    requires: dict[str, Any], met: HostFacts, unmet: HostFacts, says: str
) -> None:
    assert lacks(met, **requires) == []
    assert lacks(unmet, **requires) == [says]
    assert describe_met(clauses_of(Requirements(**requires)), met)


@pytest.mark.parametrize(
    ("wanted", "says"),
    (
        ({"memory": "6GiB"}, []),
        ({"vendor": "nvidia", "memory": "4GiB", "count": 2}, []),
        ({"memory": "16GiB"}, ["GPU memory >= 16 GiB, has 4 GiB and 12 GiB"]),
        ({"memory": "6GiB", "count": 2}, ["GPU memory >= 6 GiB 2 times, has 4 GiB and 12 GiB"]),
        ({"vendor": "intel"}, ["intel GPU, has none (nvidia, nvidia)"]),
        ({"count": 3}, ["3 GPUs, has 2"]),
        ({"driver": ">=525,<530"}, ["GPU driver >=525,<530, has 535.104.05"]),
        ({"compute": ">=7.5"}, []),
        (
            {"compute": ">=7.5", "memory": "6GiB"},
            ["GPU with memory >= 6 GiB and compute capability >=7.5, has 0 that is all of this at once"],
        ),
    ),
)
def test_each_gpu_that_counts_is_everything_that_is_named(wanted: dict[str, Any], says: list[str]) -> None:
    assert lacks(NVIDIA, gpu=GpuRequirement(**wanted)) == says


def test_a_card_that_is_almost_large_enough_is_not_said_to_have_what_is_asked() -> None:
    almost = facts(gpu__count=1, gpu__0__memory_bytes=6 * GIB - (5 << 20))
    assert lacks(almost, gpu=GpuRequirement(memory="6GiB")) == ["GPU memory >= 6 GiB, has 5 MiB less"]


def test_a_host_without_gpus_is_told_from_one_of_which_nothing_is_known() -> None:
    wanted = GpuRequirement(memory="6GiB")
    assert lacks(gpus(), gpu=wanted) == ["GPU with memory >= 6 GiB, has none"]
    assert lacks({}, gpu=wanted) == ["GPU with memory >= 6 GiB, GPUs of this host are unknown"]
    only_named = {name: fact for name, fact in NVIDIA.items() if name != "gpu.count"}
    assert lacks(only_named, gpu=GpuRequirement(memory="12GiB")) == []


@pytest.mark.parametrize(
    ("has", "wanted", "within"),
    (
        ("8.7", ">=7.5,<10", True),
        ("10.0", ">=7.5,<10", False),
        ("7.10", ">7.9", True),
        ("8", "8.0", True),
        ("8.6", "8", False),
        ("535.104.05", ">=535.104.5", True),
        ("535.104.05-ubuntu", "==535.104.5", True),
        ("r35", ">=1", False),
        (None, ">=1", False),
        ("9.9.9", "<=9.9", False),
    ),
)
def test_versions_compare_part_by_part_as_numbers(has: str | None, wanted: str, within: bool) -> None:
    assert version_within(has, wanted) is within


@pytest.mark.parametrize(
    ("platform", "host", "fits"),
    (
        ("linux/amd64", facts(arch="x86_64"), True),
        ("linux/amd64/v3", facts(arch="x86_64", arch_level="x86-64-v3"), True),
        ("linux/amd64/v3", facts(arch="x86_64", arch_level="x86-64-v2"), False),
        ("linux/arm64", facts(arch="x86_64"), False),
        ("linux/arm64/v8", facts(arch="aarch64"), True),
        ("linux/arm/v7", facts(arch="armv7l"), True),
        ("linux/arm/v7", facts(arch="aarch64"), False),
        ("windows/amd64", facts(arch="x86_64"), False),
        ("linux/vax", facts(arch="x86_64"), False),
        ("", {}, True),
    ),
)
def test_an_image_runs_on_its_platform_only(platform: str, host: HostFacts, fits: bool) -> None:
    assert (unmet_of(platform_clauses(platform), host) == []) is fits


def test_levels_of_one_family_never_meet_those_of_another() -> None:
    for level, met in ARCH_LEVELS.items():
        assert level in met
        assert {name[:3] for name in met} == {level[:3]}
    assert "armv8.5-a" in ARCH_LEVELS["armv9-a"]
    assert "armv8.6-a" not in ARCH_LEVELS["armv9-a"]


@given(
    memory=st.integers(0, 40),
    more=st.integers(0, 40),
    level=st.sampled_from([1, 2, 3, 4]),
    flags=st.sets(st.sampled_from("abcd")),
)
def test_a_host_that_exceeds_what_meets_a_requirement_meets_it(
    memory: int, more: int, level: int, flags: set[str]
) -> None:
    requires = Requirements(
        memory="16GiB", cpu_flags=("a", "b"), arch_level="x86-64-v2", gpu=GpuRequirement(memory="8GiB")
    )
    less = {
        **facts(memory_bytes=memory * GIB, cpu_flags=tuple(flags), arch_level=f"x86-64-v{level}"),
        **gpus(("nvidia", memory, "8.6", "535")),
    }
    better = {
        **facts(
            memory_bytes=(memory + more) * GIB,
            cpu_flags=tuple(flags | {"e"}),
            arch_level="x86-64-v4",
            custom__other="x",
        ),
        **gpus(("nvidia", memory + more, "8.6", "535"), ("intel", 1, "", "")),
    }
    if not match_requirements(requires, less):
        assert match_requirements(requires, better) == []
