"""Figures of a report: differences with their intervals, and every seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lpw_jax import plain_text
from lpw_jax.comparison import words
from lpw_jax.comparison.quantities import BY_NAME
from lpw_jax.display import hover
from lpw_jax.display.drawing import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    VERMILLION,
    legend,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {
    "equivalent": GREEN,
    "better": BLUE,
    "worse": VERMILLION,
    "undecided": BLACK,
    "no verdict": GREY,
}
_SHAPES = {"collapsed": "o", "ensemble": "s"}
_VIEW_COLORS = {"collapsed": BLUE, "ensemble": VERMILLION}
_THEIRS, _OURS = GREY, BLUE
_WIDTH = 4.8  # inches: its text stays readable when it is scaled to a phone
_SHOWN = ("bpc", "accuracy", "top5_accuracy", "nll", "brier", "ece", "auroc_mean")


@styled
def differences(report: Mapping[str, Any]) -> list[tuple[str, Figure]]:
    """(title, figure) for each quantity: ours - theirs, its interval and the margin.

    One line for each comparison and view.
    """
    found = []
    for name in _SHOWN:
        lines = _lines(report, name)
        if not lines:
            continue
        figure, axes = _axes(len(lines))
        margin = lines[0][1]["margin"]
        if margin is not None:
            axes.axvspan(-margin, margin, color=FAINT, linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
        reach = _reach([row for _, row in lines])
        for position, (_, row) in enumerate(lines):
            color = _COLORS[row["verdict"]]
            if row["low"] is not None:
                _draw_interval(axes, position, (row["low"], row["high"]), reach, color)
            face = "white" if row["marks"] else color
            axes.plot(
                row["difference"], position, _SHAPES[row["view"]], color=color,
                markerfacecolor=face, markersize=7, markeredgewidth=1.8, zorder=3,
            )  # fmt: skip
        quantity = BY_NAME[name]
        found_here = [words.difference(row, quantity.places) for _, row in lines]
        _tell(axes, [label for label, _ in lines], found_here, [row["shown"] for _, row in lines])
        better = "right" if quantity.higher_is_better else "left"
        unit = quantity.label.replace(", %", ", points")
        title = f"{unit}: ours - theirs (better: {better})"
        _finish(axes, [label for label, _ in lines], title)
        found.append((title, figure))
    return found


def _reach(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """How far intervals are drawn: a huge one must not press the others and the margin into 0."""
    margin = rows[0]["margin"]
    seen = [0.0, margin or 0.0, -(margin or 0.0), *(row["difference"] for row in rows)]
    span = max(seen) - min(seen)
    halves = [(row["high"] - row["low"]) / 2 for row in rows if row["low"] is not None]
    beyond = max(span / 4, 2 * statistics.median_low(halves or [0.0]))
    if margin:
        beyond = min(beyond, 5 * span)
    return min(seen) - beyond, max(seen) + beyond


def _draw_interval(
    axes: Axes, position: int, ends: tuple[float, float], reach: tuple[float, float], color: str
) -> None:
    """The interval as far as it is drawn, with an arrowhead where it goes on."""
    drawn = max(ends[0], reach[0]), min(ends[1], reach[1])
    axes.plot(drawn, [position] * 2, color=color, linewidth=2)
    for end, shown, arrow in zip(ends, drawn, "<>", strict=True):
        if end != shown:
            axes.plot(shown, position, arrow, color=color, markersize=7, gid="beyond")


@styled
def seeds(report: Mapping[str, Any]) -> list[tuple[str, Figure]]:
    """(title, figure) for each data set and quantity: every seed, mean and standard deviation."""
    found = []
    for dataset in dict.fromkeys(c["dataset"] for c in report["comparisons"]):
        within = [c for c in report["comparisons"] if c["dataset"] == dataset]
        for name in _SHOWN:
            if lines := _samples(within, name):
                figure, axes = _axes(len(lines))
                for position, (_, sample, color, view) in enumerate(lines):
                    _draw_sample(axes, position, sample, color, _SHAPES[view])
                places = BY_NAME[name].places
                samples = [words.sample(sample, places) for _, sample, *_ in lines]
                _tell(axes, [label for label, *_ in lines], samples)
                title = f"{BY_NAME[name].label}, {dataset}"
                _finish(axes, [label for label, *_ in lines], title)
                found.append((title, figure))
    return found


@styled
def sweep(report: Mapping[str, Any]) -> list[tuple[str, Figure]]:
    """(title, figure) for each quantity over a sweep's values; none without a sweep."""
    found, figures = report.get("sweep"), []
    if not found:
        return figures
    points = found["points"]
    positions = [p["value"] if found["is_numeric"] else i for i, p in enumerate(points)]
    for name in dict.fromkeys(row["quantity"] for point in points for row in point["rows"]):
        figure = new_figure(2.9, width=_WIDTH)
        axes = figure.subplots()
        hover.tell(axes, positions, [point["label"] for point in points])
        for view, color in _VIEW_COLORS.items():
            rows = [
                (position, row)
                for position, point in zip(positions, points, strict=True)
                for row in point["rows"]
                if (row["view"], row["quantity"]) == (view, name)
            ]
            axes.errorbar(
                [position for position, _ in rows], [row["mean"] for _, row in rows],
                yerr=[row["standard_error"] or 0 for _, row in rows], fmt=f"-{_SHAPES[view]}",
                color=color, capsize=3, markersize=5, label=view,
            )  # fmt: skip
            places = BY_NAME[name].places
            means = [words.sample({**row, "std": row["standard_error"]}, places) for _, row in rows]
            hover.tell(axes, [p for p, _ in rows], [f"{view}: {mean}" for mean in means])
        base = next(i for i, point in enumerate(points) if point["name"] == found["base"])
        axes.axvline(positions[base], color=GREY, linewidth=0.8, linestyle=":", label="base")
        if found["is_numeric"]:
            axes.set_xlabel(plain_text.figure(found["fields"][0]))
            axes.set_xticks(positions, [point["label"] for point in points])
        else:
            labels = [plain_text.figure(point["label"]) for point in points]
            axes.set_xticks(positions, labels, rotation=30, ha="right")
        counts = sorted({row["n"] for p in points for row in p["rows"] if row["quantity"] == name})
        n = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        axes.set_ylabel(BY_NAME[name].label)
        legend(figure, axes, ncols=3)
        figures.append((f"{BY_NAME[name].label}: mean ± standard error, n = {n}", figure))
    return figures


def _draw_sample(
    axes: Axes, position: int, sample: Mapping[str, Any], color: str, shape: str
) -> None:
    axes.errorbar(
        sample["mean"], position, xerr=sample["std"] or 0, fmt="|", color=color,
        markersize=14, capsize=4, linewidth=1.6, zorder=2,
    )  # fmt: skip
    values = [item["value"] for item in sample["values"]]
    # Apart from one another, so that equal values are seen.
    step = 0.12 if len(values) > 1 else 0
    heights = [position + step * (i % 3 - 1) for i in range(len(values))]
    axes.plot(
        values, heights, shape, color=color, markersize=6, markerfacecolor="white",
        markeredgewidth=1.4, zorder=3,
    )  # fmt: skip


def _lines(report: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{_pair(comparison)}\n{row['view']}", row)
        for comparison in report["comparisons"]
        for row in comparison["rows"]
        if row["quantity"] == name
    ]


def _pair(comparison: Mapping[str, Any]) -> str:
    title = words.title(comparison)
    return title if len(title) <= 28 else title.replace(" against ", "\nagainst ")


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


def _tell(axes: Axes, labels: Sequence[str], *lines: Sequence[str]) -> None:
    """What stands on the left of each line of a figure, and `lines`, where a reader points."""
    names, views = zip(*(label.rsplit("\n", 1) for label in labels), strict=True)
    for told in ([name.replace("\n", " ") for name in names], views, *lines):
        hover.tell(axes, range(len(labels)), told, along="y")


def _axes(num_lines: int) -> tuple[Figure, Axes]:
    figure = new_figure(0.8 + 0.48 * num_lines, width=_WIDTH)
    return figure, figure.subplots()


def _finish(axes: Axes, labels: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(labels)), map(plain_text.figure, labels), fontsize=8.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    figure = axes.figure
    figure.suptitle(plain_text.figure(title), fontsize=10, x=0.01, ha="left", weight="bold")
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.08)
    axes.grid(False, axis="y")
    axes.spines.left.set_visible(False)
    axes.tick_params(left=False)
