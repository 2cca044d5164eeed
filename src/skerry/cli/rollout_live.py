"""The live view of a rollout on a terminal: one line per wave, and the sites in trouble, kept up to date.

Rules: it never grows beyond the terminal; names and reasons cannot steer it; it leaves the last picture standing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Self

from skerry.cli.rollout_picture import Counts, Picture, bar_of, draw_picture
from skerry.cli.text import STATE_COLOURS, clean, colours_wanted, now
from skerry.spec.api import RolloutView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_BAR_CELLS = 20
_WIDEST_CELL = 24
_GAP = 2
_LEAST_SITES = 3
_OTHER_LINES = 8
_STYLES = {"succeeded": "green", "failed": "red", "at_work": "yellow", "away": "bright_black", "waiting": ""}
_SIGNS = {"succeeded": "█", "failed": "X", "at_work": "▒", "away": "?", "waiting": "·"}
_PLAIN_SIGNS = {"succeeded": "#", "failed": "X", "at_work": ">", "away": "?", "waiting": "."}


class LiveView:
    """A display that redraws itself, ages included, twice a second; use it in a `with`."""

    def __init__(self) -> None:
        # Late, so that commands that draw nothing do not pay for it.
        from rich.console import Console
        from rich.live import Live

        # One value, because the thread that redraws reads it at any time.
        self._shown: tuple[RolloutView | None, datetime, str] = (None, now(), "")
        self._console = Console(no_color=not colours_wanted(), highlight=False)
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def seen(self, view: RolloutView, at: datetime) -> None:
        """Show the rollout as the hub told it just now."""
        self._shown = (view, at, "")
        self._live.refresh()

    def away(self, why: str, at: datetime) -> None:
        """Show that the hub did not answer, and how old the rest is."""
        view, seen_at, _ = self._shown
        self._shown = (view, seen_at if view else at, why)
        self._live.refresh()

    def _render(self) -> RenderableType:
        from rich.text import Text

        view, seen_at, away = self._shown
        if view is None:
            return Text(clean(f"{away}; waiting for the hub" if away else "asking the hub"))
        room = max(_LEAST_SITES, self._console.height - len(view.waves) - _OTHER_LINES)
        return render_picture(
            draw_picture(view, at=now(), seen_at=seen_at, away=away, room=room), self._console
        )


def render_picture(picture: Picture, console: Console) -> RenderableType:
    """Return a picture as it is drawn on a console."""
    from rich.console import Group
    from rich.text import Text

    head = Text(clean(f"rollout {picture.name} ({picture.release}): "), style="bold")
    head.append(clean(picture.state), style=STATE_COLOURS.get(picture.state, ""))
    parts: list[RenderableType] = [head, Text(clean(picture.why))]
    parts += [Text(clean(line), style="bright_black") for line in picture.facts]
    if picture.away:
        parts.append(Text(clean(picture.away), style="yellow"))
    if picture.waves:
        parts.append(_wave_table(picture, console))
    if picture.sites:
        parts.append(_site_table(picture, console.width))
    if picture.more:
        parts.append(Text(f"and {picture.more} more", style="bright_black"))
    return Group(*parts)


def _wave_table(picture: Picture, console: Console) -> RenderableType:
    from rich.text import Text

    table = _Table("WAVE", "STATE", "", "DONE", "FAILED", "AT WORK", "AWAY", last="")
    for row in picture.waves:
        counts = row.counts
        done = f"{counts.succeeded}/{counts.members}" if counts.members or not row.size else f"of {row.size}"
        table.add(
            Text(clean(row.name)),
            Text(row.state, style=STATE_COLOURS.get(row.state, "")),
            _bar(counts, plain=console.options.ascii_only),
            *(Text(str(cell or "-")) for cell in (done, counts.failed, counts.at_work, counts.away)),
            Text(clean(row.note)),
        )
    return table.drawn(console.width)


def _bar(counts: Counts, *, plain: bool) -> Text:
    from rich.text import Text

    signs, bar = _PLAIN_SIGNS if plain else _SIGNS, Text()
    for name, cells in bar_of(counts, _BAR_CELLS):
        bar.append(signs[name] * cells, style=_STYLES[name])
    return bar


def _site_table(picture: Picture, width: int) -> RenderableType:
    from rich.text import Text

    table = _Table("SITE", "WAVE", "STATE", "AS OF", last="WHY")
    for row in picture.sites:
        state = Text(row.state, style=STATE_COLOURS.get(row.state, ""))
        cells = (Text(clean(row.name)), Text(clean(row.wave or "-")), state, Text(row.age))
        table.add(*cells, Text(clean(row.why)))
    return table.drawn(width)


class _Table:
    """One line per row: the last column is cut where the terminal ends, and the others are not."""

    def __init__(self, *heads: str, last: str) -> None:
        self._heads = (*heads, last)
        self._rows: list[tuple[Text, ...]] = []

    def add(self, *cells: Text) -> None:
        self._rows.append(cells)

    def drawn(self, width: int) -> RenderableType:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        # Said outright: left to the table, a narrow terminal costs whole columns of figures.
        left = width
        for number, head in enumerate(self._heads):
            cells = max(len(head), *(row[number].cell_len for row in self._rows))
            cells = max(1, min(cells, left if number == len(self._heads) - 1 else _WIDEST_CELL))
            table.add_column(head, no_wrap=True, overflow="ellipsis", width=cells)
            left -= cells + _GAP
        for row in self._rows:
            table.add_row(*row)
        return table
