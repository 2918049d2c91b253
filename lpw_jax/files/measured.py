"""What is measured of a run's predictions and epochs, as its JSON files hold it."""

import dataclasses
from typing import Annotated

from lpw_jax.files.described import Range, described, optional

Count = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
# Probabilities are rounded, and may be a little above 1.
Nats = Annotated[float, Range(-1e-3)]
CalibrationError = Annotated[float, Range(0, 1.001)]


@described
class Metrics:
    """How good predictions with labels are; null after a training that diverged.

    Attributes:
      accuracy: a fraction.
      nll: negative log-likelihood, mean in nats.
      brier: squared error of the probabilities, summed over classes, mean over images.
      ece: expected calibration error, 15 equal-width bins.
      top5_accuracy: a fraction; only with 100 classes or more.
      mutual_information: of the ensemble's members, mean in nats; only of several.
      disagreement: fraction of images on which two members differ, mean over pairs; likewise.
      bpc: bits per character, nll / ln 2; only of texts, whose measures are means over bytes.
    """

    accuracy: Fraction | None
    nll: Nats | None
    brier: Positive | None
    ece: CalibrationError | None
    top5_accuracy: Fraction | None = optional()
    mutual_information: float | None = optional()
    disagreement: Fraction | None = optional()
    bpc: Nats | None = optional()


@described
class Scaled:
    """Test predictions at a temperature fitted on `data.validation_examples`, never on test data.

    Attributes:
      temperature: of the logits, or of the log of the members' mean probabilities.
      nll, brier, ece: as in `Metrics`.
    """

    temperature: Positive
    nll: Nats
    brier: Positive
    ece: CalibrationError


@described
class Separation:
    """How well a score tells images of another kind, the positive ones, from test images.

    Attributes:
      auroc: area under the ROC curve.
      aupr_in, aupr_out: average precision for test images, and for the others.
      fpr95: fraction of test images flagged where 95 % of the others are.
    """

    auroc: Fraction
    aupr_in: Fraction | None = None
    aupr_out: Fraction | None = None
    fpr95: Fraction | None = None


@described
class Outside(Separation):
    """By the entropy, the score of the published code, and by others.

    Attributes:
      energy, max_probability: by these.
      mutual_information: only of several members, for the ensemble.
    """

    energy: Separation | None = optional()
    max_probability: Separation | None = optional()
    mutual_information: Separation | None = optional()


@described
class View(Metrics):
    """The test set, as one network or as an ensemble.

    Attributes:
      temperature_scaled: calibrated, the ensemble after pooling; null without validation images.
      ood: by the name of each out-of-distribution set; null for one that was not there.
      ood_mean_auroc: null unless all were.
    """

    temperature_scaled: Scaled | None = None
    ood: dict[str, Outside | None] = dataclasses.field(default_factory=dict)
    ood_mean_auroc: Fraction | None = None


@described
class Evaluation:
    """Predictions of one set in three views.

    Attributes:
      collapsed: of the one network that the members average to.
      ensemble: of the mean of the members' probabilities.
      members: of each.
    """

    collapsed: Metrics
    ensemble: Metrics
    members: list[Metrics]


@described
class Views:
    """The test set in three views.

    Attributes:
      collapsed, ensemble, members: as in `Evaluation`; a deep ensemble has no collapsed network.
    """

    collapsed: View | None
    ensemble: View
    members: list[Metrics]


@described
class Epoch:
    """A line of metrics.jsonl; numbers are null where they were not finite.

    Attributes:
      epoch: from 1.
      phase: 'tied', 'late' or 'SWA'.
      step: minibatches done at its end.
      learning_rate, late_phase_learning_rate: at its end.
      loss, accuracy: of training, mean over members; the accuracy is a fraction.
      member_loss, member_accuracy: of each.
      images, seconds, images_per_second: trained on, and how fast.
      member_distance: mean distance of the members' late-phase weights from their mean, over the
        norm of the mean; only of several.
      evaluation: the test set, with `evaluate.every_epochs`.
      evaluation_swa: likewise, with SWA's averages.
    """

    epoch: Annotated[int, Range(1)]
    phase: str
    step: Count
    learning_rate: float | None
    late_phase_learning_rate: float | None
    loss: float | None
    accuracy: Fraction | None
    member_loss: list[float | None]
    member_accuracy: list[Fraction | None]
    images: Count
    seconds: Positive
    images_per_second: Positive | None
    member_distance: float | None = None
    evaluation: Evaluation | None = None
    evaluation_swa: Evaluation | None = None
