"""Figures of what changes from epoch to epoch, drawn from the lines of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpw_jax.display import hover
from lpw_jax.display.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT_ORANGE,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    legend,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Mapping[str, Any]]

_MARKED_POINTS = 25  # with more of them a curve has markers at some only
_HOLLOW = dict(markerfacecolor="none", markersize=7)  # shows what is below
_COLLAPSED = dict(color=BLUE, linestyle="-", marker="o")
_ENSEMBLE = dict(color=VERMILLION, linestyle="--", marker="s", **_HOLLOW)
_SWA_COLLAPSED = dict(color=BLACK, linestyle="-.", marker="^")
_SWA_ENSEMBLE = dict(color=PURPLE, linestyle=":", marker="D", **_HOLLOW)
_MEMBERS = dict(color=SKY, alpha=0.45, linewidth=0)
_PERCENT, _NUMBER = "{:.2f} %", "{:.4g}"


class Marks(NamedTuple):
    """What a config plans for which epoch, None for what it does not.

    Attributes:
      release: the epoch at whose end members are made.
      swa: the first one whose weights are averaged.
      decay: of a moving average; None for the mean.
      annealing: the last one with the full learning rate, and the first one with the final rate.
      milestones: of a multistep schedule, the last ones before the rate drops.
      warmup: the last one of the warm-up.
      frozen: the last one in which shared weights move.
    """

    release: int | None
    swa: int | None
    decay: float | None = None
    annealing: tuple[int, int] | None = None
    milestones: tuple[int, ...] = ()
    warmup: int | None = None
    frozen: int | None = None


def marks(config: Mapping[str, Any]) -> Marks:
    """The marks of a config."""
    train, release = config["train"], config["late_phase"]["release_epoch"]
    falls = {"annealing": (train["anneal_start"] + 1, train["anneal_end"] + 1)}
    if train.get("schedule") == "multistep":  # configs of older runs do not say
        falls = {"milestones": tuple(train["milestones"])}
    frozen = train.get("freeze_epoch", -1)
    return Marks(
        release=release if release >= 0 else None,
        swa=config["swa"]["start_epoch"] or None,
        decay=config["swa"].get("decay") or None,
        warmup=train.get("warmup_epochs") or None,
        frozen=frozen if frozen >= 0 else None,
        **falls,
    )


@styled
def training(records: Records, marks: Marks, quantity: str) -> Figure:
    """The training set's `quantity`, 'loss' or 'accuracy': members' mean, lowest and highest."""
    percent = quantity == "accuracy"
    figure, axes = over_epochs(records, marks)
    scale = 100 if percent else 1
    epochs, shown = _epochs(records), _PERCENT if percent else _NUMBER
    mean = scale * _floats([record.get(quantity) for record in records])
    _curve(axes, epochs, mean, label="mean", shown=shown, color=BLUE)
    among = [record.get(f"member_{quantity}") for record in records]
    _members(axes, epochs, among, scale, shown)
    axes.set_ylabel("training accuracy (%)" if percent else "training loss (nats)")
    if not percent:
        logarithmic(axes, mean)
    legend(figure, axes)
    return figure


@styled
def learning_rates(records: Records, marks: Marks) -> Figure:
    """Both learning rates, as they were."""
    figure, axes = over_epochs(records, marks)
    epochs = _epochs(records)
    shared = _floats([record.get("learning_rate") for record in records])
    late = _floats([record.get("late_phase_learning_rate") for record in records])
    stepped = dict(drawstyle="steps-mid")
    _curve(axes, epochs, shared, label="shared weights", color=BLUE, **stepped)
    style = dict(color=VERMILLION, linestyle="--", marker="s", **_HOLLOW)
    _curve(axes, epochs, late, label="late-phase weights", **style, **stepped)
    axes.set_ylabel("learning rate (per minibatch)")
    logarithmic(axes, np.concatenate([shared, late]))
    legend(figure, axes)
    return figure


@styled
def tested(records: Records, marks: Marks) -> Figure:
    """Accuracy of members, ensemble and collapsed network, and of SWA's, where evaluated.

    Of texts bits per character.
    """
    figure, axes = over_epochs(records, marks)
    evaluated = [record for record in records if record.get("evaluation")]
    is_text = any(record["evaluation"]["collapsed"].get("bpc") for record in evaluated)
    quantity, scale, label_of_y = tested_quantity(is_text)
    shown = _NUMBER if is_text else _PERCENT
    styles = {
        ("evaluation", "collapsed"): _COLLAPSED,
        ("evaluation", "ensemble"): _ENSEMBLE,
        ("evaluation_swa", "collapsed"): _SWA_COLLAPSED,
        ("evaluation_swa", "ensemble"): _SWA_ENSEMBLE,
    }
    for (field, view), style in styles.items():
        found = [record for record in records if (record.get(field) or {}).get(view)]
        if found:
            values = scale * _floats([record[field][view][quantity] for record in found])
            label = f"SWA, {view}" if field == "evaluation_swa" else view
            _curve(axes, _epochs(found), values, label=label, shown=shown, **style)
    members = [
        [member[quantity] for member in record["evaluation"].get("members", [])]
        for record in evaluated
    ]
    _members(axes, _epochs(evaluated), members, scale, shown)
    axes.set_ylabel(label_of_y)
    legend(figure, axes)
    return figure


def tested_quantity(is_text: bool) -> tuple[str, int, str]:
    """What is shown of an evaluation: its name, what it is multiplied by, and the axis' label."""
    if is_text:
        return "bpc", 1, "test (bits per character)"
    return "accuracy", 100, "test accuracy (%)"


@styled
def disagreement(records: Records, marks: Marks) -> Figure:
    """Test images on which two members differ, mean over all pairs, where evaluated."""
    figure, axes = over_epochs(records, marks)
    for field, label, style in (
        ("evaluation", "members", _COLLAPSED),
        ("evaluation_swa", "SWA's members", _SWA_COLLAPSED),
    ):
        found = [record for record in records if disagreement_of(record, field) is not None]
        if found:
            values = 100 * _floats([disagreement_of(record, field) for record in found])
            _curve(axes, _epochs(found), values, label=label, shown=_PERCENT, **style)
    axes.set_ylabel("two members differ\n(% of test images)")
    _from_zero(axes)
    legend(figure, axes)
    return figure


def disagreement_of(record: Mapping[str, Any], field: str = "evaluation") -> float | None:
    """The disagreement in an epoch's evaluation: of all views, or of the ensemble."""
    views = record.get(field) or {}
    return views.get("disagreement", (views.get("ensemble") or {}).get("disagreement"))


@styled
def distance(records: Records, marks: Marks) -> Figure:
    """How far the members' late-phase weights are from their mean, in percent of its norm."""
    found = [record for record in records if record.get("member_distance") is not None]
    figure, axes = over_epochs(records, marks)
    values = 100 * _floats([record["member_distance"] for record in found])
    _curve(axes, _epochs(found), values, label="members, mean", shown=_PERCENT, color=BLUE)
    axes.set_ylabel("distance to the mean\n(% of its norm)")
    _from_zero(axes)
    legend(figure, axes)
    return figure


def over_epochs(records: Records, marks: Marks) -> tuple[Figure, Axes]:
    """Axes over all recorded epochs, with those of the marks that are among them."""
    figure = new_figure()
    axes = figure.add_subplot()
    first, last = records[0]["epoch"] - 0.5, records[-1]["epoch"] + 0.5
    line = dict(color=GREY, linewidth=1.2, zorder=1)
    if marks.release is not None and first < marks.release + 0.5 < last:
        axes.axvline(marks.release + 0.5, linestyle=":", label="release", **line)
    if marks.swa is not None and first < marks.swa - 0.5 < last:
        kind = "moving average" if marks.decay else "SWA"
        axes.axvline(marks.swa - 0.5, linestyle="-.", label=f"start of {kind}", **line)
    if marks.frozen is not None and first < marks.frozen + 0.5 < last:
        axes.axvline(marks.frozen + 0.5, linestyle="--", label="shared weights frozen", **line)
    start, end = (min(max(epoch, first), last) for epoch in marks.annealing or (0, 0))
    if start < end:
        axes.axvspan(
            start, end, ymax=0.05, facecolor=LIGHT_ORANGE, edgecolor=ORANGE, hatch="////",
            linewidth=0, zorder=0.5, label="annealing",
        )  # fmt: skip
    axes.set_xlim(first, last)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch")
    return figure, axes


def _curve(
    axes: Axes, epochs: list[int], values: np.ndarray, *, label: str, shown: str = _NUMBER,
    **style: Any,
) -> None:  # fmt: skip
    """A line with markers; `shown` is the format in which its values are told."""
    every = -(-len(epochs) // _MARKED_POINTS)
    axes.plot(epochs, values, label=label, markevery=every, **{"marker": "o"} | style)
    tell(axes, epochs, [f"{label}: {shown.format(value)}" for value in values])


def tell(axes: Axes, epochs: Sequence[int], lines: Sequence[str]) -> None:
    """Adds a line to what is told at each of the epochs."""
    hover.tell(axes, epochs, lines, head="epoch {:g}")


def _members(
    axes: Axes, epochs: list[int], values: Sequence[Any], scale: float, shown: str
) -> None:
    """The range of the members, in the epochs that have several."""
    several = [
        (e, scale * _floats(of)) for e, of in zip(epochs, values, strict=True) if of and of[1:]
    ]
    if several:
        numbers = [epoch for epoch, _ in several]
        low, high = ([edge(of) for _, of in several] for edge in (np.min, np.max))
        axes.fill_between(numbers, low, high, label="members, range", **_MEMBERS)
        ends = (map(shown.format, edge) for edge in (low, high))
        tell(axes, numbers, [f"members: {a} to {b}" for a, b in zip(*ends, strict=True)])
        # A single epoch has no area.
        bars = dict(color=GREEN, linewidth=0.8, marker="_" if len(several) == 1 else "")
        for edge in (low, high):
            axes.plot(numbers, edge, **bars)


def _from_zero(axes: Axes) -> None:
    """Scales the axis from 0 to a little above the highest point."""
    highest = axes.dataLim.y1
    axes.set_ylim(0, 1.08 * highest if highest > 0 else 1)


def logarithmic(axes: Axes, values: np.ndarray) -> None:
    """Scales the axis if values, all positive, span a decade."""
    finite = values[np.isfinite(values)]
    if finite.size and 0 < 10 * finite.min() < finite.max():
        axes.set_yscale("log")
        decades = finite.max() / finite.min() > 300
        from matplotlib.ticker import LogLocator

        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter("")


def _epochs(records: Records) -> list[int]:
    return [record["epoch"] for record in records]


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """Infinities and NaN are null in JSON."""
    return np.array([np.nan if value is None else value for value in values], float)
