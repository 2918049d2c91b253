"""One trained network against another on the same test images.

Example i of a is example i of b. These tests ask whether the two networks differ on images like
these; what another seed would have given is in none of them (`statistics` compares seeds).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lpw_jax.errors import UserError
from lpw_jax.measures.metrics import finite

_AT_ONCE = 50_000  # examples that are drawn at once: more would leave the caches


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> dict[str, float]:
    """McNemar's exact test: do two networks classify equally well?

    Args:
        correct_a, correct_b: [N] booleans, whether each prediction is right.

    Returns:
        only_a, only_b: numbers of examples that only one of them gets right.
        difference: accuracy of a minus accuracy of b, a fraction.
        p: two-sided; of the examples on which they differ, either side has half by chance
            (a binomial test); 1 if they differ on none.

    Raises:
        ValueError: arrays that are empty, not boolean, not [N], or of unequal length.
    """
    correct = {"correct_a": np.asarray(correct_a), "correct_b": np.asarray(correct_b)}
    for name, values in correct.items():
        if values.dtype != bool or values.ndim != 1 or not values.size:
            raise ValueError(
                f"{name}: must be a non-empty boolean array [N], "
                f"got {values.dtype} of shape {values.shape}"
            )
    a, b = _same_length(**correct)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": (only_a - only_b) / a.size,
        "p": float(stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0,
    }


def bootstrap_mean_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Paired bootstrap of mean(a) - mean(b) over examples, as for NLL (Efron, 1979).

    Args:
        a, b: [N] values of the same examples.
        num_resamples: of N examples each, drawn with replacement.
        seed: of the draws; the result is a function of the arguments.
        confidence: of the interval.

    Returns:
        difference: of the given examples.
        low, high: percentile interval.
        p: two-sided: the interval of confidence 1 - p just reaches 0. At least
            2 / (num_resamples + 1).

    Raises:
        ValueError: arrays that are empty, not finite, not [N], or of unequal length;
            no resamples; a confidence outside (0, 1).
    """
    a, b = _same_length(a=finite("a", a, ndim=1), b=finite("b", b, ndim=1))
    differences = a - b

    def resampled(rng: np.random.Generator, number: int) -> NDArray[np.float64]:
        return rng.choice(differences, (number, differences.size)).mean(1)

    at_once = max(1, _AT_ONCE // differences.size)
    return _bootstrap(differences.mean(), resampled, num_resamples, seed, confidence, at_once)


def bootstrap_auroc_difference(
    in_a: ArrayLike,
    out_a: ArrayLike,
    in_b: ArrayLike,
    out_b: ArrayLike,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Paired bootstrap of a's minus b's AUROC for telling in- from out-of-distribution images.

    The two sets of images are resampled separately, the same images for a and b.

    Args:
        in_a, in_b: [N] scores of the in-distribution images.
        out_a, out_b: [M] scores of the out-of-distribution images, the positive class: larger.
        num_resamples, seed, confidence: as for `bootstrap_mean_difference`.

    Returns:
        As `bootstrap_mean_difference`.

    Raises:
        ValueError: as `bootstrap_mean_difference`.
    """
    in_a, in_b = _same_length(in_a=finite("in_a", in_a, ndim=1), in_b=finite("in_b", in_b, ndim=1))
    out_a, out_b = _same_length(
        out_a=finite("out_a", out_a, ndim=1), out_b=finite("out_b", out_b, ndim=1)
    )
    auroc_a, auroc_b = _weighted_auroc(in_a, out_a), _weighted_auroc(in_b, out_b)

    def difference(in_counts: NDArray[np.int_], out_counts: NDArray[np.int_]) -> float:
        return auroc_a(in_counts, out_counts) - auroc_b(in_counts, out_counts)

    def resampled(rng: np.random.Generator, number: int) -> list[float]:
        counts = ([_draw_counts(rng, s.size) for s in (in_a, out_a)] for _ in range(number))
        return [difference(*both) for both in counts]

    once = (np.ones(scores.size, int) for scores in (in_a, out_a))
    return _bootstrap(difference(*once), resampled, num_resamples, seed, confidence)


def _weighted_auroc(
    in_scores: NDArray[np.float64], out_scores: NDArray[np.float64]
) -> Callable[[NDArray[np.int_], NDArray[np.int_]], float]:
    """AUROC as a function of how often each image occurs: [N] and [M] counts.

    The scores are sorted once; in integers the sums are exact, and ties count half.
    """
    order = np.argsort(in_scores)
    ranked = in_scores[order]
    num_below = np.searchsorted(ranked, out_scores, side="left")
    num_not_above = np.searchsorted(ranked, out_scores, side="right")

    def auroc(in_counts: NDArray[np.int_], out_counts: NDArray[np.int_]) -> float:
        up_to = np.concatenate([[0], np.cumsum(in_counts[order])])
        twice_won = out_counts @ (up_to[num_below] + up_to[num_not_above])
        return float(twice_won / (2 * in_counts.sum() * out_counts.sum()))

    return auroc


def _draw_counts(rng: np.random.Generator, size: int) -> NDArray[np.int_]:
    """How often each of `size` examples is among as many draws with replacement."""
    return np.bincount(rng.integers(size, size=size), minlength=size)


def _bootstrap(
    difference: float,
    resampled: Callable[[np.random.Generator, int], ArrayLike],
    num_resamples: int,
    seed: int,
    confidence: float,
    at_once: int = 1,
) -> dict[str, float]:
    """The result, of `resampled` differences, so many `at_once`."""
    if num_resamples < 1:
        raise UserError(f"num_resamples: must be 1 or more, got {num_resamples}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence: must lie between 0 and 1, got {confidence}")
    rng = np.random.default_rng(seed)
    numbers = [min(at_once, num_resamples - n) for n in range(0, num_resamples, at_once)]
    found = np.concatenate([resampled(rng, number) for number in numbers])
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    # The difference as found counts as one more resample on either side: no p of 0 by chance.
    rarer_side = min((found <= 0).sum(), (found >= 0).sum()) + 1
    return {
        "difference": float(difference),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * rarer_side / (num_resamples + 1))),
    }


def _same_length(**arrays: NDArray) -> list[NDArray]:
    sizes = {name: values.size for name, values in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(
            f"{' and '.join(sizes)}: must be of the same images, got "
            f"{' and '.join(map(str, sizes.values()))}; compare runs on the same test set"
        )
    return list(arrays.values())
