"""How unsure a network or its members are of single images, in float64 on the host.

N examples, C classes, K members. Every score is higher for less certain predictions. The entropy,
which is the published score, is `metrics.predictive_entropy`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpw_jax.measures import metrics


def energy(logits: ArrayLike) -> NDArray[np.float64]:
    """Energy [...] of logits [..., C] at temperature 1: minus the log of their summed exponentials.

    Liu et al., "Energy-based out-of-distribution detection", 2020.
    """
    return _energy(logits, metrics.log_softmax(logits))


def max_probability(log_probs: ArrayLike) -> NDArray[np.float64]:
    """Minus the log of the largest probability, [N], of log-probabilities [N, C], in nats.

    Ranks examples as the maximum softmax probability does, the least probable one first
    (Hendrycks and Gimpel, 2017).
    """
    return -np.asarray(log_probs, np.float64).max(axis=-1)


def between_members(member_logits: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Scores [N] that need every member's logits [K, N, C].

    Returns:
      energy: mean of the members' energies.
      mutual_information, disagreement: as below; absent for K = 1.
    """
    log_probs = metrics.log_softmax(member_logits)  # once: they are many on ImageNet
    scores = {"energy": _energy(member_logits, log_probs).mean(axis=0)}
    if len(log_probs) > 1:
        scores["mutual_information"] = _mutual_information(log_probs)
        scores["disagreement"] = disagreement(member_logits)
    return scores


def mutual_information(member_logits: ArrayLike) -> NDArray[np.float64]:
    """Between the prediction and the member that makes it, [N], in nats, 0 to log K.

    The entropy of the members' mean probabilities minus the mean of their entropies.
    """
    return _mutual_information(metrics.log_softmax(member_logits))


def disagreement(member_logits: ArrayLike) -> NDArray[np.float64]:
    """Fraction [N] of the K (K - 1) / 2 pairs of members that predict different classes.

    Of equally probable classes the first one counts as predicted. The mean over examples is that
    over pairs of the fraction of examples on which the two differ.

    Raises:
      ValueError: there are fewer than two members.
    """
    predicted = np.argmax(member_logits, axis=-1)
    num_members = len(predicted)
    if num_members < 2:
        raise ValueError(f"member_logits: must be of two or more members, got {num_members}")
    # Each member against those after it: K steps over [K, N], where pairs at once are [K, K, N].
    differing = sum(
        (predicted[k] != predicted[k + 1 :]).sum(axis=0) for k in range(num_members - 1)
    )
    return differing / (num_members * (num_members - 1) / 2)


def _energy(logits: ArrayLike, log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    # log p = logit - logsumexp, for any class.
    return log_probs[..., 0] - np.asarray(logits)[..., 0]


def _mutual_information(log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import entr  # late, as scikit-learn in `metrics`

    probs = np.exp(log_probs)
    mean_entropy = -np.einsum("knc,knc->n", probs, log_probs) / len(probs)
    # It is never negative, but rounding is.
    return np.maximum(entr(probs.mean(axis=0)).sum(axis=-1) - mean_entropy, 0)
