"""The schedule of a run as a picture, which a dry run leaves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from lpw_jax.display.drawing import BLUE, GREY, ORANGE, SKY, VERMILLION, new_figure, styled
from lpw_jax.display.schedule_report import phases
from lpw_jax.training.schedules import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PHASE_COLORS = {"tied": GREY, "late": SKY, "SWA": ORANGE}  # as tints


def schedule_png(epochs: Sequence[Epoch]) -> bytes:
    """The picture of `draw_schedule` as a PNG file."""
    picture = io.BytesIO()
    draw_schedule(epochs).savefig(picture, format="png", dpi=150)
    return picture.getvalue()


@styled
def draw_schedule(epochs: Sequence[Epoch]) -> Figure:
    """Draws both learning rates over the epochs, with phases, release and start of SWA.

    The rates' axis is logarithmic unless one of them is 0.
    """
    figure = new_figure(4.2, width=8)
    axes = figure.subplots()
    edges = [epoch.number - 1 for epoch in epochs] + [epochs[-1].number]
    shared = [epoch.rates.shared_learning_rate for epoch in epochs]
    late = [epoch.rates.late_learning_rate for epoch in epochs]
    line = dict(baseline=None, zorder=3)
    axes.stairs(shared, edges, color=BLUE, linewidth=2.2, label="shared weights", **line)
    axes.stairs(
        late, edges, color=VERMILLION, linewidth=2.2, linestyle=(0, (3, 3)),
        label="late-phase weights", **line,
    )  # fmt: skip
    if min(shared + late) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        # Less than a decade has one major tick or none: its minor ticks are labelled too.
        narrow = max(shared + late) < 10 * min(shared + late)
        axes.yaxis.set_minor_formatter(lambda rate, _: f"{rate:g}" if narrow else "")

    above = dict(transform=axes.get_xaxis_transform(), va="bottom")  # x in epochs, y in heights
    found = phases(epochs)
    for phase in found:
        start, end = phase[0].number - 1, phase[-1].number
        axes.axvspan(
            start, end, color=_PHASE_COLORS[phase[0].phase], alpha=0.15, linewidth=0, zorder=0
        )
        if len(phase) >= 0.05 * len(epochs):  # the name is not wider than the band
            axes.text((start + end) / 2, 1.07, phase[0].phase, ha="center", weight="bold", **above)
    small = dict(fontsize=9, color=GREY, **above)
    for (*_, before), (after, *_) in pairwise(found):
        edge = before.number
        axes.axvline(edge, color=GREY, linewidth=1, linestyle=":", zorder=2)
        if before.phase == "tied" and (after.phase == "late" or after.num_members > 1):
            axes.text(edge, 1.01, f"release after epoch {edge} ", ha="right", **small)
        if after.phase == "SWA":
            axes.text(edge, 1.01, f" SWA from epoch {edge + 1}", ha="left", **small)

    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epochs trained")
    axes.set_ylabel("learning rate (per minibatch)")
    axes.grid(axis="y", color="white", linewidth=0.8)
    axes.grid(False, axis="x")
    axes.legend(loc="lower left")
    return figure
