"""Figures of predictions: how far they can be trusted, on test images and on foreign ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lpw_jax.display import hover
from lpw_jax.display.drawing import (
    BARS,
    BLACK,
    BLUE,
    EDGE,
    HEIGHT,
    LIGHT_BLUE,
    SKY,
    VERMILLION,
    legend,
    new_figure,
    styled,
)
from lpw_jax.measures import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENTROPY_BINS = 30


@styled
def reliability(confidence: NDArray, correct: NDArray, title: str) -> Figure:
    """Accuracy against confidence in the bins of the ECE, above how many images each has.

    Args:
      confidence: the largest probability of each image, [N].
      correct: whether its class is the true one, [N].
      title: above the figure.
    """
    bins = metrics.calibration_bins(confidence, correct)
    count, accuracy, mean = (bins[name] for name in ("count", "accuracy", "confidence"))
    edges = np.linspace(0.0, 1.0, len(count) + 1)
    figure = new_figure(HEIGHT + 0.8)
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    bar = dict(x=edges[:-1], width=np.diff(edges), align="edge")
    above.bar(
        height=accuracy, color=LIGHT_BLUE, edgecolor=BLUE, linewidth=0.8, label="accuracy", **bar
    )
    above.bar(
        height=mean - accuracy, bottom=accuracy, facecolor="none", edgecolor=VERMILLION,
        hatch="////", linewidth=0.8, label="gap to mean confidence", **bar,
    )  # fmt: skip
    above.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1.1, label="calibrated")
    above.set_title(title, loc="left")
    above.set(ylabel="accuracy (fraction)", xlim=(0, 1), ylim=(0, 1.02))
    below.bar(height=100 * count / count.sum(), color=BARS, edgecolor=EDGE, **bar)
    below.set(ylabel="images (%)", xlabel="confidence: largest probability")
    _tell_bins(above, edges, bins)
    legend(figure, above)
    return figure


def _tell_bins(axes: Axes, edges: NDArray, bins: Mapping[str, NDArray]) -> None:
    filled = np.flatnonzero(bins["count"])
    centres = (edges[filled] + edges[filled + 1]) / 2
    for line in (
        [f"confidence {edges[i]:.2f} to {edges[i + 1]:.2f}" for i in filled],
        [f"accuracy: {bins['accuracy'][i]:.3f}" for i in filled],
        [f"mean confidence: {bins['confidence'][i]:.3f}" for i in filled],
        [f"{bins['count'][i]:,.0f} images" for i in filled],
    ):
        hover.tell(axes, centres, line)


@styled
def entropies(
    inside: Mapping[str, NDArray],
    outside: Mapping[str, NDArray],
    *,
    titles: Mapping[str, str],
    num_classes: int,
) -> Figure:
    """Histograms of entropies on in- and out-of-distribution images, a row for each view.

    Args:
      inside, outside: entropies of each view, [N] and [M], in nats.
      titles: above each view's row.
      num_classes: the largest entropy is its logarithm.
    """
    figure = new_figure(0.9 + 1.35 * len(titles))
    rows = figure.subplots(len(titles), sharex=True, squeeze=False)[:, 0]
    most = math.log(num_classes)
    edges = np.linspace(0, most, _ENTROPY_BINS + 1)
    for axes, (view, title) in zip(rows, titles.items(), strict=True):
        shares = [_shares(scores[view], edges) for scores in (inside, outside)]
        axes.stairs(shares[0], edges, fill=True, facecolor=SKY, edgecolor=BLUE, label="test images")
        axes.stairs(
            shares[1], edges, color=VERMILLION, linestyle="--", linewidth=1.8, baseline=None,
            label="foreign images",
        )  # fmt: skip
        axes.set_title(title, loc="left")
        axes.set(ylabel="images (%)", xlim=(0, most), ylim=(0, None))
        centres = (edges[:-1] + edges[1:]) / 2
        for name, share in zip(("test images", "foreign images"), shares, strict=True):
            lines = [f"{name}: {percent:.1f} %" for percent in share]
            hover.tell(axes, centres, lines, head="entropy {:.2f}")
    rows[-1].set_xlabel("entropy of the prediction (nats)")
    legend(figure, rows[0])
    return figure


def _shares(entropies: NDArray, edges: Sequence[float]) -> Any:
    """Percentages; the reference's entropies of certain predictions are a little below 0."""
    inside = np.clip(entropies, edges[0], edges[-1])
    return 100 * np.histogram(inside, edges)[0] / len(inside)
