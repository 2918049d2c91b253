"""Figures of several seeds of one config: every one's curve, thin, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpw_jax.display.drawing import BLUE, ORANGE, SKY, VERMILLION, legend, styled
from lpw_jax.report import curves
from lpw_jax.report.curves import Marks, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THIN = dict(linewidth=0.8, alpha=0.8)


@styled
def losses(seeds: Sequence[Records], marks: Marks) -> Figure:
    """The training loss of each seed over epochs; `seeds` are their lines of metrics.jsonl."""
    figure, axes = curves.over_epochs(max(seeds, key=len), marks)
    # What was not finite is null, and a gap.
    found = [np.array([record["loss"] for record in records], float) for records in seeds]
    every = [[record["epoch"] for record in records] for records in seeds]
    _overlaid(axes, every, found, color=SKY, mean=BLUE, label="seeds", shown="{:.4g}")
    axes.set_ylabel("training loss (nats)")
    curves.logarithmic(axes, np.concatenate(found))
    legend(figure, axes)
    return figure


@styled
def tested(seeds: Sequence[Records], marks: Marks, *, view: str, is_text: bool) -> Figure:
    """A view's test accuracy, or bits per character, of each seed, in the epochs evaluated."""
    figure, axes = curves.over_epochs(max(seeds, key=len), marks)
    quantity, scale, label_of_y = curves.tested_quantity(is_text)
    evaluated = [[r for r in records if r.get("evaluation")] for records in seeds]
    every = [[record["epoch"] for record in records] for records in evaluated]
    found = [
        scale * np.array([record["evaluation"][view].get(quantity) for record in records], float)
        for records in evaluated
    ]
    color, mean = (SKY, BLUE) if view == "collapsed" else (ORANGE, VERMILLION)
    style = dict(color=color, mean=mean, shown="{:.4f}" if is_text else "{:.2f} %")
    _overlaid(axes, every, found, label=f"{view}, seeds", **style)
    axes.set_ylabel(label_of_y)
    legend(figure, axes)
    return figure


def _overlaid(
    axes: Axes,
    epochs: Sequence[Sequence[int]],
    values: Sequence[np.ndarray],
    *,
    color: str,
    mean: str,
    label: str,
    shown: str,
) -> None:
    """A thin line a seed, and over them the mean where all seeds have a value.

    `shown` is the format in which values are told.
    """
    for number, (at, found) in enumerate(zip(epochs, values, strict=True)):
        axes.plot(at, found, color=color, label=None if number else label, **_THIN)
    whole = [dict(zip(at, found, strict=True)) for at, found in zip(epochs, values, strict=True)]
    common = sorted(set.intersection(*map(set, whole)))
    if len(whole) > 1 and common:
        all_seeds = np.array([[found[epoch] for found in whole] for epoch in common])
        means = all_seeds.mean(axis=1)
        axes.plot(common, means, color=mean, label="their mean", marker="" if common[1:] else "o")
        ends = zip(all_seeds.min(axis=1), all_seeds.max(axis=1), strict=True)
        curves.tell(axes, common, [f"mean: {shown.format(value)}" for value in means])
        told = [f"{len(whole)} seeds: {shown.format(a)} to {shown.format(b)}" for a, b in ends]
        curves.tell(axes, common, told)
