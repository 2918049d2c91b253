"""The loss around a run's networks: the section of the report, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lpw_jax.display import hover, html_page
from lpw_jax.display.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    legend,
    new_figure,
    styled,
)
from lpw_jax.files.surface import COLLAPSED, LAST, Line, Losses, Plane, Surface
from lpw_jax.report.absent import absent
from lpw_jax.report.curves import logarithmic
from lpw_jax.report.run_files import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = (
    dict(color=BLUE, linestyle="-"),
    dict(color=VERMILLION, linestyle="--"),
    dict(color=GREEN, linestyle="-."),
)
_PERTURBED = {
    "member": _STYLES[1] | dict(marker="s"),
    COLLAPSED: _STYLES[0] | dict(marker="o"),
    LAST: dict(color=PURPLE, linestyle=":", marker="D"),
}
_LEVELS = 12
_LOSS = "training loss (nats)"


def section(run: Run) -> Iterator[str]:
    """Curvature, lines, plane and perturbations."""
    if run.surface is None:
        yield absent(
            "There is no surface.json; 'python -m lpw_jax.evaluate --workdir DIR --surface' "
            "computes it."
        )
        return
    surface = run.surface
    yield html_page.paragraph(
        f"Of {surface.images:,} training images without augmentation, in evaluation mode and "
        "without weight decay. All networks are written with the same batch-norm statistics."
    )
    yield _table(surface)
    between, through, others = _divided(surface.lines)
    drawn = []
    for lines, where, xlabel in (
        (between, "between members", "0: the first member, 1: the second one"),
        (through, "from each member through the collapsed network", "0: member, 1: collapsed"),
        (others, "from before averaging through the average", "0: before averaging, 1: averaged"),
    ):
        if lines:
            for quantity in ("loss", "accuracy"):
                drawn.append(
                    html_page.figure(
                        lambda lines=lines, x=xlabel, q=quantity: on_lines(lines, q, x),
                        f"Training {quantity} on lines {where}",
                    )
                )
    if surface.plane:
        drawn.append(
            html_page.figure(
                lambda: on_plane(surface.plane),
                "Training loss on the plane through three members, with the collapsed network",
            )
        )
    drawn.append(
        html_page.figure(
            lambda: perturbations(surface),
            "Training loss against the size of random perturbations of all weights",
        )
    )
    yield html_page.figures(drawn)
    yield from map(html_page.paragraph, surface.notes)


def _table(surface: Surface) -> str:
    count = max(len(one.eigenvalues) for one in surface.networks.values())
    header = ["network", "loss", "accuracy, %", "trace of the Hessian"]
    header += [f"eigenvalue {number}" for number in range(1, count + 1)]
    rows = []
    for name, one in surface.networks.items():
        values = [
            f"{value:.4g} ± {residual:.1g}"
            for value, residual in zip(one.eigenvalues, one.residuals, strict=True)
        ]
        values += ["-"] * (count - len(values))
        trace = f"{one.trace:.4g} ± {one.trace_error:.2g}"
        rows.append([name, f"{one.loss:.4g}", f"{100 * one.accuracy:.2f}", trace, *values])
    notes = (
        "± behind the trace: standard error of its estimate; behind an eigenvalue: how far it may "
        "be from one of the Hessian."
    )
    return html_page.table(header, rows, align="l" + "r" * (len(header) - 1), notes=notes)


def _divided(lines: Sequence[Line]) -> tuple[list[Line], list[Line], list[Line]]:
    """Those between members, those from members to the collapsed network, and others."""
    found = [], [], []
    for line in lines:
        is_through = line.end == COLLAPSED
        found[is_through + (is_through and not line.start.startswith("member"))].append(line)
    return found


@styled
def on_lines(lines: Sequence[Line], quantity: str, xlabel: str) -> Figure:
    """`quantity`, 'loss' or 'accuracy', on lines."""
    figure = new_figure()
    axes = figure.add_subplot()
    percent = quantity == "accuracy"
    values = (100 if percent else 1) * _floats([getattr(line, quantity) for line in lines])
    through = lines[0].end == COLLAPSED
    for number, (line, along) in enumerate(zip(lines, values, strict=True)):
        if through:
            label = "one line a member" if number == 0 else None
            axes.plot(line.at, along, color=BLUE, alpha=0.7, linewidth=1.2, label=label)
            label = line.start
        else:
            label = f"{line.start.removeprefix('member ')} to {line.end.removeprefix('member ')}"
            axes.plot(line.at, along, label=label, **_STYLES[number % len(_STYLES)])
        shown = "{}: {:.2f} %" if percent else "{}: {:.4g}"
        told = [shown.format(label, value) for value in along]
        hover.tell(axes, line.at, told, head="at {:.3g}")
    for at in (0, 1):
        axes.axvline(at, color=GREY, linewidth=1, linestyle=":", zorder=1)
    axes.set(xlabel=xlabel, ylabel="training accuracy (%)" if percent else _LOSS)
    if not percent:
        logarithmic(axes, values)
    legend(figure, axes, ncols=3)
    return figure


@styled
def on_plane(plane: Plane) -> Figure:
    """Contours of the loss, with the networks where they are, or are nearest to."""
    figure = new_figure(3.6, width=4.3)
    axes = figure.add_subplot()
    loss = np.ma.masked_invalid(_floats(plane.loss))
    if loss.count() and 0 < loss.min() < loss.max():
        from matplotlib.colors import LogNorm

        levels = np.geomspace(loss.min(), loss.max(), _LEVELS)
        levels[[0, -1]] = loss.min(), loss.max()  # rounding would leave the ends out
        drawn = axes.contourf(plane.x, plane.y, loss, levels, norm=LogNorm(), cmap="viridis_r")
        bar = figure.colorbar(drawn, ax=axes, label=_LOSS)
        bar.set_ticks(levels[::2], labels=[f"{level:.3g}" for level in levels[::2]])
        bar.minorticks_off()
    for name, point in plane.networks.items():
        is_collapsed = name == COLLAPSED
        style = dict(marker="*", markersize=12) if is_collapsed else dict(marker="o", markersize=6)
        color = dict(color="white" if is_collapsed else VERMILLION, markeredgecolor=BLACK)
        axes.plot(point.x, point.y, linestyle="", **style, **color)
        axes.annotate(name, (point.x, point.y), xytext=(6, 5), textcoords="offset points",
                      bbox=dict(facecolor="white", alpha=0.7, edgecolor="none", pad=1))  # fmt: skip
    axes.grid(False)
    axes.set_aspect("equal", adjustable="datalim")
    distance = plane.networks[COLLAPSED].distance
    axes.set(xlabel=f"distance in weight space\n(collapsed: {distance:.2g} from the plane)")
    return figure


@styled
def perturbations(surface: Surface) -> Figure:
    """The loss over the size of random perturbations, mean and range of the draws."""
    figure = new_figure()
    axes = figure.add_subplot()
    every = []
    for label, style in _PERTURBED.items():
        found = [one for name, one in surface.networks.items() if name.startswith(label)]
        if not found:
            continue
        sizes = [step.size for step in found[0].perturbed]
        draws = np.concatenate([_floats([s.loss for s in one.perturbed]) for one in found], axis=1)
        low, high = draws.min(1), draws.max(1)
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
        label += "s" if len(found) > 1 else ""
        axes.plot(sizes, draws.mean(1), label=label, **style)
        ends = zip(draws.mean(1), low, high, strict=True)
        told = [f"{label}: {mean:.4g} ({a:.4g} to {b:.4g})" for mean, a, b in ends]
        hover.tell(axes, sizes, told, head="noise {:g}")
        every.append(draws.ravel())
    axes.set(xscale="log", xlabel="noise over the rms of each array", ylabel=_LOSS)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    logarithmic(axes, np.concatenate(every))
    legend(figure, axes)
    return figure


def _floats(values: Sequence[Losses]) -> NDArray:
    """Infinities and NaN are null in JSON."""
    return np.array([[np.nan if v is None else v for v in row] for row in values], float)
