"""What choosing costs: a release with 12 variants held against 10,000 hosts, and against one.

The realistic fleet consists of 40 kinds of machine. In the nasty one every host has a memory, a free disk, GPU
memory and measured latencies of its own, so that no two hosts are alike. Facts are decoded as the hub reads them,
which is not part of the figure; nothing is kept from one run to the next. Times are CPU time, of one thread.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from skerry.matching.preview import PreviewHost, preview_fleet
from skerry.matching.releases import match_release
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component, ModelMount, Resources
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import Fact, FactValue, HostFacts
from skerry.spec.hardware import Expectation, GpuRequirement, Preference, Requirements
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release
from tests.bench.figure import Figure

HOSTS = 10_000
VARIANTS = 12
RUNS = 5
KINDS = 40
GIB = 1 << 30
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
FLAGS = tuple(f"flag{n}" for n in range(110))


def figures() -> Iterator[Figure]:
    """Measure the preview of a fleet, the nasty one as the figure, and one host."""
    release = a_release()
    nasty, realistic = a_fleet(HOSTS), a_fleet(KINDS)
    slow, fast = (
        best_s(lambda: preview_fleet(release, nasty)),
        best_s(lambda: preview_fleet(release, realistic)),
    )
    print(
        f"bench: realistic fleet of {KINDS} kinds of machine {fast:.3f} s, nasty {slow:.3f} s",
        file=sys.stderr,
    )
    view = preview_fleet(release, nasty)
    yield Figure(
        "fleet_preview_10k_hosts_12_variants_s",
        slow,
        "s",
        f"every host different, {len(view.combinations)} variants given, {view.unmatched:,} hosts without; "
        f"{KINDS} kinds of machine {fast:.3g} s",
    )
    facts = next(iter(nasty.values())).facts
    one = best_s(lambda: match_release(release, facts, policy=SitePolicy()))
    yield Figure("match_release_12_variants_us", one * 1e6, "us", "one host, every variant with its reason")


def best_s(call: Callable[[], object]) -> float:
    """Return the shortest CPU time of several runs; there is one thread, so nothing is hidden by it."""
    best = float("inf")
    for _ in range(RUNS):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return best


def a_release() -> Release:
    """Return a release whose model has 12 variants with requirements of all sorts."""
    variants = tuple(a_variant(n) for n in range(VARIANTS))
    spec = ApplicationSpec(
        version="1.0.0",
        components=(
            Component(
                name="main",
                bundle=Bundle(files=(a_file("main", 1 << 20),)),
                command=("./main",),
                models=(ModelMount(name="defects", version="1.0.0", objective="fastest"),),
                resources=Resources(memory="1GiB", cpu="1"),
            ),
        ),
    )
    return Release(
        application=Application(metadata=Metadata("inspector"), spec=spec),
        models=(Model(metadata=Metadata("defects"), spec=ModelSpec(version="1.0.0", variants=variants)),),
    )


def a_variant(number: int) -> Variant:
    """Return a variant that needs the less the higher its number."""
    gpu = GpuRequirement(
        vendor="nvidia", memory=f"{24 - 4 * number}GiB", compute=">=7.5", driver=">=525,<600"
    )
    requires = Requirements(
        arch=("x86_64",) if number % 3 else ("x86_64", "aarch64"),
        arch_level="x86-64-v3" if number % 4 == 1 else "",
        os=("debian", "ubuntu"),
        cpu_flags=FLAGS[number * 5 : number * 5 + 3],
        memory=f"{2 * (VARIANTS - number) + 2}GiB",
        disk=f"{VARIANTS - number}GiB",
        gpu=gpu if number < 5 else None,
        runtimes={"onnxruntime": ("CUDAExecutionProvider",) if number < 5 else ()},
        facts={"custom.line": "a"} if number == 7 else {},
    )
    return Variant(
        name=f"variant-{number}",
        format="onnx",
        requires=requires,
        prefer=(Preference(when=Requirements(memory=f"{number + 20}GiB"), weight=number),),
        expects=Expectation(latency=f"{number + 1}ms", memory=f"{number + 1}GiB", accuracy=1 - number / 100),
        files=(a_file(f"variant-{number}", (VARIANTS - number) << 28),),
    )


def a_file(name: str, size_bytes: int) -> FileSpec:
    """Return a pinned file."""
    return FileSpec(path="file", digest=f"sha256:{abs(hash(name)) % 16**16:064x}", size_bytes=size_bytes)


def a_fleet(kinds: int) -> Mapping[str, PreviewHost]:
    """Return hosts of so many kinds of machine."""
    random.seed(7)
    machines = [msgspec.json.encode(some_facts(kind, kinds)) for kind in range(kinds)]
    return {
        f"host-{n}": PreviewHost(
            site=f"site-{n % 800}", facts=msgspec.json.decode(machines[n % kinds], type=HostFacts)
        )
        for n in range(HOSTS)
    }


def some_facts(number: int, kinds: int) -> HostFacts:
    """Return the facts of one kind of machine, all its figures its own."""
    latencies = {
        f"measured.defects@1.0.0/variant-{n}.latency_us": random.randrange(500, 20_000)
        for n in range(VARIANTS)
        if random.random() < 0.6
    }
    values: dict[str, FactValue] = {
        "arch": "aarch64" if number % 4 == 0 else "x86_64",
        "arch_level": LEVELS[number % 3],
        "os": ("debian", "ubuntu", "debian", "yocto")[number % 4],
        "cpu_count": 4 + number % 13,
        "cpu_flags": tuple(flag for flag in FLAGS if number % 3 or random.random() < 0.995),
        "memory_bytes": 2 * GIB + number * 30 * GIB // kinds + number,
        "disk.free_bytes": random.randrange(16 * GIB),
        "engine": "podman",
        "custom.line": "abc"[number % 3],
        "runtime.onnxruntime": "1.20.0",
        "runtime.onnxruntime.providers": ("CUDAExecutionProvider", "CPUExecutionProvider")[number % 2 :],
        "gpu.count": number % 3,
        **latencies,
    }
    for gpu in range(number % 3):
        values[f"gpu.{gpu}.vendor"] = "nvidia" if number % 5 else "intel"
        values[f"gpu.{gpu}.memory_bytes"] = random.randrange(26 * GIB)
        values[f"gpu.{gpu}.compute"] = ("7.2", "7.5", "8.6", "8.9")[number % 4]
        values[f"gpu.{gpu}.driver"] = f"{500 + number % 60}.{number % 90}.05"
    return {name: Fact(value=value, source="bench") for name, value in values.items()}
