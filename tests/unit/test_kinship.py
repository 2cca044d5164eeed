"""Which releases are alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry.kit.digests import digest_of
from skerry.reconcile.kinship import Kinship, find_kinship
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Component,
    ComponentTest,
    Device,
    ModelMount,
    OnChange,
    Port,
    Volume,
)
from skerry.spec.image import Image, ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice

HOT = OnChange(signal="HUP")
CHOSEN = VariantChoice(model="mind", version="1", variant="only")


def blob(content: str, path: str = "file") -> FileSpec:
    return FileSpec(path=path, digest=digest_of(content.encode()), size_bytes=len(content))


def release(
    *, weights: str = "w1", on_change: OnChange | None = HOT, version: str = "1.0.0", **changes: Any
) -> Release:
    component = Component(
        name="head", command=("run",), models=(ModelMount(name="mind", version="1"),), on_change=on_change
    )
    component = msgspec.structs.replace(component, **changes)
    other = Component(name="tail", command=("wag",))
    spec = ApplicationSpec(version=version, components=(component, other))
    model = ModelSpec(version="1", variants=(Variant(name="only", format="text", files=(blob(weights),)),))
    return Release(
        application=Application(metadata=Metadata(name="dog"), spec=spec),
        models=(Model(metadata=Metadata(name="mind"), spec=model),),
    )


def kin(of: Release) -> Kinship:
    return find_kinship(of, (CHOSEN,))


def test_releases_that_differ_in_hot_models_alone_are_one_family() -> None:
    one, other = kin(release()), kin(release(weights="w2", version="2.0.0"))
    assert one == other
    assert one.hot


def test_a_model_that_is_not_taken_hot_makes_another_family_and_the_same_frame() -> None:
    one, other = kin(release(on_change=None)), kin(release(on_change=None, weights="w2"))
    assert one.family == other.family == ""
    assert one.frame == other.frame
    assert not one.hot


@pytest.mark.parametrize(
    "changes",
    (
        {"command": ("walk",)},
        {"env": {"MOOD": "good"}},
        {"ports": (Port(name="http"),)},
        {"volumes": (Volume(name="bones"),)},
    ),
)
def test_anything_else_that_a_process_is_made_of_makes_another_frame(changes: dict[str, Any]) -> None:
    one, other = kin(release()), kin(release(**changes))
    assert one.frame != other.frame
    assert one.family != other.family


def test_a_self_test_changes_nothing_about_what_runs() -> None:
    assert kin(release()) == kin(release(self_test=ComponentTest(command=("test",))))


def test_an_image_is_what_its_configuration_is_however_it_is_named() -> None:
    def image(name: str, config: str) -> Image:
        return Image(variants=(ImageVariant(name=name, config=blob(config)),))

    def of(name: str, config: str) -> Kinship:
        choice = VariantChoice(kind="image", model="head", version="", variant=name)
        return find_kinship(release(image=image(name, config), command=()), (CHOSEN, choice))

    assert of("amd64", "c1") == of("x86", "c1")
    assert of("amd64", "c1").frame != of("amd64", "c2").frame


@pytest.mark.parametrize(
    ("changes", "why"),
    (
        ({"ports": (Port(name="http", port=80),)}, "port 80"),
        ({"devices": (Device(name="eye", use="camera"),)}, "device eye"),
        ({"volumes": (Volume(name="bones"),)}, "volume bones"),
        ({"command": ("run", "${data}/x")}, "its directory"),
        ({"env": {"PLACE": "${data}"}}, "its directory"),
    ),
)
def test_what_speaks_against_two_at_a_time_is_told(changes: dict[str, Any], why: str) -> None:
    assert why in kin(release(**changes)).alone


def test_shared_devices_and_chosen_ports_do_not() -> None:
    assert (
        kin(
            release(ports=(Port(name="http"),), devices=(Device(name="eye", use="camera", shared=True),))
        ).alone
        == ""
    )


def test_a_release_that_is_to_be_compared_has_processes_of_its_own_but_for_its_configurations() -> None:
    def shadowed(made: Release) -> Release:
        spec = msgspec.structs.replace(made.application.spec, update="shadow")
        return msgspec.structs.replace(made, application=msgspec.structs.replace(made.application, spec=spec))

    one, other = (kin(shadowed(release(weights=f"w{n}", version=f"{n}.0.0"))) for n in (1, 2))
    assert one.family != other.family
    assert one.family
    assert one.frame == other.frame == kin(release()).frame
    assert kin(shadowed(release())) == kin(shadowed(release()))
