"""How figures look: colours that the colour-blind can tell apart (Okabe and Ito, 2008), sizes."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


P, T = ParamSpec("P"), TypeVar("T")

BLACK, GREY = "#000000", "#666666"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
WHITE, FAINT, EDGE, BARS = "#FFFFFF", "#E4E4E4", "#555555", "#B0B0B0"
LIGHT_BLUE, LIGHT_ORANGE = "#C3E3F7", "#F3D9A4"  # hatching shows on them
# What a page calls them; its style says what they are, in light and in dark.
NAMES = {
    color.lower(): name
    for color, name in {
        BLACK: "ink", GREY: "grey", ORANGE: "orange", SKY: "sky", GREEN: "green", BLUE: "blue",
        VERMILLION: "vermillion", PURPLE: "purple", WHITE: "page", FAINT: "faint", EDGE: "edge",
        BARS: "bars", LIGHT_BLUE: "light-blue", LIGHT_ORANGE: "light-orange",
    }.items()
}  # fmt: skip

WIDTH, HEIGHT = 3.7, 3.1  # inches, at which two figures fit beside each other on a printed page
_STYLE = {
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.3,
}


def library() -> ModuleType:
    """matplotlib, which takes a second to load: only when something is drawn.

    Its backend is ours, whatever MPLBACKEND says: that of a notebook may not be here.
    """
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        return importlib.import_module("matplotlib")
    finally:
        del os.environ["MPLBACKEND"]
        if before is not None:
            os.environ["MPLBACKEND"] = before


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function that draws figures, which then look as all others do."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with library().rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(height: float = HEIGHT, *, width: float = WIDTH) -> Figure:
    """An empty figure of a size in inches, whose parts do not overlap."""
    library()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.told = {}  # of `hover.tell`
    return figure


def legend(figure: Figure, axes: Axes, *, ncols: int = 2) -> None:
    """Names what `axes` shows, above it, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=ncols)
