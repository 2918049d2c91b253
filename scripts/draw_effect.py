"""Draws results/effect and results/ablations for the pages in docs/, for light and dark ones:
docs/figures/effect-*.svg and ablation_num_members-*.svg.

python scripts/draw_effect.py
"""

import json
from pathlib import Path
from typing import Any

import side_tables
from matplotlib import rc_context
from matplotlib.figure import Figure

from lpw_jax.comparison.statistics import Sample

ROOT = Path(__file__).resolve().parents[1]
EFFECT = ROOT / "results" / "effect" / "comparison.json"
NUM_MEMBERS = ROOT / "results" / "ablations" / "num_members" / "comparison.json"
INK = {"light": "#1f2328", "dark": "#e6edf3"}
COLORS = {
    "light": {"late": "#bc4c00", "other": "#0969da"},
    "dark": {"late": "#f0883e", "other": "#58a6ff"},
}
# The sides from above, by the name that the comparison gives them.
SIDES = {
    "effect_sgd": "SGD",
    "effect_swa": "SWA",
    "effect_cifar10": "late-phase",
    "effect_late_phase_swa": "late-phase SWA",
    "deep ensemble of 3 effect_sgd": "deep ensemble of 3",
    "effect_sgd_long": "SGD, twice the epochs",
    "effect_sgd_small": "SGD, half the width",
    "deep ensemble of 3 effect_sgd_small": "deep ensemble of 3 of half the width",
    "effect_sgd_decay": "SGD, decay 2e-3",
    "effect_late_phase_decay": "late-phase, decay 2e-3",
}
QUANTITIES = {"nll": "test NLL, nats (less is better)", "accuracy": "test accuracy, %"}


def draw_sides(sides: dict[str, Any], theme: str) -> Figure:
    """Means of all sides, one below the other."""
    figure = Figure(figsize=(8.2, 3.5), layout="constrained")
    panels = figure.subplots(1, len(QUANTITIES), sharey=True)
    for axes, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for row, (name, title) in enumerate(SIDES.items()):
            values = side_tables.view(sides[name])[quantity]["values"]
            sample = Sample.of([found["value"] for found in values])
            color = COLORS[theme]["late" if "late" in title else "other"]
            axes.errorbar(
                sample.mean, row, xerr=sample.reach(), fmt="o", color=color, capsize=3, markersize=5
            )
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(SIDES)), list(SIDES.values()))
    panels[0].invert_yaxis()
    return figure


def draw_sweep(points: list[dict[str, Any]], theme: str) -> Figure:
    """Both views over K, with standard errors over seeds."""
    figure = Figure(figsize=(8.2, 2.8), layout="constrained")
    panels = figure.subplots(1, len(QUANTITIES))
    values = [point["value"] for point in points]
    for axes, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for view, color in zip(("collapsed", "ensemble"), COLORS[theme].values(), strict=True):
            rows = [
                next(r for r in p["rows"] if (r["view"], r["quantity"]) == (view, quantity))
                for p in points
            ]
            mean, error = ([row[name] for row in rows] for name in ("mean", "standard_error"))
            axes.errorbar(values, mean, yerr=error, fmt="o-", color=color, capsize=3, label=view)
        axes.set(xscale="log", xlabel="K, number of members", ylabel=label)
        axes.set_xticks(values, map(str, values))
        axes.minorticks_off()
        axes.grid(axis="y", alpha=0.25)
    panels[0].legend(frameon=False)
    return figure


def main() -> None:
    """Draws all."""
    sides = {side["name"]: side for side in json.loads(EFFECT.read_text())["sides"]}
    points = json.loads(NUM_MEMBERS.read_text())["sweep"]["points"]
    points.sort(key=lambda point: point["value"])
    for theme, ink in INK.items():
        rc = {"svg.hashsalt": "effect", "svg.fonttype": "none", "font.size": 10}
        rc |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), ink)
        rc |= dict.fromkeys(("xtick.color", "ytick.color"), ink)
        with rc_context(rc):
            for name, figure in (
                ("effect", draw_sides(sides, theme)),
                ("ablation_num_members", draw_sweep(points, theme)),
            ):
                for axes in figure.axes:
                    axes.spines[["top", "right"]].set_visible(False)
                file = ROOT / "docs" / "figures" / f"{name}-{theme}.svg"
                figure.savefig(file, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
