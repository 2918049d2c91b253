"""Figures of a report as SVG: differences with their intervals, and every seed."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lpw_jax.comparison import words
from lpw_jax.comparison.quantities import BY_NAME

if TYPE_CHECKING:
    import matplotlib.figure

# Okabe and Ito's colours, told apart with any colour vision; the shape says the view, too.
_COLORS = {
    "equivalent": "#009E73",
    "better": "#0072B2",
    "worse": "#D55E00",
    "undecided": "#000000",
    "no verdict": "#777777",
}
_SHAPES = {"collapsed": "o", "ensemble": "s"}
_MARGIN_COLOR = "#E6E6E6"
_THEIRS, _OURS = "#777777", "#0072B2"
_WIDTH = 6.2  # inches: its text stays readable when it is scaled to a phone
_SHOWN = ("accuracy", "top5_accuracy", "nll", "brier", "ece", "auroc_mean")


def differences(report: Mapping[str, Any]) -> "matplotlib.figure.Figure | None":
    """One panel a quantity, one line a comparison and view: ours - theirs, interval and margin."""
    panels = [(name, lines) for name in _SHOWN if (lines := _lines(report, name))]
    if not panels:
        return None
    figure, all_axes = _panels([len(lines) for _, lines in panels])
    for axes, (name, lines) in zip(all_axes, panels, strict=True):
        margin = lines[0][1]["margin"]
        if margin is not None:
            axes.axvspan(-margin, margin, color=_MARGIN_COLOR, linewidth=0, zorder=0)
        axes.axvline(0, color="#444444", linewidth=0.8, zorder=1)
        for position, (_, row) in enumerate(lines):
            color = _COLORS[row["verdict"]]
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [position] * 2, color=color, linewidth=2)
            face = "white" if row["marks"] else color
            axes.plot(
                row["difference"], position, _SHAPES[row["view"]], color=color,
                markerfacecolor=face, markersize=7, markeredgewidth=1.8, zorder=3,
            )  # fmt: skip
        quantity = BY_NAME[name]
        better = "right" if quantity.higher_is_better else "left"
        unit = quantity.label.replace(", %", ", points")
        _finish(axes, [label for label, _ in lines], f"{unit}: ours - theirs (better: {better})")
    return figure


def seeds(report: Mapping[str, Any]) -> "matplotlib.figure.Figure | None":
    """One panel a data set and quantity: each seed a dot, mean and standard deviation a bar."""
    panels = []
    for dataset in dict.fromkeys(c["dataset"] for c in report["comparisons"]):
        within = [c for c in report["comparisons"] if c["dataset"] == dataset]
        for name in _SHOWN:
            if lines := _samples(within, name):
                panels.append((dataset, name, lines))
    if not panels:
        return None
    figure, all_axes = _panels([len(lines) for *_, lines in panels])
    for axes, (dataset, name, lines) in zip(all_axes, panels, strict=True):
        for position, (_, found, color, view) in enumerate(lines):
            axes.errorbar(
                found["mean"], position, xerr=found["std"] or 0, fmt="|", color=color,
                markersize=14, capsize=4, linewidth=1.6, zorder=2,
            )  # fmt: skip
            values = [item["value"] for item in found["values"]]
            # Apart from one another, so that equal values are seen.
            step = 0.09 if len(values) > 1 else 0
            spread = [position + step * (i % 3 - 1) for i in range(len(values))]
            axes.plot(
                values, spread, _SHAPES[view], color=color, markersize=6,
                markerfacecolor="white", markeredgewidth=1.4, zorder=3,
            )  # fmt: skip
        labels = [label for label, *_ in lines]
        _finish(axes, labels, f"{BY_NAME[name].label}, {dataset}")
    return figure


def svg(figure: "matplotlib.figure.Figure") -> bytes:
    """The figure as an SVG file whose text needs no fonts."""
    import matplotlib

    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "lpw_jax"}):
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return picture.getvalue()


def _lines(report: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{_pair(comparison)}\n{row['view']}", row)
        for comparison in report["comparisons"]
        for row in comparison["rows"]
        if row["quantity"] == name
    ]


def _pair(comparison: Mapping[str, Any]) -> str:
    return words.title(comparison).replace(" against ", "\nagainst ")


def _samples(comparisons: Sequence[Mapping[str, Any]], name: str) -> list[tuple]:
    """(label, sample, colour, view) of both sides, each side and view once."""
    found: dict[str, tuple] = {}
    for comparison in comparisons:
        for row in comparison["rows"]:
            if row["quantity"] != name:
                continue
            kind = ", published" if comparison["kind"] == "published" else ""
            theirs = f"{comparison['theirs']}{kind}\n{row['view']}"
            ours = f"{comparison['ours']}\n{row['view']}"
            found.setdefault(f"theirs {theirs}", (theirs, row["theirs"], _THEIRS, row["view"]))
            found.setdefault(f"ours {ours}", (ours, row["ours"], _OURS, row["view"]))
    return list(found.values())


def _panels(sizes: Sequence[int]) -> tuple["matplotlib.figure.Figure", Sequence[Any]]:
    # Imported here: only pages have figures, and matplotlib takes a second to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [0.9 + 0.62 * size for size in sizes]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)
    return figure, axes[:, 0]


def _finish(axes: Any, labels: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_title(title, fontsize=11, loc="left")
    axes.margins(x=0.08)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
