"""Measures of predicted bytes, from sums over the bytes of each example.

The probabilities of 256 values for each byte of a text would be a thousand times the text, so that
devices add up what the measures need: an example's *sums* are float [..., len(SUMS)].
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpw_jax.measures.metrics import ECE_BINS, finite

# Negative log-likelihood in nats, right predictions, squared errors of the probabilities, and, of
# the predictions in each bin of confidence, the right ones minus the sum of their confidence.
SUMS = ("nll", "correct", "squared_error", *(f"gap{i}" for i in range(ECE_BINS)))


def summary(sums: ArrayLike, num_bytes: ArrayLike) -> dict[str, float]:
    """The metrics of `metrics.summary`, of bytes, and `bpc`, bits per byte.

    Args:
      sums: [N, len(SUMS)] of N examples.
      num_bytes: [N], how many each has.

    Raises:
      NotFinite: the sums are not finite.
    """
    total = finite("sums", sums, ndim=2).sum(0) / np.asarray(num_bytes).sum()
    nll, accuracy, brier, gaps = total[0], total[1], total[2], total[3:]
    return {
        "accuracy": float(accuracy),
        "nll": float(nll),
        "brier": float(brier),
        "ece": float(np.abs(gaps).sum()),
        "bpc": float(nll) / math.log(2),
    }


def bits(sums: ArrayLike, num_bytes: ArrayLike) -> NDArray[np.float64]:
    """Each example's bits per byte, [N], from sums [N, len(SUMS)]."""
    return np.asarray(sums, np.float64)[:, 0] / np.asarray(num_bytes) / math.log(2)


def views(found: dict[str, Any]) -> dict[str, Any]:
    """The `views` of results.json from the sums of `collapsed`, `ensemble` and `members`."""
    count = found["label"]
    return {
        "collapsed": summary(found["collapsed"], count),
        "ensemble": summary(found["ensemble"], count),
        "members": [summary(member, count) for member in found["members"]],
    }
