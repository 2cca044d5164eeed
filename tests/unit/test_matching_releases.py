"""What of a release a host would run: objectives, pairs, pins, devices, and all reasons why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.devices import mark_shared
from skerry.matching.releases import ReleaseMatch, match_release, variant_key
from skerry.matching.variants import Choice, match_variant
from skerry.spec.application import Container, Device, Resources
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.hardware import Expectation, GpuRequirement, Objective, Preference, Requirements
from skerry.spec.image import ImageVariant
from skerry.spec.model import ModelSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from tests.unit.matching_world import GIB, component, facts, gpus, image, release, variant

AMD64 = facts(arch="x86_64", memory_bytes=8 * GIB, cpu_count=4, engine="podman")
GPU = GpuRequirement(memory="6GiB")


def match(found: Release, host: HostFacts, **rest: Any) -> ReleaseMatch:
    return match_release(found, host, policy=rest.pop("policy", SitePolicy()), **rest)


def chosen(found: ReleaseMatch) -> dict[str, str]:
    assert found.reasons == ()
    return {choice.model: choice.variant for choice in found.choices}


def best(objective: Objective, host: HostFacts, *variants: Variant) -> tuple[str, tuple[str, ...]]:
    found = match_variant(ModelSpec(version="1", variants=variants), host, name="m", objective=objective)
    assert isinstance(found, Choice)
    return found.variant.name, found.why


FP32 = variant("fp32", size_bytes=90 << 20, expects=Expectation(latency="20ms", accuracy=0.95, memory="2GiB"))
INT8 = variant("int8", size_bytes=22 << 20, expects=Expectation(latency="3.2ms", accuracy=0.91))
FP16 = variant("fp16", size_bytes=22 << 20, expects=Expectation(memory="1GiB"))


@pytest.mark.parametrize(
    ("objective", "host", "name", "lines"),
    (
        (
            "fastest",
            facts(**{"measured__m@1/fp32__latency_us": 9100}),
            "int8",
            (
                "fp32: slower, 9.1 ms (measured) against 3.2 ms (declared)",
                "int8: fits (asks for nothing in particular, 3.2 ms (declared))",
                "fp16: nothing says how fast it is",
            ),
        ),
        (
            "fastest",
            facts(**{"measured__m@1/fp32__latency_us": 3100}),
            "fp32",
            (
                "fp32: fits (asks for nothing in particular, 3.1 ms (measured))",
                "int8: slower, 3.2 ms (declared) against 3.1 ms (measured)",
                "fp16: nothing says how fast it is",
            ),
        ),
        (
            "most-accurate",
            {},
            "fp32",
            (
                "fp32: fits (asks for nothing in particular, accuracy 0.95)",
                "int8: less accurate, accuracy 0.91 against accuracy 0.95",
                "fp16: nothing says how accurate it is",
            ),
        ),
        (
            "smallest",
            {},
            "fp16",
            (
                "fp32: larger, 90 MiB against 22 MiB",
                "int8: as large, but takes more memory, an unknown amount against 1 GiB",
                "fp16: fits (asks for nothing in particular, 22 MiB)",
            ),
        ),
        (
            "listed",
            {},
            "fp32",
            (
                "fp32: fits (asks for nothing in particular)",
                "int8: less preferred, it comes later in its author's order",
                "fp16: less preferred, it comes later in its author's order",
            ),
        ),
    ),
)
def test_the_objective_decides_and_every_line_has_the_figure(
    objective: Objective, host: HostFacts, name: str, lines: tuple[str, ...]
) -> None:
    assert best(objective, host, FP32, INT8, FP16) == (name, lines)


def test_weights_come_before_the_authors_order_and_after_the_objective() -> None:
    wish = (Preference(when=Requirements(cpu_flags=("vnni",)), weight=5),)
    int8 = variant("int8", prefer=wish)
    plain = variant("plain", expects=Expectation(latency="1ms"))
    vnni = facts(cpu_flags=("vnni",))
    assert best("listed", vnni, plain, int8)[0] == "int8"
    assert best("listed", vnni, plain, int8)[1][0] == "plain: less preferred, weight 0 against 5"
    assert best("listed", facts(cpu_flags=()), plain, int8)[0] == "plain"
    assert best("fastest", vnni, int8, plain)[0] == "plain"


def test_images_are_chosen_by_platform_and_need_an_engine() -> None:
    found = release(
        component(images=(image("arm", platform="linux/arm64"), image("amd", platform="linux/amd64")))
    )
    result = match(found, AMD64)
    assert chosen(result) == {"main": "amd"}
    assert result.choices[0].kind == "image"
    assert result.choices[0].why[0] == "arm: needs platform linux/arm64, has x86_64"
    without = {name: fact for name, fact in AMD64.items() if name != "engine"}
    assert match(found, without).reasons == ("main: needs a container engine for its image, has none",)
    assert match(found, facts(arch="riscv64", engine="podman")).reasons == (
        "main: image: arm: needs platform linux/arm64, has riscv64",
        "main: image: amd: needs platform linux/amd64, has riscv64",
    )


def pair_release(cuda: tuple[ImageVariant, ...] = ()) -> Release:
    return release(
        component(
            models=("defects",),
            images=cuda
            or (
                image("cuda", models={"defects": ("trt",)}, gpu=GPU),
                image("cpu", models={"defects": ("onnx", "int8")}),
            ),
        ),
        models={"defects": (variant("trt", gpu=GpuRequirement()), variant("onnx"), variant("int8"))},
    )


def test_an_image_and_the_models_variant_are_chosen_together() -> None:
    assert chosen(match(pair_release(), {**AMD64, **gpus(("nvidia", 8, "8.6", "535"))})) == {
        "defects": "trt",
        "main": "cuda",
    }
    small = match(pair_release(), {**AMD64, **gpus(("nvidia", 4, "8.6", "535"))})
    assert chosen(small) == {"defects": "onnx", "main": "cpu"}
    assert small.choices[0].why == (
        "trt: goes with no image that fits and the other choices",
        "onnx: fits (asks for nothing in particular)",
        "int8: less preferred, it comes later in its author's order",
    )
    assert small.choices[1].why[0] == "cuda: needs GPU memory >= 6 GiB, has 4 GiB"


def test_what_fits_but_does_not_go_together_is_said() -> None:
    only_trt = (image("cuda", models={"defects": ("trt",)}),)
    reasons = match(pair_release(only_trt), {**AMD64, **gpus()}).reasons
    (reason,) = reasons
    assert reason.startswith("main: no image and model variants that fit go together: ")
    assert reason.endswith(": defects onnx fits; defects int8 fits; image cuda goes only with defects trt")


def test_the_search_for_what_goes_together_is_bounded() -> None:
    names = tuple(f"m{n}" for n in range(12))
    models = {name: tuple(variant(f"v{k}") for k in range(8)) for name in names}
    every = tuple(f"v{k}" for k in range(8))
    # Only the last model shows that nothing goes together: the others have 8 to the 11th combinations before it.
    ties_all, stubborn = (
        image("all", models=dict.fromkeys(names, every)),
        image("one", models={"m11": ("none",)}),
    )
    found = release(
        component("main", models=names, images=(ties_all,)),
        component("side", models=("m11",), images=(stubborn,)),
        models=models,
    )
    assert "go together" in match(found, AMD64).reasons[0]


def test_a_variant_that_failed_is_passed_over_with_its_reason() -> None:
    failed = {variant_key("defects", "1", "trt"): "output 3 is off by 0.2"}
    found = match(pair_release(), {**AMD64, **gpus(("nvidia", 8, "8.6", "535"))}, failed=failed)
    assert chosen(found) == {"defects": "onnx", "main": "cpu"}
    assert found.choices[0].why[0] == "trt: failed its self-test on this host: output 3 is off by 0.2"
    assert found.choices[1].why[0] == "cuda: goes only with defects trt"
    everything = {variant_key("defects", "1", name): "no" for name in ("trt", "onnx", "int8")}
    assert match(pair_release(), {**AMD64, **gpus()}, failed=everything).reasons[1] == (
        "main: model defects 1: onnx: failed its self-test on this host: no"
    )


def test_a_pinned_choice_stays_whatever_the_facts_say_and_others_follow_it() -> None:
    pin = VariantChoice(model="defects", version="1", variant="trt", why=("as before",))
    with_gpu = {**AMD64, **gpus(("nvidia", 8, "8.6", "535"))}
    assert match(pair_release(), with_gpu, pinned=(pin,)).choices[0] is pin
    int8 = VariantChoice(model="defects", version="1", variant="int8", why=("as before",))
    assert chosen(match(pair_release(), with_gpu, pinned=(int8,))) == {"defects": "int8", "main": "cpu"}
    foreign = VariantChoice(model="other", version="1", variant="x")
    assert chosen(match(pair_release(), with_gpu, pinned=(foreign,)))["defects"] == "trt"


def test_all_reasons_are_told_at_once() -> None:
    found = release(
        component(
            images=(image("amd", platform="linux/amd64"),),
            models=("defects",),
            devices=(Device(name="eye", use="camera"), Device(name="gpu", use="nvidia.com/gpu=0")),
            container=Container(network="host"),
            resources=Resources(memory="64GiB", cpu="99"),
        ),
        models={"defects": (variant("fp16", gpu=GPU), variant("big", memory="1TiB"))},
    )
    host = facts(arch="aarch64", memory_bytes=8 * GIB, cpu_count=4, devices__camera=())
    assert match(found, host).reasons == (
        "main: model defects 1: fp16: needs GPU with memory >= 6 GiB, GPUs of this host are unknown",
        "main: model defects 1: big: needs memory >= 1 TiB, has 8 GiB",
        "main: image: amd: needs platform linux/amd64, has aarch64",
        "main: needs a container engine for its image, has none",
        "main: needs memory for its limit of 64 GiB, has 8 GiB",
        "main: needs processors for its limit of 99, has 4",
        "main: asks for the host's own network, which the site does not allow (host_network)",
        "main: needs device gpu: nvidia.com/gpu=0, has no devices of the Container Device Interface",
        "main: needs device eye: a camera, has none",
    )


def test_a_limit_on_a_host_of_unknown_size_is_left_to_the_host() -> None:
    assert match(release(component(resources=Resources(memory="64GiB"))), {}).reasons == ()


def test_the_hosts_own_network_is_used_where_the_site_allows_it() -> None:
    found = release(component(images=(image("any"),), container=Container(network="host")))
    assert match(found, AMD64, policy=SitePolicy(host_network=True)).reasons == ()


CAMERAS = facts(devices__camera=("/dev/video0", "/dev/video2"), devices__cdi=("nvidia.com/gpu=0",))


def devices(host: HostFacts, *wanted: Device, taken: frozenset[str] = frozenset()) -> ReleaseMatch:
    return match(release(component(devices=wanted)), host, taken=taken)


def test_what_is_named_goes_before_what_any_of_its_class_would_do() -> None:
    found = devices(CAMERAS, Device(name="any", use="camera"), Device(name="front", use="/dev/video0"))
    assert found.devices == {"main": {"front": "/dev/video0", "any": "/dev/video2"}}


def test_a_device_is_for_one_alone_unless_all_share_it() -> None:
    eye, twin = Device(name="eye", use="camera"), Device(name="twin", use="camera", shared=True)
    zero, two = "/dev/video0", "/dev/video2"
    assert devices(CAMERAS, eye, taken=frozenset([zero])).devices["main"]["eye"] == two
    assert devices(CAMERAS, eye, taken=frozenset([zero, mark_shared(two)])).reasons == (
        "main: needs device eye: a camera, has /dev/video0, /dev/video2, none of them free",
    )
    assert devices(CAMERAS, twin, taken=frozenset([zero, mark_shared(two)])).devices["main"]["twin"] == two
    assert devices(CAMERAS, twin, taken=frozenset([zero, two])).reasons
    both = Device(name="a", use="/dev/video0"), Device(name="b", use="/dev/video0", shared=True)
    assert devices(CAMERAS, *both).reasons == ("main: needs device b: /dev/video0, which is not free",)


def test_a_path_that_facts_know_not_to_be_there_is_refused_and_another_is_left_to_the_host() -> None:
    lines = {**CAMERAS, "devices.serial": Fact(value=("/dev/ttyUSB0",), source="test")}
    assert devices(lines, Device(name="line", use="/dev/ttyUSB9")).reasons == (
        "main: needs device line: /dev/ttyUSB9, has /dev/ttyUSB0",
    )
    unknown = devices(CAMERAS, Device(name="odd", use="/dev/odd"), Device(name="bus", use="/dev/i2c-1"))
    assert unknown.reasons == ()
    assert unknown.notes == (
        "main: no fact says whether /dev/odd is there; the host looks before it stops anything",
        "main: no fact says whether /dev/i2c-1 is there; the host looks before it stops anything",
    )


def test_a_cdi_device_is_for_containers_only() -> None:
    gpu = Device(name="gpu", use="nvidia.com/gpu=0")
    assert devices(CAMERAS, gpu).reasons == (
        "main: needs device gpu: nvidia.com/gpu=0, which can only be given to a container",
    )
    found = match(release(component(images=(image("any"),), devices=(gpu,))), {**AMD64, **CAMERAS})
    assert found.devices == {"main": {"gpu": "nvidia.com/gpu=0"}}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Release, HostFacts]:
    """A release with pairs, and a host that may or may not fit it."""
    gpu = st.one_of(
        st.none(), st.none(), st.integers(1, 3).map(lambda n: GpuRequirement(memory=f"{4 * n}GiB"))
    )
    size = st.one_of(st.none(), st.sampled_from(["2GiB", "6GiB"]))
    wish = st.lists(st.sampled_from(["2GiB", "6GiB"]), max_size=2)

    def some_variant(name: str) -> Variant:
        return variant(
            name,
            size_bytes=draw(st.integers(1, 3)),
            prefer=tuple(
                Preference(when=Requirements(memory=bound), weight=draw(st.integers(-2, 2)))
                for bound in draw(wish)
            ),
            expects=Expectation(latency=draw(st.sampled_from([None, "1ms", "2ms"]))),
            gpu=draw(gpu),
            memory=draw(size),
        )

    models = {m: tuple(some_variant(f"v{n}") for n in range(draw(st.integers(1, 3)))) for m in ("a", "b")}
    subsets = st.lists(st.sampled_from(["v0", "v1", "v2"]), min_size=1, unique=True).map(tuple)
    images = tuple(
        image(
            f"i{n}",
            platform=draw(st.sampled_from(["", "linux/amd64", "linux/arm64"])),
            models=draw(st.dictionaries(st.sampled_from(["a", "b"]), subsets, max_size=2)),
        )
        for n in range(draw(st.integers(1, 3)))
    )
    objective: Objective = draw(st.sampled_from(["listed", "fastest", "smallest", "most-accurate"]))
    found = release(
        component("main", models=("a", "b"), images=images, objective=objective),
        component(
            "side", models=("b",), devices=(Device(name="eye", use="camera"),)[: draw(st.integers(0, 1))]
        ),
        models=models,
    )
    host = {
        **facts(
            arch=draw(st.sampled_from(["x86_64", "aarch64"])),
            memory_bytes=draw(st.integers(1, 8)) * GIB,
            devices__camera=("/dev/video0",)[: draw(st.integers(0, 1))],
            engine="podman",
        ),
        **gpus(*(("nvidia", draw(st.integers(1, 13)), "8.6", "535") for _ in range(draw(st.integers(0, 2))))),
        **facts(
            **{
                f"measured__a@1/v{n}__latency_us": draw(st.integers(500, 3000))
                for n in range(draw(st.integers(0, 3)))
            }
        ),
    }
    return found, host


@given(worlds(), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_facts(
    world: tuple[Release, HostFacts], random: Any
) -> None:
    found, host = world
    names = list(host)
    random.shuffle(names)
    assert match(found, {name: host[name] for name in names}) == match(found, host)


@given(worlds())
def test_what_is_chosen_meets_every_requirement_and_goes_together(world: tuple[Release, HostFacts]) -> None:
    found, host = world
    result = match(found, host)
    if result.reasons:
        return
    names = {choice.model: choice.variant for choice in result.choices}
    memory = host["memory_bytes"].value
    assert isinstance(memory, int)
    for model in found.models:
        one = next(v for v in model.spec.variants if v.name == names[model.metadata.name])
        assert one.requires.memory is None or int(one.requires.memory[0]) * GIB <= memory
        assert one.requires.gpu is None or host["gpu.count"].value
    picked = found.application.spec.components[0].image
    assert picked is not None
    chosen_image = next(v for v in picked.variants if v.name == names["main"])
    assert all(names[model] in allowed for model, allowed in chosen_image.models.items())


@given(worlds())
def test_more_hardware_never_turns_a_match_into_none(world: tuple[Release, HostFacts]) -> None:
    found, host = world
    if match(found, host).reasons:
        return
    better = {
        **host,
        **facts(memory_bytes=99 * GIB, devices__camera=("/dev/video0", "/dev/video2"), custom__x="y"),
        **gpus(("nvidia", 99, "8.6", "535"), ("nvidia", 99, "8.6", "535")),
    }
    assert match(found, better).reasons == ()
