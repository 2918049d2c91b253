"""Which classes are taken for which, and on which images a network is wrong or unsure."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]


def confusion(labels: Integers, predicted: Integers, num_classes: int) -> NDArray[np.int64]:
    """How many images of each class (row) are taken for each class (column), [C, C]."""
    pairs = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confused(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """(class, what it is taken for, images), the most images first; of equal ones by class."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(a), int(b), int(wrong[a, b])) for a, b in pairs if wrong[a, b]]


def most_confident(log_probs: NDArray, labels: Integers, most: int) -> Integers:
    """The rows of log-probabilities [N, C] that are wrong, the most confident first."""
    wrong = np.flatnonzero(log_probs.argmax(axis=-1) != labels)
    confidence = log_probs[wrong].max(axis=-1)
    return wrong[np.argsort(-confidence, kind="stable")[:most]]


def ends(scores: NDArray, most: int) -> Integers:
    """The rows with the lowest scores [N], ascending, then those with the highest, descending.

    There are `most` of each, or together all that there are.
    """
    order = np.argsort(scores, kind="stable")
    low = order[: min(most, (len(order) + 1) // 2)]
    return np.concatenate([low, order[::-1][: min(most, len(order) // 2)]])
