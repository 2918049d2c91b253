"""Means over seeds, by hand, against scipy's tests on raw values, and in simulation."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from lpw_jax.comparison.statistics import Sample, compare

SINGLE = Sample(96.5, None, 1)
PUBLISHED = Sample(96.46, 0.15, 5)  # percent


def accuracy(ours, theirs, margin=0.5, **options):
    return compare(ours, theirs, margin=margin, higher_is_better=True, **options)


def test_a_sample_knows_mean_and_spread_of_its_values():
    # Deviations -1, 0, 1: (1 + 0 + 1) / (3 - 1) = 1.
    assert Sample.of([95.0, 96.0, 97.0]) == Sample(96.0, 1.0, 3)
    assert Sample.of(np.float32([0.5])) == Sample(0.5, None, 1)
    values = np.random.default_rng(0).normal(size=7)
    assert Sample.of(values).mean == pytest.approx(values.mean(), rel=1e-14)
    assert Sample.of(values).std == pytest.approx(values.std(ddof=1), rel=1e-14)


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_equal_values_have_exactly_no_spread(n):
    assert Sample.of([0.1] * n) == Sample(0.1, 0.0, n)  # numpy finds 1e-17 for some n


def test_welch_of_a_hand_worked_example():
    # [1..5] and twice that: means 3 and 6, variances 2.5 and 10, of the means 0.5 and 2.
    # t = -3 / sqrt(2.5) = -1.897; dof = 2.5^2 / (0.5^2 / 4 + 2^2 / 4) = 6.25 / 1.0625 = 5.882.
    found = accuracy(Sample.of([1, 2, 3, 4, 5]), Sample.of([2, 4, 6, 8, 10]))
    assert found.difference == -3
    assert found.degrees_of_freedom == pytest.approx(6.25 / 1.0625)
    assert found.welch_p == pytest.approx(2 * stats.t.cdf(-3 / math.sqrt(2.5), 6.25 / 1.0625))
    # Tables: two-sided p is 0.10 at 1.943 (6 degrees of freedom) and at 2.015 (5).
    assert 0.10 < found.welch_p < 0.12


def test_welch_of_equal_spreads_agrees_with_a_table_of_t():
    # Spread 1, five seeds each: standard error sqrt(1/5 + 1/5); 8 degrees of freedom, for which
    # tables give t = 2.306 at a two-sided p of 0.05.
    error = math.sqrt(0.4)
    found = accuracy(Sample(2.306 * error, 1.0, 5), Sample(0.0, 1.0, 5))
    assert found.degrees_of_freedom == pytest.approx(8)
    assert found.welch_p == pytest.approx(0.05, abs=2e-5)
    assert found.low == pytest.approx(0.0, abs=1e-4)
    assert found.high == pytest.approx(2 * 2.306 * error, abs=1e-4)


@pytest.mark.parametrize("difference", [0.2, -0.2])
def test_tost_of_a_hand_worked_example(difference):
    # As above, 8 degrees of freedom: one-sided p is 0.05 at t = 1.860. The nearer margin counts.
    margin = 0.2 + 1.860 * math.sqrt(0.4)
    found = accuracy(Sample(difference, 1.0, 5), Sample(0.0, 1.0, 5), margin=margin)
    assert found.tost_p == pytest.approx(0.05, abs=5e-5)


def test_one_side_without_spread_leaves_the_other_sides_degrees_of_freedom():
    # Spread 2 over four seeds: standard error 1, 3 degrees of freedom, t = 3.182 at p = 0.05.
    found = accuracy(Sample(3.182, 2.0, 4), Sample(0.0, 0.0, 3))
    assert found.degrees_of_freedom == pytest.approx(3)
    assert found.welch_p == pytest.approx(0.05, abs=2e-5)
    mirrored = accuracy(Sample(0.0, 0.0, 3), Sample(3.182, 2.0, 4))
    assert mirrored.welch_p == found.welch_p and mirrored.low == -found.high


@pytest.mark.parametrize("seed", range(5))
def test_all_of_it_agrees_with_scipys_tests_on_the_values(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 2.0, size=rng.integers(2, 12))
    y = rng.normal(0.0, 0.5, size=rng.integers(2, 12))
    found = accuracy(Sample.of(x), Sample.of(y), margin=1.5, alpha=0.1)
    welch = stats.ttest_ind(x, y, equal_var=False)
    interval = welch.confidence_interval(0.9)
    above = stats.ttest_ind(x + 1.5, y, equal_var=False, alternative="greater")
    below = stats.ttest_ind(x - 1.5, y, equal_var=False, alternative="less")
    assert found.welch_p == pytest.approx(welch.pvalue)
    assert found.degrees_of_freedom == pytest.approx(welch.df)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.tost_p == pytest.approx(max(above.pvalue, below.pvalue))


def test_the_unit_does_not_matter():
    ours, theirs = Sample(1.2, 0.3, 4), Sample(1.0, 0.2, 5)
    expected = accuracy(ours, theirs)
    for unit in (1e-200, 1e150):
        scaled = [Sample(s.mean * unit, s.std * unit, s.n) for s in (ours, theirs)]
        found = accuracy(*scaled, margin=0.5 * unit)
        assert found.welch_p == pytest.approx(expected.welch_p)
        assert found.tost_p == pytest.approx(expected.tost_p)
        assert found.degrees_of_freedom == pytest.approx(expected.degrees_of_freedom)
        assert found.verdict == expected.verdict


def simulate(true_difference, num_simulations=1000, **options):
    rng = np.random.default_rng(0)
    for _ in range(num_simulations):
        x, y = rng.normal(true_difference, 0.3, size=4), rng.normal(0.0, 0.1, size=6)
        yield accuracy(Sample.of(x), Sample.of(y), **options)


def test_the_interval_covers_the_true_difference_in_95_percent():
    covered = np.mean([found.low <= 0.4 <= found.high for found in simulate(0.4, margin=None)])
    assert covered == pytest.approx(0.95, abs=0.025)  # over three standard errors


@pytest.mark.parametrize("true_difference", [0.7, -0.7])
def test_a_difference_of_the_margin_is_called_equivalent_in_at_most_5_percent(true_difference):
    verdicts = [found.verdict for found in simulate(true_difference, margin=0.7)]
    assert 0.02 < verdicts.count("equivalent") / len(verdicts) < 0.05 + 0.02


def test_equal_methods_are_called_different_in_at_most_5_percent():
    verdicts = [found.verdict for found in simulate(0.0, margin=None)]
    assert (verdicts.count("better") + verdicts.count("worse")) / len(verdicts) < 0.05 + 0.02


@pytest.mark.parametrize(
    ("mean", "std", "margin", "verdict", "reason"),
    [
        (96.50, 0.15, 0.5, "equivalent", "within the margin of 0.5"),
        (96.80, 0.05, 0.5, "equivalent", "a significant difference .*, but within the margin"),
        (97.40, 0.15, 0.5, "better", "significantly higher"),
        (95.40, 0.15, 0.5, "worse", "significantly lower"),
        (96.80, 0.05, None, "better", "significantly higher"),
        (96.20, 0.60, 0.5, "undecided", "neither a difference .* nor"),
        (96.50, 0.15, None, "undecided", ".*equivalence not tested"),
    ],
)
def test_every_verdict_is_reached_for_its_reason(mean, std, margin, verdict, reason):
    found = accuracy(Sample(mean, std, 5), PUBLISHED, margin=margin)
    assert found.verdict == verdict
    assert re.match(reason, found.reason)
    assert (found.tost_p is None) == (margin is None)
    assert (found.verdict == "better") <= (found.low > 0)
    assert (found.verdict == "worse") <= (found.high < 0)


def test_lower_is_better_exchanges_better_and_worse_only():
    for higher, lower in ((97.4, "worse"), (95.4, "better"), (96.5, "equivalent")):
        nll = compare(Sample(higher, 0.15, 5), PUBLISHED, margin=0.5, higher_is_better=False)
        assert nll.verdict == lower


def test_equivalent_means_that_the_90_percent_interval_lies_within_the_margin():
    for mean in np.linspace(96.0, 97.0, 41):
        ours = Sample(float(mean), 0.2, 3)
        interval = accuracy(ours, PUBLISHED, alpha=0.1)
        inside = interval.low > -0.5 and interval.high < 0.5
        assert (accuracy(ours, PUBLISHED).verdict == "equivalent") == inside


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (SINGLE, PUBLISHED, "one seed gives no verdict (ours)"),
        (SINGLE, SINGLE, "one seed gives no verdict (ours); one seed gives no verdict (theirs)"),
        (Sample(96.5, 0.0, 1), PUBLISHED, "one seed gives no verdict (ours)"),
        (Sample(96.5, None, 3), PUBLISHED, "a mean without a spread gives no verdict (ours)"),
        (PUBLISHED, Sample(76.6, None, None), "a mean without a spread gives no verdict (theirs)"),
        (
            PUBLISHED,
            Sample(76.6, 0.1, None),
            "an unknown number of seeds gives no verdict (theirs)",
        ),
    ],
)
def test_what_is_not_known_gives_no_verdict_and_says_what(ours, theirs, reason):
    found = accuracy(ours, theirs)
    assert (found.verdict, found.reason) == ("no verdict", reason)
    assert found.difference == ours.mean - theirs.mean
    assert {found.low, found.high, found.welch_p, found.tost_p, found.degrees_of_freedom} == {None}
    if ours.n != 1 or theirs is not PUBLISHED:
        assert found.seeds_to_decide is None and "cannot be estimated" in found.seeds_reason


@pytest.mark.parametrize(
    ("difference", "margin", "verdict", "welch_p", "tost_p"),
    [
        (0.0, 0.5, "equivalent", 1.0, 0.0),
        (0.25, 0.5, "equivalent", 0.0, 0.0),
        (0.5, 0.5, "better", 0.0, 0.5),
        (0.75, 0.5, "better", 0.0, 1.0),
        (-0.75, 0.5, "worse", 0.0, 1.0),
        (0.25, None, "better", 0.0, None),
        (0.0, None, "undecided", 1.0, None),
    ],
)
def test_without_any_spread_the_means_are_exact(difference, margin, verdict, welch_p, tost_p):
    found = accuracy(Sample(difference, 0.0, 3), Sample(0.0, 0.0, 2), margin=margin)
    assert (found.verdict, found.welch_p, found.tost_p) == (verdict, welch_p, tost_p)
    assert found.low == found.high == difference
    assert found.degrees_of_freedom is None and "taken as exact" in found.reason
    if difference:  # the limit of small spreads
        near = accuracy(Sample(difference, 1e-9, 3), Sample(0.0, 1e-9, 2), margin=margin)
        assert near.verdict == verdict


@pytest.mark.parametrize(
    ("ours", "verdict", "significant"),
    [
        (Sample(96.7, 0.05, 5), "equivalent", True),
        (Sample(96.5, 0.15, 5), "equivalent", False),
        (Sample(97.5, 0.15, 5), "better", True),
        (Sample(96.2, 0.90, 3), "undecided", False),
        (Sample(96.5, None, 1), "no verdict", None),
    ],
)
def test_a_difference_is_called_significant_whatever_the_verdict(ours, verdict, significant):
    found = accuracy(ours, PUBLISHED, margin=0.5)
    assert (found.verdict, found.significant) == (verdict, significant)


def test_results_are_plain_numbers_for_json():
    for ours in (Sample.of(np.float32([96.1, 96.9, 95.2])), Sample(np.float64(96.5), None, 1)):
        found = accuracy(ours, PUBLISHED, margin=0.3)
        assert {type(v) for v in vars(found).values()} <= {float, int, bool, str, type(None)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample.of([]), r"values: .*got \[\]"),
        (lambda: Sample.of([1.0, math.nan]), "values: .*finite"),
        (lambda: Sample(math.inf, 1.0, 3), "mean: .*inf"),
        (lambda: Sample(1.0, -0.1, 3), "std: .*-0.1"),
        (lambda: Sample(1.0, math.nan, 3), "std: .*nan"),
        (lambda: Sample(1.0, 0.1, 0), "n: .*0"),
        (lambda: Sample(1.0, 0.1, 2.5), "n: .*2.5"),
        (lambda: accuracy(PUBLISHED, PUBLISHED, margin=0.0), "margin: .*above 0"),
        (lambda: accuracy(PUBLISHED, PUBLISHED, margin=math.nan), "margin: .*nan"),
        (lambda: accuracy(PUBLISHED, PUBLISHED, alpha=1.0), "alpha: .*1.0"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
