"""What hardware, engine and runtimes something needs, and what it gives in return.

Names of facts and what they mean: `skerry.spec.facts`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Part, Size

RANGE_PATTERN = r"^(>=|<=|>|<|==)?\s*\d+(\.\d+){0,3}(\s*,\s*(>=|<=|>|<|==)\s*\d+(\.\d+){0,3})*$"

VersionRange = Annotated[
    str, Meta(pattern=RANGE_PATTERN, max_length=64, description="a range such as >=7.5 or >=7.5,<10")
]
GpuVendor = Literal["nvidia", "amd", "intel"]
Accelerator = Literal[
    "nvidia-gpu",
    "amd-gpu",
    "intel-gpu",
    "jetson",
    "intel-npu",
    "amd-npu",
    "hailo-8",
    "hailo-8l",
    "hailo-10",
    "coral-pcie",
    "coral-usb",
    "rockchip-npu",
    "qualcomm-npu",
    "nxp-npu",
]
DeviceClass = Literal["camera", "serial", "gpu", "npu", "tpu", "usb", "can", "i2c", "spi", "gpio"]
FactText = Annotated[str, Meta(max_length=1024)]

# Levels of x86-64: System V ABI, AMD64 supplement, "micro-architecture levels". Armv9.0-A is built on Armv8.5-A and
# each later Armv9.x-A on Armv8.(x+5)-A (Arm Architecture Reference Manual for A-profile).
ARCH_LEVELS: dict[str, frozenset[str]] = {
    **{f"x86-64-v{n}": frozenset(f"x86-64-v{m}" for m in range(1, n + 1)) for n in range(1, 5)},
    "armv7-a": frozenset(["armv7-a"]),
    **{
        f"armv8{f'.{n}' if n else ''}-a": frozenset(f"armv8{f'.{m}' if m else ''}-a" for m in range(n + 1))
        for n in range(10)
    },
    **{
        f"armv9{f'.{n}' if n else ''}-a": frozenset(
            [f"armv9{f'.{m}' if m else ''}-a" for m in range(n + 1)]
            + [f"armv8{f'.{m}' if m else ''}-a" for m in range(min(n + 5, 9) + 1)]
        )
        for n in range(7)
    },
}
"""Every micro-architecture level that is known, with all the levels it meets, itself among them."""


class GpuRequirement(Part, frozen=True, kw_only=True):
    """GPUs that must be there: `count` of them, each meeting everything named.

    Versions compare part by part as numbers; one without an operator must be exactly that.
    """

    vendor: GpuVendor | None = None
    memory: Size | None = None
    compute: VersionRange = ""
    driver: VersionRange = ""
    count: Annotated[int, Meta(ge=1, le=64)] = 1


class Requirements(Part, frozen=True, kw_only=True):
    """What a host must have; everything named must hold, and an unknown fact meets nothing.

    `arch`, `os` and `accelerators` name alternatives; `cpu_flags` and `devices` must all be there. `disk` is
    what must be free. `arch_level` is a micro-architecture level such as `x86-64-v3`; a higher one meets it.
    `runtimes` maps a runtime (`onnxruntime`, `openvino`, `tensorrt`) to providers or devices of which one must
    be there; none named means that the runtime itself must. `facts` compares any fact's text, for custom facts
    above all.
    """

    arch: tuple[str, ...] = ()
    arch_level: Annotated[str, Meta(max_length=32)] = ""
    os: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    memory: Size | None = None
    disk: Size | None = None
    gpu: GpuRequirement | None = None
    accelerators: tuple[Accelerator, ...] = ()
    runtimes: dict[str, tuple[str, ...]] = {}
    devices: tuple[DeviceClass, ...] = ()
    facts: dict[str, FactText] = {}


class Preference(Part, frozen=True, kw_only=True):
    """What would be welcome: adds `weight` where it holds, takes nothing away where it does not."""

    when: Requirements
    weight: Annotated[int, Meta(ge=-1000, le=1000)] = 1


class Expectation(Part, frozen=True, kw_only=True):
    """What the author measured elsewhere; a host's own measurement counts for more.

    `latency` is that of one inference, `memory` the peak while it runs, `accuracy` in any unit of the model's
    own in which more is better.
    """

    latency: Duration | None = None
    memory: Size | None = None
    accuracy: float | None = None


Objective = Literal["listed", "fastest", "most-accurate", "smallest"]
"""How the best of the variants that fit is found; `listed` is their author's order."""
