"""Which releases are so alike that what runs can go over from one to the other, or run beside it.

The frame of a release is all but its models; its family is all but the models that its components take while
they run. Values of its configuration belong to neither, how components take them to both. What only matters before a
start (self-tests) or elsewhere (placement, names) belongs to neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from skerry.kit.digests import digest_of
from skerry.spec.application import Component
from skerry.spec.binding import DEVICE_TYPES
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice


class Kinship(msgspec.Struct, frozen=True):
    """See `ReleaseFact`: the same names mean the same. `family` is empty where no component takes anything hot."""

    family: str = ""
    frame: str = ""
    hot: bool = False
    alone: str = ""


def find_kinship(release: Release, choices: Iterable[VariantChoice]) -> Kinship:
    """Return what a release is like, given the variants that were chosen for this host."""
    chosen: dict[tuple[str, str, str], str] = {
        (choice.kind, choice.model, choice.version): choice.variant for choice in choices
    }
    components = release.application.spec.components
    frames = [_frame(component, chosen.get(("image", component.name, ""), "")) for component in components]
    if needs := release.application.spec.needs:
        frames.append({"needs": msgspec.to_builtins(needs)})
    # What they are configured with is taken as models are; who cannot take it while it runs is restarted.
    hot = any(is_hot(component) or component.config is not None for component in components)
    frame = _digest(frames)
    cold = [_files(release, component, chosen) for component in components if not is_hot(component)]
    device = next((need.name for need in needs if need.type in DEVICE_TYPES), "")
    alone = next((why for component in components if (why := _alone(component))), "")
    alone = alone or (f"it is joined to the device {device}" if device else "")
    family: list[Any] = [frames, cold]
    if release.application.spec.update == "shadow":
        # One process can answer for one release at a time: to be compared, each needs its own.
        family.append(release.name)
    return Kinship(_digest(family) if hot else "", frame, hot, alone)


def is_hot(component: Component) -> bool:
    """Tell whether a component takes new models while it runs."""
    return component.on_change is not None and bool(component.models)


def _frame(component: Component, image: str) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(component)
    for elsewhere in ("self_test", "metrics"):
        plain.pop(elsewhere, None)
    plain["models"] = sorted(mount.name for mount in component.models)
    variants = component.image.variants if component.image else ()
    # An image is what its configuration says, wherever it came from and however it was chosen.
    plain["image"] = [v.config.digest for v in variants if v.config is not None and v.name == image]
    return plain


def _files(release: Release, component: Component, chosen: dict[tuple[str, str, str], str]) -> list[Any]:
    found: list[Any] = [component.name]
    for mount in component.models:
        model = release.model(mount.name, mount.version)
        name = chosen.get(("model", mount.name, mount.version))
        found.extend(
            [mount.name, sorted((file.path, str(file.digest)) for file in variant.files)]
            for variant in (model.spec.variants if model else ())
            if variant.name == name
        )
    return found


def _alone(component: Component) -> str:
    """Return why two of a component cannot run at a time, or nothing."""
    if component.image is None and (fixed := [port.port for port in component.ports if port.port]):
        return f"{component.name} listens on port {fixed[0]} of the host"
    if component.container.network == "host":
        return f"{component.name} uses the host's network"
    if device := next((device.name for device in component.devices if not device.shared), ""):
        return f"{component.name} has the device {device} for itself"
    if component.volumes:
        return f"{component.name} keeps data in volume {component.volumes[0].name}"
    if any("${data}" in text for text in (*component.command, *component.args, *component.env.values())):
        return f"{component.name} keeps data in its directory"
    return ""


def _digest(value: object) -> str:
    return digest_of(msgspec.json.encode(value, order="sorted"))
