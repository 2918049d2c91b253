"""Paired tests by hand, against scikit-learn, scipy and DeLong's variance, and in simulation."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lpw_jax.comparison.paired import (
    _draw_counts,
    _weighted_auroc,
    bootstrap_auroc_difference,
    bootstrap_mean_difference,
    mcnemar,
)

FEW = {"num_resamples": 300}


def answers(both, only_a, only_b, neither):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_mcnemar_of_a_hand_worked_example():
    # Two or fewer of ten coins: (1 + 10 + 45) / 2^10 = 56 / 1024, and as much on the other side.
    assert mcnemar(*answers(85, 2, 8, 5)) == {
        "only_a": 2,
        "only_b": 8,
        "difference": -0.06,
        "p": pytest.approx(112 / 1024, rel=1e-12),
    }
    # None of six: 2 / 2^6.
    assert mcnemar(*answers(3, 6, 0, 1))["p"] == pytest.approx(2 / 64, rel=1e-12)


def test_mcnemar_counts_only_the_examples_on_which_two_networks_differ():
    p_values = {mcnemar(*answers(both, 7, 15, 9))["p"] for both in (0, 10, 5000)}
    assert len(p_values) == 1
    assert mcnemar(*answers(3, 4, 4, 3))["p"] == 1.0


def test_networks_that_agree_everywhere_do_not_differ():
    nothing = {"only_a": 0, "only_b": 0, "difference": 0.0, "p": 1.0}
    assert mcnemar(*answers(5, 0, 0, 2)) == nothing


def test_exchanging_a_and_b_changes_signs_only():
    a, b = answers(40, 3, 11, 6)
    forth, back = mcnemar(a, b), mcnemar(b, a)
    assert (forth["only_a"], forth["difference"]) == (back["only_b"], -back["difference"])
    assert forth["p"] == back["p"]


def test_mcnemar_calls_equal_networks_different_in_at_most_5_percent():
    rng = np.random.default_rng(0)
    p_values = [mcnemar(*(rng.random((2, 400)) < 0.9))["p"] for _ in range(500)]
    assert 0.005 < np.mean(np.array(p_values) < 0.05) < 0.05 + 0.02


def losses(num_examples=400, shift=0.1):
    rng = np.random.default_rng(1)
    difficulty = rng.exponential(size=num_examples)
    return difficulty + rng.normal(shift, 0.3, num_examples), difficulty


def test_the_bootstrap_of_means_agrees_with_scipys():
    a, b = losses()
    found = bootstrap_mean_difference(a, b, confidence=0.9)
    expected = stats.bootstrap(
        (a, b), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, confidence_level=0.9,
        method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    tolerance = 0.03 * (expected.high - expected.low)
    assert found["difference"] == pytest.approx(a.mean() - b.mean())
    assert found["low"] == pytest.approx(expected.low, abs=tolerance)
    assert found["high"] == pytest.approx(expected.high, abs=tolerance)


def test_pairing_takes_the_difficulty_of_the_examples_out():
    a, b = losses()
    paired = bootstrap_mean_difference(a, b, **FEW)
    unrelated = bootstrap_mean_difference(a, np.random.default_rng(2).permutation(b), **FEW)
    assert paired["difference"] == pytest.approx(unrelated["difference"])
    assert 3 * (paired["high"] - paired["low"]) < unrelated["high"] - unrelated["low"]


def test_the_interval_of_means_covers_the_truth_in_95_percent():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(300):
        difference = rng.exponential(size=200)  # of mean 1, skewed as losses are
        found = bootstrap_mean_difference(difference, np.zeros(200), **FEW)
        covered.append(found["low"] <= 1 <= found["high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


def test_p_is_small_when_the_interval_leaves_zero_out_and_only_then():
    for shift in np.linspace(-0.08, 0.08, 9):
        found = bootstrap_mean_difference(*losses(shift=shift), num_resamples=999)
        excluded = found["low"] > 0 or found["high"] < 0
        assert found["p"] < 0.06 if excluded else found["p"] > 0.04
    far = bootstrap_mean_difference(*losses(shift=5.0), num_resamples=999)
    assert far["p"] == pytest.approx(2 / 1000)


def test_memory_does_not_grow_with_the_resamples():
    a, b = losses(50_000)
    tracemalloc.start()
    bootstrap_mean_difference(a, b, num_resamples=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * a.nbytes


@pytest.mark.parametrize("decimals", [0, 1, 8])  # many ties, some ties, none
def test_weighted_auroc_is_scikit_learns_of_the_repeated_images(decimals):
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(size=130).round(decimals), rng.normal(1, 1, 70).round(decimals)
    counts = _draw_counts(rng, 130), _draw_counts(rng, 70)
    assert counts[0].sum() == 130 and counts[1].sum() == 70
    repeated = np.repeat(inside, counts[0]), np.repeat(outside, counts[1])
    expected = roc_auc_score(np.repeat([0, 1], [130, 70]), np.concatenate(repeated))
    assert _weighted_auroc(inside, outside)(*counts) == pytest.approx(expected, rel=1e-12)


def test_weighted_auroc_is_exact_for_as_many_images_as_imagenet_has():
    # All of 50,000 below all of 50,000, but for one tie among 2.5e9 pairs.
    inside, outside = np.arange(50_000.0), np.arange(49_999.0, 99_999.0)
    ones = np.ones(50_000, int)
    assert _weighted_auroc(inside, outside)(ones, ones) == (50_000**2 - 0.5) / 50_000**2


def scores(seed=6, num_in=300, num_out=200):
    """Entropies of two networks that find the same images difficult; b separates them better."""
    rng = np.random.default_rng(seed)
    sets = []
    for size, means in ((num_in, (0.0, 0.0)), (num_out, (0.7, 1.0))):
        difficulty = rng.normal(size=size)
        sets.append([difficulty + rng.normal(mean, 0.5, size) for mean in means])
    (in_a, in_b), (out_a, out_b) = sets
    return in_a, out_a, in_b, out_b


def auroc(inside, outside):
    labels = np.repeat([0, 1], [inside.size, outside.size])
    return roc_auc_score(labels, np.concatenate([inside, outside]))


def delong_error(in_a, out_a, in_b, out_b):
    """Standard error of the difference of two AUROCs (DeLong et al., 1988)."""
    wins = (out_a[:, None] > in_a).astype(float) - (out_b[:, None] > in_b)
    parts = wins.mean(axis=1), wins.mean(axis=0)
    return np.sqrt(sum(part.var(ddof=1) / part.size for part in parts))


def test_the_auroc_bootstrap_agrees_with_scikit_learn_and_with_delong():
    sets = scores()
    found = bootstrap_auroc_difference(*sets, num_resamples=2000)
    expected, error = auroc(*sets[:2]) - auroc(*sets[2:]), delong_error(*sets)
    assert found["difference"] == pytest.approx(expected, rel=1e-12)
    assert found["low"] == pytest.approx(expected - 1.96 * error, abs=0.2 * error)
    assert found["high"] == pytest.approx(expected + 1.96 * error, abs=0.2 * error)


def test_the_auroc_interval_covers_the_truth_in_95_percent():
    # out - in is normal of mean 0.7 (a) or 1 (b) and variance 2 (1 + 0.5^2).
    truth = np.subtract(*stats.norm.cdf(np.array([0.7, 1.0]) / np.sqrt(2.5)))
    covered = []
    for seed in range(150):
        found = bootstrap_auroc_difference(*scores(seed, 120, 80), num_resamples=200)
        covered.append(found["low"] <= truth <= found["high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.055)


def test_scores_in_the_same_order_are_the_same_detector_in_every_resample():
    in_a, out_a, *_ = scores()
    found = bootstrap_auroc_difference(in_a, out_a, np.exp(in_a), np.exp(out_a), **FEW)
    assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


@pytest.mark.parametrize("bootstrap", [bootstrap_mean_difference, bootstrap_auroc_difference])
def test_a_bootstrap_is_a_function_of_its_seed_and_antisymmetric(bootstrap):
    a, b = (scores()[:2], scores()[2:]) if "auroc" in bootstrap.__name__ else zip(losses())
    found, again = (bootstrap(*a, *b, **FEW, seed=1) for _ in range(2))
    other = bootstrap(*a, *b, **FEW, seed=2)
    assert found == again != other and found["difference"] == other["difference"]
    back = bootstrap(*b, *a, **FEW, seed=1)
    assert (back["low"], back["high"]) == pytest.approx((-found["high"], -found["low"]))
    assert back["p"] == found["p"]


GOOD = np.zeros(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([True], [True, False]), "correct_a and correct_b: .*1 and 2"),
        (lambda: mcnemar([1, 0], [1, 1]), "correct_a: .*int64"),
        (lambda: mcnemar(np.ones(0, bool), np.ones(0, bool)), r"correct_a: .*non-empty.*\(0,\)"),
        (lambda: mcnemar([True], [[True]]), r"correct_b: .*\(1, 1\)"),
        (lambda: bootstrap_mean_difference(GOOD, np.zeros(2)), "a and b: .*3 and 2"),
        (lambda: bootstrap_mean_difference([], []), r"a: .*\(0,\)"),
        (lambda: bootstrap_mean_difference(GOOD, [0, np.nan, 0]), "b: .*finite, got 1 of 3"),
        (lambda: bootstrap_mean_difference(GOOD, GOOD, num_resamples=0), "num_resamples: .*0"),
        (lambda: bootstrap_mean_difference(GOOD, GOOD, confidence=95), "confidence: .*95"),
        (lambda: bootstrap_auroc_difference(GOOD, GOOD, GOOD, np.zeros(4)), "out_a and out_b"),
        (lambda: bootstrap_auroc_difference(GOOD, GOOD, np.zeros(2), GOOD), "in_a and in_b"),
        (lambda: bootstrap_auroc_difference(np.eye(2), GOOD, GOOD, GOOD), r"in_a: .*\(2, 2\)"),
        (lambda: bootstrap_auroc_difference(GOOD, [np.inf], GOOD, [0]), "out_a: .*1 of 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
