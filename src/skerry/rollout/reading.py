"""From a rollout as written to what decisions go by."""

from __future__ import annotations

from skerry.kit.quantities import parse_duration
from skerry.rollout.facts import Amount, WavePlan
from skerry.spec.rollout import DEFAULT_WAVES, RolloutSpec, Wave


def waves_of(spec: RolloutSpec) -> tuple[Wave, ...]:
    """Return the waves of a rollout: its own, or the default ones."""
    return spec.waves or DEFAULT_WAVES


def read_waves(spec: RolloutSpec) -> tuple[WavePlan, ...]:
    """Return the waves as decisions go by them."""
    return tuple(_read_wave(number, wave) for number, wave in enumerate(waves_of(spec)))


def read_amount(text: str) -> Amount:
    """Return a number of sites, or a share of them; `spec` has checked its form."""
    if text.endswith("%"):
        return Amount(share=float(text[:-1]) / 100)
    return Amount(count=int(text))


def _read_wave(number: int, wave: Wave) -> WavePlan:
    per = wave.max_in_flight_per
    return WavePlan(
        name=wave.name or f"wave-{number + 1}",
        size=read_amount(wave.size),
        max_in_flight=read_amount(wave.max_in_flight),
        group=per.label if per else "",
        group_limit=read_amount(per.limit) if per else Amount(count=1),
        soak_s=parse_duration(wave.soak),
        manual=wave.approval == "manual",
        quorum=float(wave.quorum[:-1]) / 100,
        deadline_s=parse_duration(wave.deadline),
    )
