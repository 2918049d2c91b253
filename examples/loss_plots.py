"""The table and the figure of the noisy quadratic problem."""

import numpy as np
from matplotlib.figure import Figure

COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#000000")


def expected_losses(found, closed_forms, minibatches, file):
    """Prints and returns simulated losses beside closed forms, and plots both, if to a file."""
    print(f"{'after minibatches':24} {minibatches // 10:>16} {minibatches:>20}")
    for name, losses in found.items():
        cells = []
        for n in (minibatches // 10, minibatches):
            simulated = float(losses[n * len(losses) // minibatches - 1])
            cells.append(f"{simulated:.4f} ({closed_forms(n)[name]:.4f})")
        print(f"{name:24} {cells[0]:>16} {cells[1]:>20}")
    print("simulated (closed form)")
    if file is not None:
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axes = figure.add_subplot()
        at = np.unique(np.geomspace(10, minibatches, 200).astype(int))
        lines = [closed_forms(n) for n in at]
        for name, color in zip(lines[0], COLORS, strict=True):
            is_simulated = name in found
            axes.plot(
                at, [line[name] for line in lines], color=color,
                linestyle="-" if is_simulated else "--", label=None if is_simulated else name,
            )  # fmt: skip
            if is_simulated:
                every = minibatches // len(found[name])
                shown = np.unique(np.geomspace(10 // every, len(found[name]), 25).astype(int))
                values = np.asarray(found[name])[shown - 1]
                axes.plot(shown * every, values, "o", color=color, markersize=4, label=name)
        axes.set(xscale="log", yscale="log", xlabel="minibatches since the release")
        axes.set_ylabel("expected excess loss (points: simulated)")
        axes.legend(frameon=False)
        figure.savefig(file, dpi=150)
    return {name: np.asarray(losses) for name, losses in found.items()}
