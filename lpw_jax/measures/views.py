"""What is measured of a view's predictions. The views are the collapsed network and the ensemble.

Predictions are arrays by name, as `Evaluator.predict` returns them and `predictions/`
holds them: `collapsed` logits [N, C], `ensemble` log mean probabilities [N, C], `label` [N], the
scores [N] of `uncertainty.between_members`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpw_jax.measures import calibration, metrics, uncertainty

VIEWS = ("collapsed", "ensemble")
SCALED_METRICS = ("nll", "brier", "ece")  # accuracy does not depend on the temperature

Predictions = Mapping[str, NDArray]


def log_probs(predictions: Predictions, view: str) -> NDArray:
    """Log-probabilities [N, C] of a view."""
    if view == "ensemble":
        return predictions["ensemble"]
    return metrics.log_softmax(predictions[view])


def ood_scores(predictions: Predictions, view: str) -> dict[str, NDArray[np.float64]]:
    """Scores [N] of a view, by name, that are higher out of distribution.

    Those of the ensemble are of the members' mean probabilities, but for its energy, the mean of
    the members' energies, and the mutual information, which it alone has, if K > 1.
    """
    view_log_probs = log_probs(predictions, view)
    scores = {
        "entropy": metrics.predictive_entropy(view_log_probs),
        "max_probability": uncertainty.max_probability(view_log_probs),
    }
    if view == "collapsed":
        return scores | {"energy": uncertainty.energy(predictions["collapsed"])}
    between = ("energy", "mutual_information")
    return scores | {name: predictions[name] for name in between if name in predictions}


def ood_separation(inside: Predictions, outside: Predictions, view: str) -> dict[str, Any]:
    """`metrics.ood_metrics` of a view's entropy, and by name of its other scores."""
    scores_in, scores_out = ood_scores(inside, view), ood_scores(outside, view)
    found = {name: metrics.ood_metrics(scores_in[name], scores_out[name]) for name in scores_in}
    return {**found.pop("entropy"), **found}


def temperature_scaled(
    validation: Predictions, test: Predictions, view: str
) -> dict[str, float] | None:
    """Calibration of a view's test predictions at the temperature fitted to the validation ones.

    The ensemble has one temperature, for the log of the members' mean probabilities: members are
    pooled first and calibrated then (Rahaman and Thiery, 2021).

    Returns:
      temperature, nll, brier, ece; None if `calibration.fit_temperature` finds no temperature.
    """
    temperature = calibration.fit_temperature(log_probs(validation, view), validation["label"])
    if temperature is None:
        return None
    log_probs_scaled = calibration.scaled(log_probs(test, view), temperature)
    found = metrics.classification_metrics(log_probs_scaled, test["label"])
    return {"temperature": temperature, **{name: found[name] for name in SCALED_METRICS}}
