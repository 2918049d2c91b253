"""Flags, digits, tables and plots of the examples, so that they themselves show the library."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from loss_plots import expected_losses
from plots import STYLES, curves, regression
from sklearn.datasets import load_digits

__all__ = [
    "arguments",
    "cross_entropy",
    "curves",
    "digits",
    "expected_losses",
    "regression",
    "results",
    "scores",
]


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
