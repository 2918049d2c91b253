"""Scores of single images against scipy, pairwise loops and examples worked by hand."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn.metrics import average_precision_score, hamming_loss, roc_auc_score

from lpw_jax.measures import metrics, uncertainty, views


@pytest.fixture
def members():
    """Logits [K, N, C] of members that agree to a degree."""
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(200, 7)) + rng.normal(size=(4, 200, 7))


def test_energy_equals_scipys_logsumexp(members):
    expected = -logsumexp(members, axis=-1)
    np.testing.assert_allclose(uncertainty.energy(members), expected, rtol=1e-12)
    np.testing.assert_allclose(uncertainty.energy(1e4 * members[0]), -1e4 * members[0].max(axis=-1))


def test_max_probability_ranks_by_the_largest_probability(members):
    log_probs = metrics.log_softmax(members[0])
    found = uncertainty.max_probability(log_probs)
    np.testing.assert_allclose(np.exp(-found), softmax(members[0], axis=-1).max(axis=-1))


def test_mutual_information_equals_the_difference_of_scipys_entropies(members):
    probs = softmax(members, axis=-1)
    expected = entropy(probs.mean(axis=0), axis=-1) - entropy(probs, axis=-1).mean(axis=0)
    found = uncertainty.mutual_information(members)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert (found >= 0).all() and (found <= np.log(4)).all()


def test_mutual_information_of_equal_and_of_certain_contrary_members():
    equal = np.repeat(np.random.default_rng(1).normal(size=(1, 9, 5)), 3, axis=0)
    np.testing.assert_allclose(uncertainty.mutual_information(equal), 0, atol=1e-15)
    contrary = 1e4 * np.eye(3)[:, None]
    np.testing.assert_allclose(uncertainty.mutual_information(contrary), np.log(3))


def test_disagreement_equals_the_mean_hamming_loss_of_pairs(members):
    predicted = members.argmax(axis=-1)
    pairs = [hamming_loss(a, b) for a, b in itertools.combinations(predicted, 2)]
    found = uncertainty.disagreement(members)
    assert found.mean() == pytest.approx(np.mean(pairs), rel=1e-12)
    assert 0 < found.mean() < 1


def test_disagreement_of_a_hand_worked_example():
    predicted = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 2]])  # [K, N]
    found = uncertainty.disagreement(np.eye(3)[predicted])
    np.testing.assert_allclose(found, [0, 2 / 3, 1])


def test_one_member_has_an_energy_and_nothing_to_disagree_with(members):
    found = uncertainty.between_members(members[:1])
    assert set(found) == {"energy"}
    np.testing.assert_array_equal(found["energy"], uncertainty.energy(members[0]))
    with pytest.raises(ValueError, match="two or more members, got 1"):
        uncertainty.disagreement(members[:1])


def test_the_order_of_members_and_the_cut_into_batches_do_not_matter(members):
    whole = uncertainty.between_members(members)
    swapped = uncertainty.between_members(members[::-1])
    parts = [uncertainty.between_members(members[:, p]) for p in (slice(0, 77), slice(77, None))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
        np.testing.assert_allclose(swapped[name], values, rtol=1e-9, atol=1e-14)


def predictions(members):
    ensemble = metrics.ensemble_log_probs(members)
    found = {"collapsed": members.mean(axis=0), "ensemble": ensemble}
    return found | uncertainty.between_members(members)


@pytest.mark.parametrize("view", views.VIEWS)
def test_each_score_separates_as_scikit_learn_says(view, members):
    outside = members[:, :120] / 2
    probs_in, probs_out = (
        softmax(logits.mean(axis=0), axis=-1)
        if view == "collapsed"
        else softmax(logits, axis=-1).mean(axis=0)
        for logits in (members, outside)
    )
    both = np.vstack([probs_in, probs_out])
    expected = {"max_probability": -both.max(axis=-1)}
    if view == "collapsed":
        energies = [-logsumexp(logits.mean(axis=0), axis=-1) for logits in (members, outside)]
    else:
        energies = [-logsumexp(logits, axis=-1).mean(axis=0) for logits in (members, outside)]
        expected["mutual_information"] = np.concatenate(
            [
                entropy(probs, axis=-1) - entropy(softmax(logits, axis=-1), axis=-1).mean(axis=0)
                for probs, logits in ((probs_in, members), (probs_out, outside))
            ]
        )
    expected["energy"] = np.concatenate(energies)
    is_out = np.repeat([0, 1], [200, 120])
    found = views.ood_separation(predictions(members), predictions(outside), view)
    names = ("auroc", "aupr_in", "aupr_out", "fpr95")
    assert set(found) == {*names, *expected}
    for name, scores in expected.items():
        assert set(found[name]) == set(names)
        assert found[name]["auroc"] == pytest.approx(roc_auc_score(is_out, scores), rel=1e-12)
        assert found[name]["aupr_out"] == pytest.approx(average_precision_score(is_out, scores))
        assert found[name]["auroc"] > 0.55 or name == "mutual_information"
    # What was there before stays the entropy's.
    scores = -(both * np.log(both + 1e-5)).sum(axis=-1)
    assert found["auroc"] == pytest.approx(roc_auc_score(is_out, scores), rel=1e-12)


def test_an_ensemble_of_one_is_the_network_in_every_score(members):
    one, other = predictions(members[:1]), predictions(members[:1, :90] / 2)
    collapsed, ensemble = (views.ood_separation(one, other, view) for view in views.VIEWS)
    assert collapsed == ensemble


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused(bad, members):
    members[2, 5, 3] = bad
    for score in (uncertainty.energy, uncertainty.mutual_information, uncertainty.between_members):
        with pytest.raises(ValueError, match="finite"):
            score(members)
