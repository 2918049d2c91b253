"""Means over seeds against means over seeds: better, worse, equivalent, or not yet known.

A seed is one training run. What differs between seeds is the whole training, so these tests speak
about the methods; `paired` speaks about two trained networks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from statistics import mean, stdev  # the standard library's: exact, so equal values do not spread

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lpw_jax.errors import UserError

MAX_SEEDS = 1000  # more runs than anybody will make


@dataclass(frozen=True)
class Sample:
    """What is known of one side.

    Attributes:
        mean: over seeds.
        std: the sample standard deviation over seeds (ddof = 1); None if not known.
        n: number of seeds; None if not known.

    Raises:
        ValueError: a mean or std that is not finite, a negative std, or n below 1.
    """

    mean: float
    std: float | None
    n: int | None

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise UserError(f"mean: must be finite, got {self.mean}; has a run diverged?")
        if self.std is not None and not (math.isfinite(self.std) and self.std >= 0):
            raise UserError(f"std: must be finite and 0 or more, or None, got {self.std}")
        if self.n is not None and not (isinstance(self.n, Integral) and self.n >= 1):
            raise UserError(f"n: must be a number of seeds, 1 or more, or None, got {self.n!r}")

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """The sample of one value for each seed; a single value has no std."""
        values = [float(value) for value in values]
        if not values or not all(map(math.isfinite, values)):
            raise UserError(
                f"values: must be one finite number for each seed, got {values}; "
                "leave out unfinished and diverged runs"
            )
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))

    def reach(self, *, alpha: float = 0.05) -> float:
        """Half of Student's interval of the mean, of two seeds or more."""
        error = self.std / math.sqrt(self.n)
        return error * float(stats.t.ppf(1 - alpha / 2, self.n - 1))


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds, in the unit of the means.

    Attributes:
        difference: ours - theirs.
        low, high: Welch's confidence interval of the difference, of 1 - alpha (95 %).
        welch_p: two-sided p-value for "the means are equal".
        tost_p: p-value for "the means differ by the margin or more"; None without a margin.
        degrees_of_freedom: Welch-Satterthwaite's; None where neither side spreads.
        verdict: 'equivalent', 'better', 'worse', 'undecided' or 'no verdict'.
        significant: whether Welch's p is below alpha; None without a verdict.
        reason: why, in words.
        seeds_to_decide: to how many seeds ours must grow for a verdict, if means and spreads stay
            what they are (they will move: an order of magnitude, no promise); None if there is a
            verdict already, none can bring one, or it takes more than 1000.
        seeds_status: 'decided' (there is a verdict), 'found', 'none' (no number can bring one),
            'too many' (more than 1000) or 'unknown'.
        seeds_reason: why, in words.
    """

    difference: float
    low: float | None
    high: float | None
    welch_p: float | None
    tost_p: float | None
    degrees_of_freedom: float | None
    verdict: str
    significant: bool | None
    reason: str
    seeds_to_decide: int | None
    seeds_status: str
    seeds_reason: str


def compare(
    ours: Sample,
    theirs: Sample,
    *,
    margin: float | None,
    higher_is_better: bool,
    alpha: float = 0.05,
    both_grow: bool = False,
) -> Comparison:
    """Tests for a difference (Welch) and for equivalence (two one-sided Welch tests, TOST).

    The verdict is the first that holds:
        no verdict: a side has one seed, a mean without a spread, or an unknown number of seeds.
        equivalent: TOST's p is below alpha: the means differ by less than the margin. This goes
            before a difference, since one can be real and too small to matter; the reason then
            says so.
        better, worse: Welch's p is below alpha, and the sign is (not) the wanted one.
        undecided: anything else. It does not mean equal.

    Where no side spreads, means and difference are taken as exact: the tests' limits for small
    spreads, with p-values of 0 (or 1; 1/2 for a difference of exactly the margin).

    Args:
        margin: the largest difference that does not matter, in the unit of the means; None tests
            for a difference only.
        higher_is_better: whether a larger mean is the better one.
        alpha: of each test; the interval is of 1 - alpha.
        both_grow: whether more seeds can be had of theirs, too: `seeds_to_decide` is of each side.

    Raises:
        ValueError: a margin that is not finite and positive, or an alpha outside (0, 1).
    """
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise UserError(f"margin: must be finite and above 0, or None, got {margin}")
    if not 0 < alpha < 1:
        raise UserError(f"alpha: must lie between 0 and 1, got {alpha}")
    difference = float(ours.mean - theirs.mean)
    gaps = {side: _gap(sample) for side, sample in (("ours", ours), ("theirs", theirs))}
    if any(gaps.values()):
        reason = "; ".join(f"{gap} gives no verdict ({side})" for side, gap in gaps.items() if gap)
        lacking = "our spread and our number of seeds"
        if gaps["theirs"]:
            lacking = "the spread and the number of seeds of theirs"
        seeds = None, "unknown", f"cannot be estimated: it takes {lacking}"
        if ours.n == 1 and not gaps["theirs"]:
            ours = Sample(ours.mean, theirs.std, 1)
            *found, why = _seeds_to_decide(ours, theirs, margin, alpha, both_grow)
            seeds = *found, f"{why}; one seed has no spread, theirs stands in for it"
        return Comparison(difference, *[None] * 5, "no verdict", None, reason, *seeds)

    p_values = _p_values(difference, ours.std, ours.n, theirs.std, theirs.n, margin)
    welch_p, tost_p = map(float, p_values)
    standard_error, dof = _standard_error(ours, theirs)
    # scipy's Welch test gives no interval from summary statistics.
    reach = standard_error * float(stats.t.ppf(1 - alpha / 2, dof)) if dof else 0.0
    verdict, reason = _verdict(difference, welch_p, tost_p, margin, higher_is_better, alpha)
    if not dof:
        reason += "; no side spreads, the means are taken as exact"
    seeds = None, "decided", "there is a verdict already"
    if verdict == "undecided":
        seeds = _seeds_to_decide(ours, theirs, margin, alpha, both_grow)
    interval = difference - reach, difference + reach
    tost_p = None if margin is None else tost_p
    found = verdict, welch_p < alpha, reason, *seeds
    return Comparison(difference, *interval, welch_p, tost_p, dof, *found)


def paired_by_seed(
    ours: Mapping[int, float], theirs: Mapping[int, float], *, alpha: float = 0.05
) -> dict[str, float | None] | None:
    """The mean difference of runs with the same seed, with Student's paired interval.

    Runs of a seed share their start and the order of their images, so that what the seed does to
    both alike is not in the difference.

    Args:
        ours, theirs: values by seed.

    Returns:
        difference (ours - theirs), low, high, p and n, the seeds that both have; interval and p
        are None where the differences do not spread. None unless two seeds or more are in both.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if len(seeds) < 2:
        return None
    found = Sample.of([ours[seed] - theirs[seed] for seed in seeds])
    low = high = p = None
    if found.std:
        error, dof, reach = found.std / math.sqrt(found.n), found.n - 1, found.reach(alpha=alpha)
        low, high = found.mean - reach, found.mean + reach
        p = 2 * float(stats.t.sf(abs(found.mean) / error, dof))
    return {"difference": found.mean, "low": low, "high": high, "p": p, "n": found.n}


def _gap(sample: Sample) -> str | None:
    if sample.n == 1:
        return "one seed"
    if sample.std is None:
        return "a mean without a spread"
    return "an unknown number of seeds" if sample.n is None else None


def _p_values(
    difference: float,
    ours_std: float,
    ours_n: int | NDArray[np.int_],
    theirs_std: float,
    theirs_n: int | NDArray[np.int_],
    margin: float | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Welch's and TOST's p-values, of the shape of `ours_n`; without a margin TOST's are 1."""
    # In units of the larger spread, so that no square vanishes; without spreads any difference
    # is infinitely many of them.
    unit = max(ours_std, theirs_std)
    stds = [std / unit if unit else 1.0 for std in (ours_std, theirs_std)]

    def p_value(difference: float, alternative: str) -> NDArray[np.float64]:
        if difference:
            difference = difference / unit if unit else math.copysign(math.inf, difference)
        return stats.ttest_ind_from_stats(
            difference, stds[0], ours_n, 0.0, stds[1], theirs_n,
            equal_var=False, alternative=alternative,
        ).pvalue  # fmt: skip

    welch_p = p_value(difference, "two-sided")
    if margin is None:
        return welch_p, np.ones_like(welch_p)
    above, below = p_value(difference + margin, "greater"), p_value(difference - margin, "less")
    return welch_p, np.maximum(above, below)


def _standard_error(ours: Sample, theirs: Sample) -> tuple[float, float | None]:
    """That of the difference, and its Welch-Satterthwaite degrees of freedom."""
    errors = [sample.std / math.sqrt(sample.n) for sample in (ours, theirs)]
    total = math.hypot(*errors)
    if not total:
        return 0.0, None
    shares = [(error / total) ** 2 for error in errors]
    return total, 1 / sum(
        s**2 / (side.n - 1) for s, side in zip(shares, (ours, theirs), strict=True)
    )


def _verdict(
    difference: float,
    welch_p: float,
    tost_p: float,
    margin: float | None,
    higher_is_better: bool,
    alpha: float,
) -> tuple[str, str]:
    different = f"Welch p = {welch_p:.2g}"
    equivalent = (
        "" if margin is None else f"within the margin of {margin:g} (TOST p = {tost_p:.2g})"
    )
    if tost_p < alpha:
        if welch_p < alpha:
            return "equivalent", f"a significant difference ({different}), but {equivalent}"
        return "equivalent", equivalent
    if welch_p < alpha:
        direction = "higher" if difference > 0 else "lower"
        verdict = "better" if (difference > 0) == higher_is_better else "worse"
        return verdict, f"significantly {direction} than theirs ({different})"
    if margin is None:
        return "undecided", f"no difference shown ({different}), equivalence not tested (no margin)"
    return "undecided", f"neither a difference shown ({different}) nor that it is {equivalent}"


def _seeds_to_decide(
    ours: Sample, theirs: Sample, margin: float | None, alpha: float, both_grow: bool
) -> tuple[int | None, str, str]:
    """The first number of our seeds, or of each side's, that brings a verdict, status and sentence.

    Every number is tried: with few seeds of theirs a wide spread of ours can lend Welch's test
    degrees of freedom, so that more seeds are not always better.
    """
    difference = ours.mean - theirs.mean
    if difference == 0 and margin is None:
        return None, "none", "the means are equal, which no number of seeds shows without a margin"
    if both_grow:
        least = max(ours.n, theirs.n) + (ours.n == theirs.n)
        counts = theirs_counts = np.arange(least, MAX_SEEDS + 1)
        whose = "seeds of each"
    else:
        counts, theirs_counts = np.arange(ours.n + 1, MAX_SEEDS + 1), theirs.n
        whose = "seeds of ours"
    p_values = _p_values(difference, ours.std, counts, theirs.std, theirs_counts, margin)
    welch_p, tost_p = p_values
    decided = np.minimum(welch_p, tost_p) < alpha
    if decided.any():
        first = decided.argmax()
        shown = "equivalence" if tost_p[first] < alpha else "a difference"
        return int(counts[first]), "found", f"{counts[first]} {whose} would show {shown}"
    # Infinitely many seeds are a mean known exactly, which seeds without a spread stand for.
    if both_grow or min(_p_values(difference, 0.0, 2, theirs.std, theirs.n, margin)) < alpha:
        return None, "too many", f"it takes more than {MAX_SEEDS} {whose}"
    return None, "none", "no number of seeds of ours can: the spread of theirs alone is too wide"
