"""Figures of the examples, and the table of the regression."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

STYLES = {
    "plain": dict(color="black", linestyle="--"),
    "head alone": dict(color="#009e73", linestyle="-."),
    "everything": dict(color="black", linestyle="--"),
    "members": dict(color="#56b4e9", alpha=0.5),
    "ensemble": dict(color="#d55e00"),
    "collapsed": dict(color="#0072b2"),
}


def curves(history, release, file):
    """Plots each view's test loss over epochs, of which `history` has the scores, if to a file."""
    if file is None:
        return
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in filter(history[-1].__contains__, STYLES):
        epochs = [i + 1 for i, found in enumerate(history) if name in found]
        losses = np.array([found[name]["loss"] for found in history if name in found])
        for k in range(losses.shape[1]):
            axes.plot(epochs, losses[:, k], label=None if k else name, **STYLES[name])
    if release:
        axes.axvline(release, color="grey", linewidth=0.8, linestyle=":", label="release")
    late = [loss for found in history[release:] for view in found.values() for loss in view["loss"]]
    axes.set(xlabel="epoch", ylabel="test cross-entropy (nats)", yscale="log")
    axes.set_ylim(0.8 * min(late), 3 * max(late))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)


def regression(predict, states, train, test, file):
    """Prints and returns each view's test errors, and plots its mean and spread, if to a file."""
    found = {}
    print(f"{'':28} test RMSE  negative log density")
    views = predict(*states, test[0])
    for name in sorted(views, key=list(STYLES).index):
        mean, std = views[name]
        rmse = np.sqrt(np.square(mean - test[1]).mean(-1)).mean()
        density = (np.square((test[1] - mean) / std) / 2 + np.log(std * np.sqrt(2 * np.pi))).mean()
        found[name] = {"rmse": float(rmse), "negative_log_density": float(density)}
        print(f"{name:28} {rmse:9.3f}  {density:20.3f}")
    if file is not None:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        at = np.linspace(-2, 2, 200, dtype=np.float32)
        views = predict(*states, at[:, None])
        for axes, name in zip(panels, ("plain", "ensemble", "collapsed"), strict=True):
            mean, std = views[name]
            axes.scatter(*train, s=5, color="grey", label="training points")
            axes.plot(at, np.sin(3 * at), color="black", linewidth=0.8, label="truth")
            if name == "ensemble":
                lines = axes.plot(at, views["members"][0].T, linewidth=0.6, **STYLES["members"])
                lines[0].set_label("members' means")
            color = STYLES[name]["color"]
            axes.plot(at, mean, color=color, label="predicted mean")
            bounds = mean - 2 * std, mean + 2 * std
            axes.fill_between(at, *bounds, color=color, alpha=0.2, label="± 2 standard deviations")
            axes.set(title=name, xlabel="x", ylim=(-2.5, 5))
            axes.legend(frameon=False, fontsize=7, loc="upper left")
        panels[0].set_ylabel("y")
        figure.savefig(file, dpi=150)
    return found
