"""The schedule of a run, shown before it starts: as a table, and as a picture."""

import io
import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lpw_jax.method.schedules import Epoch

if TYPE_CHECKING:
    import matplotlib.figure

_PHASE_COLORS = {"tied": "#e9ecef", "late": "#dcebfa", "SWA": "#fdeecb"}
_SHARED_COLOR, _LATE_COLOR = "#1f4e79", "#d9541e"


def schedule_table(epochs: Sequence[Epoch]) -> Table:
    """Table of rates and phases, one row for every stretch of constant or linear learning rates.

    Where rates change, a row shows those of its first and its last epoch. gamma, the factor of the
    shared gradient, has a column if it is not always 1.
    """
    stretches = [part for phase in _phases(epochs) for part in _linear(phase)]
    with_gamma = any(epoch.rates.shared_grad_scale != 1 for epoch in epochs)
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)  # nine columns fit in 80
    for header in ("\nepochs", "\nphase"):
        table.add_column(header)
    headers = [
        ("mem-\nbers", 4), ("\ncycles", 6),
        ("learning rate\nshared", 15), ("decay\nshared", 6),
        ("learning rate\nlate-phase", 15), ("decay\nlate", 6),
    ]  # fmt: skip
    for header, width in [*headers, *([("\ngamma", 5)] if with_gamma else [])]:
        table.add_column(header, justify="right", min_width=width)
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        rates = first.rates
        cells = [
            "-".join(dict.fromkeys((str(first.number), str(last.number)))),
            first.phase,
            str(first.num_members),
            str(first.cycles),
            _from_to(rates.shared_learning_rate, last.rates.shared_learning_rate),
            f"{rates.shared_weight_decay:.3g}",
            _from_to(rates.late_learning_rate, last.rates.late_learning_rate),
            f"{rates.late_weight_decay:.3g}",
        ]
        table.add_row(*cells, *([f"{rates.shared_grad_scale:.3g}"] if with_gamma else []))
    return table


def schedule_png(epochs: Sequence[Epoch]) -> bytes:
    """The picture of `draw_schedule` as a PNG file."""
    picture = io.BytesIO()
    draw_schedule(epochs).savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def draw_schedule(epochs: Sequence[Epoch]) -> "matplotlib.figure.Figure":
    """Draws both learning rates over the epochs, with phases, release and start of SWA.

    The rates' axis is logarithmic unless one of them is 0.
    """
    # Imported here: only a dry run draws, and matplotlib takes a second to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    edges = [epoch.number - 1 for epoch in epochs] + [epochs[-1].number]
    shared = [epoch.rates.shared_learning_rate for epoch in epochs]
    late = [epoch.rates.late_learning_rate for epoch in epochs]
    line = dict(baseline=None, zorder=3)
    axes.stairs(shared, edges, color=_SHARED_COLOR, linewidth=2.2, label="shared weights", **line)
    axes.stairs(
        late, edges, color=_LATE_COLOR, linewidth=2.2, linestyle=(0, (3, 3)),
        label="late-phase weights", **line,
    )  # fmt: skip
    if min(shared + late) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        # Less than a decade has one major tick or none: its minor ticks are labelled too.
        narrow = max(shared + late) < 10 * min(shared + late)
        axes.yaxis.set_minor_formatter(lambda rate, _: f"{rate:g}" if narrow else "")

    above = dict(transform=axes.get_xaxis_transform(), va="bottom")  # x in epochs, y in heights
    phases = _phases(epochs)
    for phase in phases:
        start, end = phase[0].number - 1, phase[-1].number
        axes.axvspan(start, end, color=_PHASE_COLORS[phase[0].phase], linewidth=0, zorder=0)
        if len(phase) >= 0.05 * len(epochs):  # the name is not wider than the band
            axes.text((start + end) / 2, 1.07, phase[0].phase, ha="center", weight="bold", **above)
    small = dict(fontsize=9, color="#444444", **above)
    for (*_, before), (after, *_) in pairwise(phases):
        edge = before.number
        axes.axvline(edge, color="#444444", linewidth=1, linestyle=":", zorder=2)
        if before.phase == "tied" and (after.phase == "late" or after.num_members > 1):
            axes.text(edge, 1.01, f"release after epoch {edge} ", ha="right", **small)
        if after.phase == "SWA":
            axes.text(edge, 1.01, f" SWA from epoch {edge + 1}", ha="left", **small)

    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epochs trained")
    axes.set_ylabel("learning rate (per minibatch)")
    axes.grid(axis="y", color="white", linewidth=0.8, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", framealpha=0.9, edgecolor="none")
    return figure


def _phases(epochs: Sequence[Epoch]) -> list[list[Epoch]]:
    """Consecutive epochs that differ in their learning rates only."""

    def plan(epoch):
        rates = epoch.rates._replace(shared_learning_rate=None, late_learning_rate=None)
        return epoch._replace(number=None, rates=rates)

    return [list(group) for _, group in groupby(epochs, key=plan)]


def _linear(epochs: Sequence[Epoch]) -> list[list[Epoch]]:
    """Parts in which both learning rates change by the same amount from each epoch to the next."""
    parts = [[epochs[0]]]
    for epoch in epochs[1:]:
        *_, last = part = parts[-1]
        if len(part) == 1 or _same(_change(part[-2], last), _change(last, epoch)):
            part.append(epoch)
        else:
            parts.append([epoch])
    return parts


def _change(before: Epoch, after: Epoch) -> tuple[float, float]:
    old, new = before.rates, after.rates
    return (
        new.shared_learning_rate - old.shared_learning_rate,
        new.late_learning_rate - old.late_learning_rate,
    )


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for a, b in zip(one, other, strict=True)
    )


def _from_to(first: float, last: float) -> str:
    return " -> ".join(dict.fromkeys((f"{first:.3g}", f"{last:.3g}")))
