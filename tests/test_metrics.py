"""Metrics against scikit-learn, scipy and examples worked by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import logsumexp, softmax
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    roc_curve,
    top_k_accuracy_score,
)

from lpw_jax.measures import metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return scipy_log_softmax(3 * rng.normal(size=(500, 7)), axis=-1), rng.integers(7, size=500)


def test_log_softmax_survives_large_logits_and_equals_scipy():
    logits = np.random.default_rng(1).normal(size=(3, 5, 4)) * 1e4
    np.testing.assert_allclose(
        metrics.log_softmax(logits), scipy_log_softmax(logits, axis=-1), rtol=1e-13
    )


def test_ensemble_is_the_mean_of_the_members_probabilities():
    logits = 5 * np.random.default_rng(2).normal(size=(4, 20, 6))
    expected = np.log(softmax(logits, axis=-1).mean(axis=0))
    np.testing.assert_allclose(metrics.ensemble_log_probs(logits), expected, rtol=1e-12)


def test_ensemble_of_one_is_that_member_and_improbable_classes_stay_finite():
    logits = np.array([[[0.0, -5000.0], [7.0, 7.0]]])
    np.testing.assert_array_equal(
        metrics.ensemble_log_probs(logits), metrics.log_softmax(logits[0])
    )
    assert np.isfinite(metrics.ensemble_log_probs(np.repeat(logits, 3, axis=0))).all()


def test_classification_metrics_equal_scikit_learn(predictions):
    log_probs, labels = predictions
    got = metrics.classification_metrics(log_probs, labels)
    probs = np.exp(log_probs)
    classes = list(range(7))
    assert got["accuracy"] == accuracy_score(labels, probs.argmax(axis=1))
    assert got["nll"] == pytest.approx(log_loss(labels, probs, labels=classes), rel=1e-12)
    assert got["brier"] == pytest.approx(
        brier_score_loss(labels, probs, labels=classes, scale_by_half=False), rel=1e-12
    )


def test_top5_accuracy_equals_scikit_learn_and_is_for_many_classes_only(predictions):
    assert "top5_accuracy" not in metrics.classification_metrics(*predictions)
    rng = np.random.default_rng(6)
    log_probs = scipy_log_softmax(2 * rng.normal(size=(400, 100)), axis=-1)
    labels = np.where(
        rng.random(400) < 0.3, np.argsort(log_probs)[:, -3], rng.integers(100, size=400)
    )
    expected = top_k_accuracy_score(labels, log_probs, k=5, labels=range(100))
    found = metrics.classification_metrics(log_probs, labels)
    assert found["top5_accuracy"] == expected > found["accuracy"]


def test_a_true_class_as_probable_as_the_fifth_counts_as_among_five():
    log_probs = np.log(np.full((1, 100), 0.01))
    assert metrics.classification_metrics(log_probs, [99])["top5_accuracy"] == 1.0


def test_examples_scored_in_parts_give_the_same_summary(predictions):
    log_probs, labels = predictions
    halves = [
        metrics.example_scores(log_probs[part], labels[part])
        for part in np.split(np.arange(500), [123])
    ]
    joined = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    assert metrics.summary(joined) == metrics.classification_metrics(log_probs, labels)


def test_ece_equals_a_loop_over_its_fifteen_bins(predictions):
    log_probs, labels = predictions
    confidence, correct = np.exp(log_probs).max(axis=1), log_probs.argmax(axis=1) == labels
    expected, found = 0.0, metrics.calibration_bins(confidence, correct)
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        assert found["count"][k] == inside.sum()
        means = [found[name][k] for name in ("accuracy", "confidence")]
        if inside.any():
            assert means == pytest.approx([correct[inside].mean(), confidence[inside].mean()])
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
        else:
            assert np.isnan(means).all()
    assert found["ece"] == pytest.approx(expected)
    assert metrics.classification_metrics(log_probs, labels)["ece"] == pytest.approx(expected)


def test_a_hand_worked_example():
    probs = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    got = metrics.classification_metrics(np.log(probs), np.array([0, 2]))
    assert got["accuracy"] == 0.5
    assert got["nll"] == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert got["brier"] == pytest.approx((0.375 + 0.875) / 2)
    assert got["ece"] == pytest.approx(0.0)  # both in one bin: half are right, as promised


def test_certain_and_right_predictions_are_perfect():
    log_probs = metrics.log_softmax(1e4 * np.eye(4))
    got = metrics.classification_metrics(log_probs, np.arange(4))
    assert got == {"accuracy": 1.0, "nll": 0.0, "brier": 0.0, "ece": 0.0}


def test_certain_and_wrong_predictions_are_worst():
    got = metrics.classification_metrics(metrics.log_softmax(1e4 * np.eye(2)), np.array([1, 0]))
    assert got == {"accuracy": 0.0, "nll": 1e4, "brier": 2.0, "ece": 1.0}


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.6 = 9/15 closes the ninth bin, where the wrong 0.59 also lies: their gaps cancel.
    # In the bin above it would add up to |0 - 0.59| + |1 - 0.6|.
    edge = np.linspace(0, 1, 16)[9]
    ece = metrics.calibration_bins(np.array([edge, 0.59]), np.array([True, False]))["ece"]
    assert ece == pytest.approx((0.59 - 0.4) / 2)


def test_equally_probable_classes_predict_the_first():
    log_probs = np.log(np.full((3, 3), 1 / 3))
    assert metrics.classification_metrics(log_probs, np.arange(3))["accuracy"] == 1 / 3


def test_float32_input_is_computed_in_float64(predictions):
    log_probs, labels = predictions
    got = metrics.classification_metrics(log_probs.astype(np.float32), labels.astype(np.int32))
    expected = metrics.classification_metrics(log_probs, labels)
    assert got == pytest.approx(expected, rel=1e-5)
    assert all(type(value) is float for value in got.values())


def test_predictive_entropy_has_the_references_offset():
    entropy = metrics.predictive_entropy(np.log([[0.5, 0.5], [1 - 1e-12, 1e-12]]))
    np.testing.assert_allclose(entropy, [-np.log(0.5 + 1e-5), -np.log(1 + 1e-5)], rtol=1e-5)


def mann_whitney_auroc(in_scores, out_scores):
    difference = out_scores[:, None] - in_scores[None, :]
    return (difference > 0).mean() + 0.5 * (difference == 0).mean()


@pytest.mark.parametrize("decimals", [0, 1, 8])  # many ties, some ties, none
def test_ood_metrics_equal_pairwise_comparison_and_the_roc_curve(decimals):
    rng = np.random.default_rng(3)
    in_scores = rng.normal(size=230).round(decimals)
    out_scores = rng.normal(1.0, size=170).round(decimals)
    got = metrics.ood_metrics(in_scores, out_scores)
    assert got["auroc"] == pytest.approx(mann_whitney_auroc(in_scores, out_scores))
    is_out = np.repeat([0, 1], [230, 170])
    fpr, tpr, _ = roc_curve(
        is_out, np.concatenate([in_scores, out_scores]), drop_intermediate=False
    )
    assert got["fpr95"] == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


def test_average_precision_of_a_hand_worked_ranking():
    # Descending: out 4, in 3, out 2, in 1.
    got = metrics.ood_metrics(np.array([3.0, 1.0]), np.array([4.0, 2.0]))
    assert got["auroc"] == pytest.approx(0.75)
    assert got["aupr_out"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert got["aupr_in"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert got["fpr95"] == pytest.approx(0.5)


def test_the_two_precisions_exchange_when_the_sets_do():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=50), rng.normal(0.5, size=90)
    assert metrics.ood_metrics(a, b)["aupr_in"] == metrics.ood_metrics(-b, -a)["aupr_out"]


def test_recall_of_exactly_95_percent_is_enough():
    out_scores = np.arange(1.0, 21.0)  # 19 of 20 lie at 2 or above
    assert metrics.ood_metrics(np.array([1.5, 0.0]), out_scores)["fpr95"] == 0.0
    assert metrics.ood_metrics(np.array([2.0, 0.0]), out_scores)["fpr95"] == 0.5


def test_perfect_and_useless_separation():
    perfect = metrics.ood_metrics(np.zeros(5), np.ones(9))
    assert perfect == {"auroc": 1.0, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95": 0.0}
    useless = metrics.ood_metrics(np.zeros(5), np.zeros(5))
    assert useless == {"auroc": 0.5, "aupr_in": 0.5, "aupr_out": 0.5, "fpr95": 1.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_input_is_refused(bad):
    logits = np.zeros((2, 3))
    logits[1, 2] = bad
    labels = np.zeros(2, int)
    calls = [
        lambda: metrics.log_softmax(logits),
        lambda: metrics.ensemble_log_probs(logits[None]),
        lambda: metrics.classification_metrics(logits, labels),
        lambda: metrics.predictive_entropy(logits),
        lambda: metrics.ood_metrics(logits[1], np.zeros(3)),
        lambda: metrics.ood_metrics(np.zeros(3), logits[1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="finite.*1 of"):
            call()


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 1], "log_softmax"),
        (np.zeros((0, 3)), [], "non-empty"),
        (np.zeros(3), [0], "2 dimensions"),
        (np.log(np.full((2, 2), 0.5)), [0], "2 integers"),
        (np.log(np.full((2, 2), 0.5)), [0.0, 1.0], "2 integers"),
        (np.log(np.full((2, 2), 0.5)), [0, 2], r"0\.\.1, got 0\.\.2"),
        (np.log(np.full((2, 2), 0.5)), [-1, 0], r"got -1\.\.0"),
    ],
)
def test_misshapen_predictions_are_refused(log_probs, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.classification_metrics(log_probs, np.array(labels))


def test_member_logits_need_their_member_axis():
    with pytest.raises(ValueError, match="3 dimensions"):
        metrics.ensemble_log_probs(np.zeros((4, 3)))


def test_logsumexp_of_members_agrees_with_scipy():
    logits = np.random.default_rng(5).normal(size=(3, 8, 4)) * 100
    expected = logsumexp(scipy_log_softmax(logits, axis=-1), axis=0) - np.log(3)
    np.testing.assert_allclose(
        metrics.ensemble_log_probs(logits), expected, rtol=1e-12, atol=1e-300
    )
