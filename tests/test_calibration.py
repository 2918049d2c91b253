"""Temperature scaling against scikit-learn's and scipy's, and where it must find nothing."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from lpw_jax.measures import calibration, metrics, views

CLASSES = 6


def sample(temperature, size=4_000, seed=0):
    """Logits that are `temperature` times too large for labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(size, CLASSES))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((size, 1))).sum(axis=1)
    return temperature * logits, labels.clip(max=CLASSES - 1)


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits."""

    def fit(self, inputs, labels):
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, inputs):
        return inputs

    def predict(self, inputs):
        return self.classes_[inputs.argmax(axis=1)]


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0, 40.0])
def test_the_temperature_equals_scikit_learns(temperature):
    logits, labels = sample(temperature)
    classifier = CalibratedClassifierCV(
        FrozenEstimator(Logits().fit(logits, labels)), method="temperature"
    )
    calibrated = classifier.fit(logits, labels).calibrated_classifiers_[0].predict_proba(logits)
    found = calibration.fit_temperature(logits, labels)
    np.testing.assert_allclose(
        np.exp(calibration.scaled(logits, found)), calibrated, rtol=0, atol=2e-4
    )


@pytest.mark.parametrize("temperature", [0.05, 1.0, 40.0])
def test_no_other_temperature_has_a_smaller_nll(temperature):
    logits, labels = sample(temperature)

    def nll(log_temperature):
        return log_loss(labels, softmax(logits / np.exp(log_temperature), axis=1))

    best = minimize_scalar(nll, bounds=(-5, 6), method="bounded", options={"xatol": 1e-9})
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)
    assert nll(np.log(found)) <= best.fun + 1e-12


def test_the_temperature_that_a_sample_was_made_with_is_found():
    assert calibration.fit_temperature(*sample(2.5, size=100_000)) == pytest.approx(2.5, rel=0.02)


def test_logits_scaled_by_a_factor_have_the_temperature_scaled_by_it():
    logits, labels = sample(1.7)
    found = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(8 * logits, labels) == pytest.approx(8 * found, rel=1e-9)
    shifted = logits + np.arange(len(logits))[:, None]
    assert calibration.fit_temperature(shifted, labels) == pytest.approx(found, rel=1e-9)
    log_probs = log_softmax(logits, axis=1)
    assert calibration.fit_temperature(log_probs, labels) == pytest.approx(found, rel=1e-9)


def test_a_temperature_worked_by_hand():
    # One wrong in four, each with margin 2 of two classes: sigmoid(2 / T) must be 3 / 4.
    logits, labels = np.tile([2.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    assert calibration.fit_temperature(logits, labels) == pytest.approx(2 / np.log(3), rel=1e-9)


@pytest.mark.parametrize(
    ("labels", "why"), [([0, 0, 0, 0], "all right"), ([1, 1, 1, 0], "worse than chance")]
)
def test_there_is_no_temperature_without_a_minimum(labels, why):
    assert calibration.fit_temperature(np.tile([2.0, 0.0], (4, 1)), np.array(labels)) is None


def test_extreme_logits_are_no_trouble():
    logits, labels = sample(1.0)
    logits = np.vstack([100 * logits, [[5e4, 0, 0, 0, 0, 0], [0, -5e4, 0, 0, 0, 0]]])
    found = calibration.fit_temperature(logits, np.append(labels, [0, 3]))
    assert found == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, np.nan]], [0], "finite"),
        ([[0.0, 1.0]], [2], r"0\.\.1"),
        ([[0.0, 1.0]], [0, 1], "1 integers"),
        (np.zeros((0, 2)), np.zeros(0, int), "non-empty"),
    ],
)
def test_misshapen_predictions_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(logits, np.array(labels))


def predictions(seed):
    rng = np.random.default_rng(seed)
    logits, labels = sample(3.0, size=600, seed=seed)
    members = logits + rng.normal(size=(3, *logits.shape))
    ensemble = metrics.ensemble_log_probs(members)
    return {"collapsed": logits, "ensemble": ensemble, "label": labels}


@pytest.mark.parametrize("view", views.VIEWS)
def test_test_predictions_are_scaled_by_what_the_validation_ones_say(view):
    validation, test = predictions(1), predictions(2)
    found = views.temperature_scaled(validation, test, view)
    temperature = calibration.fit_temperature(validation[view], validation["label"])
    assert found["temperature"] == temperature
    # The ensemble's mean probabilities are tempered, not its members.
    tempered = softmax(test[view] / temperature, axis=1)
    assert found["nll"] == pytest.approx(log_loss(test["label"], tempered), rel=1e-9)
    unscaled = metrics.classification_metrics(views.log_probs(test, view), test["label"])
    for name in ("nll", "brier", "ece"):
        assert found[name] < unscaled[name]
    assert set(found) == {"temperature", "nll", "brier", "ece"}


def test_labels_of_the_test_set_have_no_say():
    validation, test = predictions(1), predictions(2)
    other = test | {"label": np.roll(test["label"], 1)}
    found = [views.temperature_scaled(validation, t, "ensemble") for t in (test, other)]
    assert found[0]["temperature"] == found[1]["temperature"] and found[0]["nll"] != found[1]["nll"]


def test_right_validation_predictions_calibrate_nothing():
    validation = predictions(1)
    validation["label"] = validation["collapsed"].argmax(axis=1)
    assert views.temperature_scaled(validation, predictions(2), "collapsed") is None
