"""Metrics of predictions, in float64 on the host.

N examples, C classes, K members. Every function refuses empty, misshapen or non-finite input with
a ValueError: a diverged run has no accuracy.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpw_jax.errors import NotFinite

ECE_BINS = 15
TOP5_CLASSES = 100  # with few classes nearly everything is among five
OOD_RECALL_PERCENT = 95
ENTROPY_OFFSET = 1e-5  # the reference's guard against log(0)
NORMALISATION_TOLERANCE = 1e-3


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities [..., C] of logits [..., C]."""
    logits = finite("logits", logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ensemble_log_probs(member_logits: ArrayLike) -> NDArray[np.float64]:
    """Log of the members' mean softmax, [N, C], from member logits [K, N, C]."""
    member_logits = finite("member_logits", member_logits, ndim=3)
    return np.logaddexp.reduce(log_softmax(member_logits), axis=0) - np.log(len(member_logits))


def classification_metrics(log_probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """`summary` of the `example_scores` of log-probabilities [N, C] and integer labels [N]."""
    return summary(example_scores(log_probs, labels))


def example_scores(log_probs: ArrayLike, labels: ArrayLike) -> dict[str, NDArray]:
    """What `summary` needs of each example, all [N].

    Returns:
        correct: of equally probable classes the first one counts as predicted.
        in_top5: only of 100 classes or more; whether fewer than five classes are more probable
            than the true one.
        nll: negative log-likelihood, in nats.
        squared_error: of the probabilities, summed over classes.
        confidence: the largest probability.
    """
    log_probs = _log_probabilities(log_probs)
    num_examples, num_classes = log_probs.shape
    labels = np.asarray(labels)
    if labels.shape != (num_examples,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels: must be {num_examples} integers, one for each row of log_probs, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels: must lie in 0..{num_classes - 1}, got {labels.min()}..{labels.max()}"
        )
    probs = np.exp(log_probs)
    true_class = (np.arange(num_examples), labels)
    scores = {
        "correct": log_probs.argmax(axis=-1) == labels,
        "nll": -log_probs[true_class],
        "confidence": probs.max(axis=-1),
    }
    if num_classes >= TOP5_CLASSES:
        more_probable = log_probs > log_probs[true_class][:, None]
        scores["in_top5"] = more_probable.sum(axis=-1) < 5
    probs[true_class] -= 1.0
    return {**scores, "squared_error": np.square(probs).sum(axis=-1)}


def summary(scores: dict[str, NDArray]) -> dict[str, float]:
    """Accuracy and calibration of examples from `example_scores`.

    Returns:
        accuracy, top5_accuracy (if there is `in_top5`): fractions.
        nll: mean negative log-likelihood, in nats.
        brier: squared error of the probabilities, summed over classes, mean over examples.
        ece: expected calibration error (Guo et al., 2017) over 15 equal-width bins (lo, hi] of the
            largest probability, each weighted by its number of examples.
    """
    found = {
        "accuracy": float(scores["correct"].mean()),
        "nll": float(scores["nll"].mean()),
        "brier": float(scores["squared_error"].mean()),
        "ece": calibration_bins(scores["confidence"], scores["correct"])["ece"],
    }
    if "in_top5" in scores:
        found["top5_accuracy"] = float(scores["in_top5"].mean())
    return found


def calibration_bins(confidence: NDArray, correct: NDArray) -> dict[str, Any]:
    """The bins of the `ece` of `summary`, from `confidence` and `correct` of `example_scores`.

    Returns:
        count: examples in each bin (lo, hi], [15].
        accuracy, confidence: their means, [15]; NaN in empty bins.
        ece: as in `summary`.
    """
    inner_edges = np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1]
    bins = np.searchsorted(inner_edges, confidence, side="left")

    def sums(weights=None):
        return np.bincount(bins, weights=weights, minlength=ECE_BINS)

    count = sums()
    filled = np.where(count, count, np.nan)
    # |accuracy - confidence| times the bin's size is the size of the summed difference.
    return {
        "count": count,
        "accuracy": sums(correct) / filled,
        "confidence": sums(confidence) / filled,
        "ece": float(np.abs(sums(correct - confidence)).sum() / confidence.size),
    }


def predictive_entropy(log_probs: ArrayLike) -> NDArray[np.float64]:
    """Out-of-distribution score [N] of log-probabilities [N, C], in nats.

    -sum p log(p + 1e-5), as in the reference: a certain prediction scores -1e-5, not 0.
    """
    probs = np.exp(_log_probabilities(log_probs))
    return -(probs * np.log(probs + ENTROPY_OFFSET)).sum(axis=-1)


def ood_metrics(in_scores: ArrayLike, out_scores: ArrayLike) -> dict[str, float]:
    """How well scores separate in-distribution [N] from out-of-distribution [M] examples.

    Higher scores mean out-of-distribution, which is the positive class.

    Returns:
        auroc: area under the ROC curve; ties count half.
        aupr_out: average precision for detecting out-of-distribution examples.
        aupr_in: average precision for detecting in-distribution examples (negated scores).
        fpr95: fraction of in-distribution examples flagged at the highest threshold that still
            flags at least 95 % of the out-of-distribution ones (flagged: score >= threshold).
    """
    # Half a second to import: only where it is used.
    from sklearn.metrics import average_precision_score, roc_auc_score

    in_scores = finite("in_scores", in_scores, ndim=1)
    out_scores = finite("out_scores", out_scores, ndim=1)
    scores = np.concatenate([in_scores, out_scores])
    is_out = np.repeat([0, 1], [in_scores.size, out_scores.size])
    num_flagged = -(-OOD_RECALL_PERCENT * out_scores.size // 100)
    threshold = np.sort(out_scores)[-num_flagged]
    return {
        "auroc": float(roc_auc_score(is_out, scores)),
        "aupr_in": float(average_precision_score(1 - is_out, -scores)),
        "aupr_out": float(average_precision_score(is_out, scores)),
        "fpr95": float((in_scores >= threshold).mean()),
    }


def _log_probabilities(log_probs: ArrayLike) -> NDArray[np.float64]:
    log_probs = finite("log_probs", log_probs, ndim=2)
    worst = np.abs(np.exp(log_probs).sum(axis=-1) - 1.0).max()
    if worst > NORMALISATION_TOLERANCE:
        raise ValueError(
            f"log_probs: exp must sum to 1 over classes, it is off by {worst:.3g}; "
            "pass logits through log_softmax first"
        )
    return log_probs


def finite(name: str, values: ArrayLike, ndim: int | None = None) -> NDArray[np.float64]:
    """`values` as a float64 array, which must not be empty.

    Raises:
      ValueError: of another shape.
      NotFinite: of infinities or NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or (ndim is not None and values.ndim != ndim):
        expected = "a non-empty array" + (f" of {ndim} dimensions" if ndim else "")
        raise ValueError(f"{name}: must be {expected}, got shape {values.shape}")
    num_bad = values.size - np.isfinite(values).sum()
    if num_bad:
        raise NotFinite(
            f"{name}: every value must be finite, got {num_bad} of {values.size} NaN or infinite; "
            "training has probably diverged (try a lower learning rate)"
        )
    return values
