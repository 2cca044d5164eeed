"""Hosts, models and releases for the tests of matching, in few words."""

from __future__ import annotations

from typing import Any

from skerry.kit.digests import digest_of
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Bundle,
    Component,
    Device,
    ModelMount,
    Placement,
)
from skerry.spec.facts import Fact, FactValue, HostFacts
from skerry.spec.hardware import Expectation, Objective, Preference, Requirements
from skerry.spec.image import Image, ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release

GIB = 1 << 30
NOTHING_EXPECTED = Expectation()
ON_EACH = Placement()


def facts(**values: FactValue) -> HostFacts:
    """Return facts by name; `__` is a dot."""
    return {name.replace("__", "."): Fact(value=value, source="test") for name, value in values.items()}


def gpus(*found: tuple[str, int, str, str]) -> HostFacts:
    """Return the facts of GPUs, each (vendor, GiB, compute, driver)."""
    values: dict[str, FactValue] = {"gpu.count": len(found)}
    for n, (vendor, memory, compute, driver) in enumerate(found):
        values |= {
            f"gpu.{n}.vendor": vendor,
            f"gpu.{n}.memory_bytes": memory * GIB,
            f"gpu.{n}.compute": compute,
            f"gpu.{n}.driver": driver,
        }
    return {name: Fact(value=value, source="test") for name, value in values.items()}


def file(name: str, size_bytes: int = 10) -> FileSpec:
    """Return a pinned file whose digest is its name's."""
    return FileSpec(path=name, digest=digest_of(name.encode()), size_bytes=size_bytes)


def variant(
    name: str,
    *,
    size_bytes: int = 10,
    prefer: tuple[Preference, ...] = (),
    expects: Expectation = NOTHING_EXPECTED,
    **requires: Any,
) -> Variant:
    """Return a variant of a model."""
    return Variant(
        name=name,
        format="onnx",
        requires=Requirements(**requires),
        prefer=prefer,
        expects=expects,
        files=(file(f"{name}.onnx", size_bytes),),
    )


def image(name: str, *, models: dict[str, tuple[str, ...]] | None = None, **fields: Any) -> ImageVariant:
    """Return a variant of an image, pinned."""
    known = {key: fields.pop(key) for key in ("platform", "expects", "prefer") if key in fields}
    return ImageVariant(
        name=name,
        requires=Requirements(**fields),
        models=models or {},
        config=file(f"{name}.json"),
        layers=(file(f"{name}.tar", 1000),),
        **known,
    )


def component(
    name: str = "main",
    *,
    models: tuple[str, ...] = (),
    images: tuple[ImageVariant, ...] = (),
    objective: Objective = "listed",
    devices: tuple[Device, ...] = (),
    **fields: Any,
) -> Component:
    """Return a component; of an image if any are named, else of a bundle."""
    return Component(
        name=name,
        bundle=None if images else Bundle(files=(file(f"{name}.bin"),)),
        image=Image(variants=images) if images else None,
        command=("./run",),
        models=tuple(ModelMount(name=model, version="1", objective=objective) for model in models),
        devices=devices,
        **fields,
    )


def release(
    *components: Component,
    models: dict[str, tuple[Variant, ...]] | None = None,
    placement: Placement = ON_EACH,
    name: str = "app",
) -> Release:
    """Return a release of version 1 with models of version 1."""
    return Release(
        application=Application(
            metadata=Metadata(name),
            spec=ApplicationSpec(version="1", components=components or (component(),), placement=placement),
        ),
        models=tuple(
            Model(metadata=Metadata(model), spec=ModelSpec(version="1", variants=variants))
            for model, variants in (models or {}).items()
        ),
    )
