"""Flags, digits, table and plot of the examples, so that they themselves show the library."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.datasets import load_digits

STYLES = {
    "plain": dict(color="black", linestyle="--"),
    "head alone": dict(color="#009e73", linestyle="-."),
    "everything": dict(color="black", linestyle="--"),
    "members": dict(color="#56b4e9", alpha=0.5),
    "ensemble": dict(color="#d55e00"),
    "collapsed": dict(color="#0072b2"),
}


def arguments(doc, argv):
    """The flags `--quick` and `--plot FILE` of every example."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--plot", metavar="FILE", help="save a figure, such as plot.png")
    return parser.parse_args(argv)


def digits():
    """The 1,797 digits of scikit-learn in a random order: images [N, 8, 8] in [0, 1], labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return np.float32(images[order].reshape(-1, 8, 8) / 16), labels[order]


def cross_entropy(logits, labels):
    """Its mean over examples, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def scores(views, labels):
    """Cross-entropy and accuracy of {name: logits [n, N, C]}, each [n]; for jax.jit."""

    def score(logits):
        accuracy = jnp.mean(logits.argmax(-1) == labels)
        return {"loss": cross_entropy(logits, labels), "accuracy": accuracy}

    return {name: jax.vmap(score)(jnp.asarray(logits)) for name, logits in views.items()}


def results(found):
    """Prints {name: scores}, the mean over each view's networks, and returns it."""
    print(f"{'':28} test accuracy  cross-entropy")
    for name in filter(found.__contains__, STYLES):
        score = found[name]
        name += f" (mean of {len(score['loss'])})" if len(score["loss"]) > 1 else ""
        print(f"{name:28} {100 * score['accuracy'].mean():11.2f} %  {score['loss'].mean():13.4f}")
    return found


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
    for name, (mean, std) in sorted(predict(*states, test[0]).items(), key=_place):
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


def _place(item):
    return list(STYLES).index(item[0])
