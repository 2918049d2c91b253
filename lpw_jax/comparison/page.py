"""The report as one HTML page that needs nothing else: figures and styles are inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lpw_jax.comparison import figures, tables
from lpw_jax.comparison.tables import Table
from lpw_jax.comparison.text import TITLE
from lpw_jax.display import html_page
from lpw_jax.display.console import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Darker than in the figures where the page is light: text needs more contrast.
_STYLE = """.verdict { font-weight: 600; }
.equivalent { color: #006b4f; }
.better { color: #00578a; }
.worse { color: #a84300; }
@media screen and (prefers-color-scheme: dark) {
  .equivalent { color: var(--green); }
  .better { color: var(--blue); }
  .worse { color: var(--vermillion); }
}
"""
_DIFFERENCES = (
    "Difference, ours - theirs, with its 95 % confidence interval; where that ends in an "
    "arrowhead, it goes on beyond the axis (the tables have its ends). Grey band: the margin "
    "within which a difference does not matter. Colour: green equivalent, blue better, orange "
    "worse, black undecided, grey no verdict; circle: collapsed network, square: ensemble; hollow: "
    "marked, not the same experiment."
)
_SWEEP = (
    "Means over seeds with their standard errors, of the collapsed network and the ensemble. The "
    "dotted line is the base. n is the number of seeds of each value."
)
_SEEDS = (
    "Every seed is a dot, mean and standard deviation a bar; grey is what ours, in blue, is "
    "compared with. Of published figures only mean and deviation are known."
)


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    return html_page.page(TITLE, _sections(report), style=_STYLE)


def _sections(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "sweep" in report:
        yield from _figures("Over the values", lambda: figures.sweep(report), _SWEEP)
    yield from map(_table, tables.comparisons(report))
    yield from _figures("Differences", lambda: figures.differences(report), _DIFFERENCES)
    yield from _figures("Every seed", lambda: figures.seeds(report), _SEEDS)
    yield from map(_table, tables.background(report))
    if lines := tables.remaining(report):
        yield "Not in the tables", html_page.bullets(lines)
    yield "How to read this", html_page.bullets(tables.how_to_read(report))


def _table(table: Table) -> tuple[str, str]:
    shown = ""
    if table.rows:
        shown = html_page.table(
            table.header, table.rows, align=table.align, cell_class=_verdict_class
        )
    return table.title, f"{shown}\n{html_page.bullets(table.notes)}"


def _verdict_class(column: str, cell: str) -> str:
    """'equivalent (a, b)' has the class of its verdict."""
    return f"verdict {cell.split(' (')[0].replace(' ', '-')}" if column == "verdict" else ""


def _figures(
    heading: str, draw: Callable[[], Sequence[tuple[str, Figure]]], caption: str
) -> Iterator[tuple[str, str]]:
    with optional(html_page.NOT_DRAWN):
        if found := draw():
            drawn = [html_page.figure(lambda f=figure: f, title) for title, figure in found]
            yield heading, f"{html_page.figures(drawn, wide=True)}\n{html_page.caption(caption)}"
        return
    yield heading, html_page.not_drawn(heading)
