"""The course of a simulated rollout as an SVG: sites by state over time, stacked, with the waves as bands above.

The text says what the picture shows, for those who do not see it; states differ in lightness as well as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from skerry.kit.quantities import format_duration
from skerry.spec.api_rollout import SiteRolloutState
from skerry.testing.simulation.results import Moment, SimulationResult, WaveResult

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 48, 56
STATES: tuple[tuple[SiteRolloutState, str], ...] = (
    ("succeeded", "#1b7837"),
    ("soaking", "#5aae61"),
    ("applying", "#a6dba0"),
    ("ready", "#c7e9c0"),
    ("waiting_window", "#fee391"),
    ("held", "#fec44f"),
    ("downloading", "#6baed6"),
    ("offered", "#bdd7e7"),
    ("failed", "#99000d"),
    ("rolled_back", "#fb6a4a"),
    ("superseded", "#9e9ac8"),
    ("pending", "#d9d9d9"),
    ("unreachable", "#737373"),
)
"""From the bottom up."""
BANDS = ("#e8e8e8", "#c9d6e8")
BAND = 18
MAIN_SHARE = 0.6
"""Of the width, for the waves."""
_HEAD = 'role="img" aria-labelledby="title desc" font-family="sans-serif" font-size="12"'
_STEPS_S = (60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 30 * 86400)


def draw_rollout(result: SimulationResult) -> str:
    """Return the picture; time ends where nothing changes any more."""
    last_s = max([moment.at_s for moment in result.timeline], default=0.0)
    passed = [wave.passed_s for wave in result.waves if wave.passed_s is not None]
    waves_s = 1.05 * max(passed) if len(passed) == len(result.waves) else 0.0
    ends_s = max(1.0, min(result.duration_s, last_s * 1.02))
    scale = _Scale(ends_s, max(1, result.sites), waves_s if passed else 0.0)
    shown: list[tuple[SiteRolloutState, str]] = [
        (state, colour) for state, colour in STATES if any(m.states.get(state) for m in result.timeline)
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {_HEAD}>',
        f'<title id="title">{escape(_title(result))}</title>',
        f'<desc id="desc">{escape(_described(result))}</desc>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(_title(result))}</text>',
        *_areas(result.timeline, shown, scale),
        *_bands(result.waves, scale),
        *_axes(scale),
        *_legend(shown),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """From seconds and sites to the places in the picture.

    Where the last wave has passed long before the end, the time until then has most of the width, and the rest its own
    scale: the tail of sites that are away would otherwise leave nothing to be seen of the waves.
    """

    def __init__(self, seconds: float, sites: int, waves_s: float) -> None:
        self.seconds = seconds
        self.sites = sites
        self.break_s = waves_s if 0 < waves_s < MAIN_SHARE * seconds else seconds
        width = WIDTH - LEFT - RIGHT
        self._break_x = LEFT + (width * MAIN_SHARE if self.break_s < seconds else width)

    @property
    def pieces(self) -> tuple[tuple[float, float], ...]:
        """The pieces of the axis of time, each with a scale of its own: begin and end."""
        whole = self.break_s >= self.seconds
        return ((0.0, self.seconds),) if whole else ((0.0, self.break_s), (self.break_s, self.seconds))

    def x(self, at_s: float) -> float:
        """Return where an instant is."""
        at_s = min(at_s, self.seconds)
        if at_s <= self.break_s:
            return round(LEFT + (self._break_x - LEFT) * at_s / self.break_s, 2)
        share = (at_s - self.break_s) / (self.seconds - self.break_s)
        return round(self._break_x + (WIDTH - RIGHT - self._break_x) * share, 2)

    def y(self, sites: float) -> float:
        """Return where a number of sites is."""
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * sites / self.sites, 2)


def _title(result: SimulationResult) -> str:
    what = "Forecast" if result.forecast else "Simulation"
    return f"{what} of rollout {result.rollout}: {result.release} on {result.sites} sites, {result.state}"


def _described(result: SimulationResult) -> str:
    ends = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in result.states.items())
    waves = "; ".join(
        f"{wave.name} began after {format_duration(wave.began_s)}"
        if wave.began_s is not None
        else f"{wave.name} not begun"
        for wave in result.waves
    )
    half = format_duration(result.all.p50_s) if result.all.p50_s is not None else "never"
    return f"Half of the sites run the release after: {half}. In the end: {ends}. Waves: {waves}."


def _bands(waves: Sequence[WaveResult], scale: _Scale) -> Iterator[str]:
    """Yield a band over the areas for each wave that began, and a line where it did."""
    for number, wave in enumerate(waves):
        if wave.began_s is None:
            continue
        ends_s = wave.passed_s if wave.passed_s is not None else scale.seconds
        begin, end = scale.x(wave.began_s), scale.x(ends_s)
        width = max(1.0, round(end - begin, 2))
        told = f"{wave.name}: {wave.state}, {wave.members} sites"
        yield (
            f'<rect class="wave" x="{begin}" y="{TOP - BAND}" width="{width}" height="{BAND}" '
            f'fill="{BANDS[number % 2]}"><title>{escape(told)}</title></rect>'
        )
        yield f'<path d="M{begin} {TOP - BAND}V{HEIGHT - BOTTOM}" stroke="#333333" stroke-dasharray="2 3"/>'
        if width > 7 * len(wave.name):
            yield f'<text x="{begin + 4}" y="{TOP - 5}">{escape(wave.name)}</text>'


def _areas(
    timeline: Sequence[Moment], shown: Sequence[tuple[SiteRolloutState, str]], scale: _Scale
) -> Iterator[str]:
    """Yield one area per state; a state holds until the next moment, so the edges are steps."""
    moments = [*timeline, Moment(at_s=scale.seconds, states=timeline[-1].states)] if timeline else []
    below = [0] * len(moments)
    for state, colour in shown:
        above = [low + moment.states.get(state, 0) for low, moment in zip(below, moments, strict=True)]
        upper = list(_steps(moments, above, scale))
        lower = list(_steps(moments, below, scale))
        points = " ".join(f"{x},{y}" for x, y in [*upper, *reversed(lower)])
        yield f'<polygon class="{state}" points="{points}" fill="{colour}"><title>{state}</title></polygon>'
        below = above


def _steps(moments: Sequence[Moment], values: Sequence[int], scale: _Scale) -> Iterator[tuple[float, float]]:
    for number, (moment, value) in enumerate(zip(moments, values, strict=True)):
        if number and values[number - 1] != value:
            yield scale.x(moment.at_s), scale.y(values[number - 1])
        yield scale.x(moment.at_s), scale.y(value)


def _axes(scale: _Scale) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#333333"/>'
    for part in range(5):
        sites = round(scale.sites * part / 4)
        y = scale.y(sites)
        yield f'<path d="M{LEFT - 4} {y}H{LEFT}" stroke="#333333"/>'
        yield f'<text x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{sites}</text>'
    for begin_s, end_s in scale.pieces:
        length_s = end_s - begin_s
        step = next((step for step in _STEPS_S if length_s / step <= 6), length_s / 4)
        for number in range(math.ceil(begin_s / step), int(end_s // step) + 1):
            x = scale.x(number * step)
            label = format_duration(number * step) if number else "0"
            yield f'<path d="M{x} {bottom}v4" stroke="#333333"/>'
            yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
    if len(scale.pieces) > 1:
        x = scale.x(scale.break_s)
        yield f'<path d="M{x} {TOP}V{bottom + 30}" stroke="#000000" stroke-width="2"/>'
        yield f'<text x="{x + 6}" y="{bottom + 32}">from here on another scale</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">time since the beginning</text>'
    yield f'<text x="{LEFT - 7}" y="{TOP - 14}" text-anchor="end">sites</text>'


def _legend(shown: Sequence[tuple[SiteRolloutState, str]]) -> Iterator[str]:
    """Yield the legend, in the order of the areas: what is on top stands on top."""
    x = WIDTH - RIGHT + 16
    for number, (state, colour) in enumerate(reversed(shown)):
        y = TOP + 20 * number
        yield f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}" stroke="#333333" stroke-width="0.5"/>'
        yield f'<text x="{x + 18}" y="{y + 10}">{escape(state.replace("_", " "))}</text>'
