"""Temperature scaling (Guo et al., 2017), in float64 on the host. N examples, C classes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpw_jax.measures import metrics

TEMPERATURES = (1e-3, 1e3)  # beyond them a network is certain, or knows nothing, of every image


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float | None:
    """The temperature T at which softmax(logits / T) has the smallest mean NLL.

    The NLL is convex in 1 / T: its one minimum is where the slope is zero, sought in log T.

    Args:
      logits: [N, C]; log-probabilities will do as well.
      labels: integers [N].

    Returns:
      T, or None if there is no minimum in `TEMPERATURES`: the NLL falls towards T = 0 if every
      prediction is right, and towards infinity if they are no better than chance.
    """
    from scipy.optimize import brentq  # a quarter of a second: only where it is used

    log_probs = metrics.log_softmax(logits)
    metrics.example_scores(log_probs, labels)  # checks both
    true_class = log_probs[np.arange(len(log_probs)), labels]

    def slope(log_temperature: float) -> float:
        """Derivative of the mean NLL with respect to 1 / T."""
        probs = np.exp(scaled(log_probs, np.exp(log_temperature)))
        return float(((probs * log_probs).sum(axis=-1) - true_class).mean())

    low, high = np.log(TEMPERATURES)
    if not slope(low) > 0 > slope(high):
        return None
    return float(np.exp(brentq(slope, low, high, xtol=1e-12)))


def scaled(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Log-probabilities [..., C] of logits [..., C] divided by the temperature."""
    return metrics.log_softmax(np.asarray(logits, np.float64) / temperature)
