"""A fleet's preview says of every host what the host itself would say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.matching.capacity import Need
from skerry.matching.preview import PreviewHost, preview_fleet
from skerry.matching.releases import match_release, variant_key
from skerry.spec.application import Container, Device, Placement, Resources
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import Fact, FactValue, HostFacts
from skerry.spec.hardware import Expectation, GpuRequirement, Preference, Requirements
from skerry.spec.release import Release
from tests.unit.matching_world import GIB, component, facts, file, gpus, image, release, variant

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def preview_hosts(*found: HostFacts, **rest: Any) -> dict[str, PreviewHost]:
    return {f"h{n}": PreviewHost(site=f"s{n % 2}", facts=one, **rest) for n, one in enumerate(found)}


FP16 = variant("fp16", size_bytes=3 * GIB, gpu=GpuRequirement(memory="6GiB"))
INT8 = variant("int8", size_bytes=GIB, arch=("x86_64",))
INSPECTOR = release(
    component(models=("defects",), resources=Resources(memory="2GiB")), models={"defects": (FP16, INT8)}
)
X86 = facts(arch="x86_64", memory_bytes=4 * GIB, disk__free_bytes=2 * GIB)
ARM = facts(arch="aarch64", memory_bytes=4 * GIB, disk__free_bytes=2 * GIB)


def test_hosts_are_counted_by_what_they_get_and_by_why_they_get_nothing() -> None:
    hosts = preview_hosts(
        X86, X86, {**ARM, **gpus(("nvidia", 8, "8.7", "540"))}, {**ARM, **gpus()}, {}, as_of=NOW
    )
    view = preview_fleet(INSPECTOR, hosts)
    assert (view.hosts, view.sites, view.matched, view.unmatched, view.without_facts) == (5, 2, 3, 1, 1)
    assert [(c.models, c.hosts, c.examples, c.size_bytes) for c in view.combinations] == [
        ({"defects 1": "int8"}, 2, ("h0", "h1"), GIB + 10),
        ({"defects 1": "fp16"}, 1, ("h2",), 3 * GIB + 10),
    ]
    assert [(r.reason, r.hosts, r.examples) for r in view.reasons] == [
        ("main: model defects 1: fp16: needs GPU with memory >= 6 GiB", 1, ("h3",)),
        ("main: model defects 1: int8: needs arch x86_64", 1, ("h3",)),
    ]
    assert view.without_facts_examples == ("h4",)
    assert view.oldest_facts_at == NOW


def test_disk_that_will_not_fit_is_what_the_host_lacks_beyond_what_it_holds() -> None:
    tight = facts(arch="x86_64", memory_bytes=4 * GIB, disk__free_bytes=GIB)
    (found,) = preview_fleet(INSPECTOR, preview_hosts(tight)).disk.worst
    assert (found.host, found.site, found.needed_bytes, found.left_bytes) == ("h0", "s0", GIB + 10, GIB)
    held = frozenset([str(file("int8.onnx").digest)])
    assert preview_fleet(INSPECTOR, preview_hosts(tight, holds=held)).disk.lacking == 0
    unknown = facts(arch="x86_64", memory_bytes=4 * GIB)
    assert preview_fleet(INSPECTOR, preview_hosts(unknown)).disk.unknown == 1


def test_an_image_needs_its_room_twice_but_travels_once() -> None:
    found = release(component(images=(image("any"),)))
    view = preview_fleet(found, preview_hosts({**facts(disk__free_bytes=1500), **facts(engine="podman")}))
    assert view.combinations[0].size_bytes == 1010
    assert view.disk.worst[0].needed_bytes == 2020


def test_memory_that_others_have_set_aside_will_not_do() -> None:
    reserved = Need(memory_bytes=3 * GIB)
    view = preview_fleet(INSPECTOR, preview_hosts(X86, reserved=reserved))
    assert view.memory.worst[0].needed_bytes == 2 * GIB
    assert view.memory.worst[0].left_bytes == GIB
    assert preview_fleet(INSPECTOR, preview_hosts(X86)).memory.lacking == 0


@pytest.mark.parametrize(
    ("found", "fits", "differs"),
    (
        (
            release(
                component(models=("m",)), models={"m": (variant("v", gpu=GpuRequirement(memory="6GiB")),)}
            ),
            PreviewHost(site="s", facts=gpus(("nvidia", 8, "8.6", "535"))),
            PreviewHost(site="s", facts=gpus(("nvidia", 4, "8.6", "535"))),
        ),
        (
            release(component(models=("m",)), models={"m": (variant("v", facts={"custom.safe": "true"}),)}),
            PreviewHost(site="s", facts=facts(custom__safe=True)),
            PreviewHost(site="s", facts=facts(custom__safe=1)),
        ),
        (
            release(component(devices=(Device(name="eye", use="camera"),))),
            PreviewHost(site="s", facts=facts(devices__camera=("/dev/video0",))),
            PreviewHost(site="s", facts=facts(devices__camera=())),
        ),
        (
            release(component(images=(image("i"),), container=Container(network="host"))),
            PreviewHost(site="s", facts=facts(engine="podman"), policy=SitePolicy(host_network=True)),
            PreviewHost(site="s", facts=facts(engine="podman")),
        ),
    ),
)
def test_hosts_that_differ_in_one_thing_have_answers_of_their_own(
    found: Release, fits: PreviewHost, differs: PreviewHost
) -> None:
    for hosts in ({"fits": fits, "differs": differs}, {"differs": differs, "fits": fits}):
        view = preview_fleet(found, hosts)
        assert [c.examples for c in view.combinations] == [("fits",)]
        assert [r.examples for r in view.reasons] == [("differs",)]


def test_a_host_that_the_placement_does_not_want_is_no_failure() -> None:
    found = release(component(), placement=Placement(requires=Requirements(arch=("x86_64",))))
    view = preview_fleet(found, preview_hosts(X86, ARM))
    assert (view.matched, view.unmatched, view.elsewhere) == (1, 0, 1)
    assert view.elsewhere_reasons[0].reason == "the placement needs arch x86_64"


VALUES: dict[str, st.SearchStrategy[FactValue]] = {
    "arch": st.sampled_from(["x86_64", "aarch64"]),
    "arch_level": st.sampled_from(["x86-64-v2", "x86-64-v3", "armv8.2-a"]),
    "os": st.sampled_from(["debian", "yocto"]),
    "cpu_flags": st.lists(st.sampled_from(["avx2", "vnni"]), unique=True).map(tuple),
    "cpu_count": st.integers(1, 8),
    "memory_bytes": st.integers(0, 9 * GIB) | st.sampled_from([4 * GIB, True, "many"]),
    "disk.free_bytes": st.integers(0, 9 * GIB),
    "engine": st.just("podman"),
    "gpu.count": st.integers(0, 2),
    "gpu.0.vendor": st.sampled_from(["nvidia", "intel"]),
    "gpu.0.memory_bytes": st.integers(0, 16 * GIB),
    "gpu.0.compute": st.sampled_from(["7.5", "8.6", "x"]),
    "gpu.1.memory_bytes": st.integers(0, 16 * GIB),
    "accelerators": st.sampled_from([(), ("hailo-8",)]),
    "runtime.onnxruntime": st.just("1.20"),
    "runtime.onnxruntime.providers": st.sampled_from([(), ("CUDAExecutionProvider",)]),
    "devices.camera": st.sampled_from([(), ("/dev/video0",), ("/dev/video0", "/dev/video1")]),
    "custom.safe": st.sampled_from([True, False, 1, "true", ("true",)]),
    "measured.a@1/v0.latency_us": st.integers(0, 3000),
    "measured.a@1/v1.latency_us": st.integers(0, 3000),
    "measured.a@1/v2.latency_us": st.integers(0, 3000) | st.just("soon"),
}
REQUIREMENTS: dict[str, st.SearchStrategy[Any]] = {
    "arch": st.just(("x86_64",)),
    "arch_level": st.sampled_from(["x86-64-v3", "armv8-a"]),
    "os": st.just(("debian", "ubuntu")),
    "cpu_flags": st.sampled_from([("avx2",), ("avx2", "vnni")]),
    "memory": st.sampled_from(["1GiB", "4GiB", "6GiB"]),
    "disk": st.sampled_from(["1GiB", "4GiB"]),
    "gpu": st.builds(
        GpuRequirement,
        vendor=st.sampled_from([None, "nvidia"]),
        memory=st.sampled_from([None, "4GiB", "8GiB"]),
        compute=st.sampled_from(["", ">=8"]),
        count=st.sampled_from([1, 1, 2]),
    ),
    "accelerators": st.just(("hailo-8", "hailo-8l")),
    "runtimes": st.sampled_from([{"onnxruntime": ()}, {"onnxruntime": ("CUDAExecutionProvider",)}]),
    "devices": st.just(("camera",)),
    "facts": st.sampled_from([{"custom.safe": "true"}, {"custom.safe": "1"}, {"memory_bytes": "7"}]),
}


@st.composite
def some_requirements(draw: st.DrawFn) -> dict[str, Any]:
    """One or two, so that a host is likely to meet some variants and not others."""
    names = draw(st.lists(st.sampled_from(sorted(REQUIREMENTS)), max_size=2, unique=True))
    return {name: draw(REQUIREMENTS[name]) for name in names}


requirements = some_requirements()


@st.composite
def some_hosts(draw: st.DrawFn) -> list[HostFacts]:
    """One of which everything is known, and others that differ from it in a few facts or lack them."""
    first = {name: draw(value) for name, value in VALUES.items()}
    found = [first]
    for _ in range(draw(st.integers(3, 9))):
        changed = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=8))
        gone = draw(st.integers(0, 3)) == 0
        other = {name: value for name, value in first.items() if not (gone and name in changed)}
        found.append(other if gone else {**first, **{name: draw(VALUES[name]) for name in changed}})
    return [{name: Fact(value=value, source="test") for name, value in one.items()} for one in found]


@st.composite
def some_release(draw: st.DrawFn) -> Release:
    variants = tuple(
        variant(
            f"v{n}",
            size_bytes=draw(st.integers(1, 3)),
            prefer=(Preference(when=Requirements(**draw(requirements)), weight=draw(st.integers(-2, 2))),),
            expects=Expectation(latency=draw(st.sampled_from([None, "1ms", "2ms"]))),
            **draw(requirements),
        )
        for n in range(3)
    )
    tied = draw(st.dictionaries(st.just("a"), st.sampled_from([("v0",), ("v1", "v2")]), max_size=1))
    images = (image("one", models=tied, platform="linux/amd64"), image("two", **draw(requirements)))
    return release(
        component(
            models=("a",),
            images=images[: draw(st.sampled_from([0, 0, 0, 1, 2]))],
            objective=draw(st.sampled_from(["listed", "fastest", "smallest", "most-accurate"])),
            devices=(Device(name="eye", use=draw(st.sampled_from(["camera", "/dev/video1"]))),)[
                : draw(st.sampled_from([0, 0, 0, 1]))
            ],
            container=Container(network=draw(st.sampled_from(["application", "host"]))),
            resources=Resources(
                memory=draw(st.sampled_from([None, None, None, "3GiB"])),
                cpu=draw(st.sampled_from([None, None, None, "4"])),
            ),
        ),
        models={"a": variants},
    )


@settings(max_examples=100)
@given(
    some_release(),
    some_hosts(),
    st.booleans(),
    st.sets(st.sampled_from(["v0", "v1", "v2"])),
)
def test_the_preview_of_every_host_is_what_the_host_itself_would_choose(
    found: Release, hosts: list[HostFacts], host_network: bool, failed: set[str]
) -> None:
    policy = SitePolicy(host_network=host_network)
    remembered = {variant_key("a", "1", name): "no" for name in failed}
    many = preview_hosts(*hosts, policy=policy, failed=remembered)
    view = preview_fleet(found, many)
    assert bool(view.reasons) is bool(view.unmatched)
    matched: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for name, one in many.items():
        own = match_release(found, one.facts, policy=policy, failed=remembered)
        if not own.reasons:
            picked = tuple(sorted((choice.model, choice.variant) for choice in own.choices))
            matched.setdefault(picked, set()).add(name)
    assert {
        tuple(sorted([*((k.split()[0], v) for k, v in c.models.items()), *c.images.items()])): c.hosts
        for c in view.combinations
    } == {picked: len(names) for picked, names in matched.items()}
    assert view.unmatched == len(hosts) - sum(map(len, matched.values()))
