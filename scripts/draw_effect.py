"""Draws results/effect/comparison.json: docs/figures/effect-light.svg and effect-dark.svg.

python scripts/draw_effect.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
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


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval (Student) over seeds."""
    mean, count = float(np.mean(values)), len(values)
    spread = np.std(values, ddof=1) / np.sqrt(count)
    return mean, float(stats.t.ppf(0.975, count - 1) * spread)


def draw(sides: dict[str, Any], theme: str) -> None:
    """Writes the figure for light or dark pages."""
    rc = {"svg.hashsalt": "effect", "svg.fonttype": "none", "font.size": 10}
    rc |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK[theme])
    rc |= dict.fromkeys(("xtick.color", "ytick.color"), INK[theme])
    with rc_context(rc):
        figure = Figure(figsize=(8.2, 3.5), layout="constrained")
        panels = figure.subplots(1, len(QUANTITIES), sharey=True)
        for axes, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
            for row, (name, title) in enumerate(SIDES.items()):
                measured = sides[name]["measured"]
                view = measured.get("collapsed") or measured["ensemble"]
                values = [found["value"] for found in view[quantity]["values"]]
                mean, half = interval(values)
                color = COLORS[theme]["late" if "late" in title else "other"]
                axes.errorbar(mean, row, xerr=half, fmt="o", color=color, capsize=3, markersize=5)
            axes.set_xlabel(label)
            axes.grid(axis="x", alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(SIDES)), list(SIDES.values()))
        panels[0].invert_yaxis()
        file = ROOT / "docs" / "figures" / f"effect-{theme}.svg"
        figure.savefig(file, transparent=True, metadata={"Date": None})


def main() -> None:
    """Draws both figures."""
    found = json.loads((ROOT / "results" / "effect" / "comparison.json").read_text())
    sides = {side["name"]: side for side in found["sides"]}
    for theme in INK:
        draw(sides, theme)


if __name__ == "__main__":
    main()
