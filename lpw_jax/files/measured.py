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
      accuracy: fraction of right predictions.
      nll: mean negative log-likelihood, in nats.
      brier: squared error of the probabilities, summed over classes, mean over images.
      ece: expected calibration error, 15 equal-width bins.
      top5_accuracy: top-5 accuracy, a fraction; only with 100 classes or more.
      mutual_information: mean over images, in nats; only for an ensemble of several members.
      disagreement: fraction of images on which two members differ, mean over pairs; only for an
        ensemble of several members.
      bpc: bits per character, nll / ln 2; only for texts, whose measures are means over bytes.
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
      temperature: divides the logits, or the log of the members' mean probabilities.
      nll, brier, ece: as in `Metrics`.
    """

    temperature: Positive
    nll: Nats
    brier: Positive
    ece: CalibrationError


@described
class Separation:
    """How well a score separates out-of-distribution images (positive) from test images.

    Attributes:
      auroc: area under the ROC curve.
      aupr_in, aupr_out: average precision with test images, or the others, as positives.
      fpr95: fraction of test images above the threshold that 95 % of the others exceed.
    """

    auroc: Fraction
    aupr_in: Fraction | None = None
    aupr_out: Fraction | None = None
    fpr95: Fraction | None = None


@described
class Outside(Separation):
    """Separation by predictive entropy, as in the published code, and by other scores.

    Attributes:
      energy, max_probability: separation by these scores.
      mutual_information: the same; only for an ensemble of several members.
    """

    energy: Separation | None = optional()
    max_probability: Separation | None = optional()
    mutual_information: Separation | None = optional()


@described
class View(Metrics):
    """Evaluation of one view on the test set.

    Attributes:
      temperature_scaled: after temperature scaling, of an ensemble after the members are averaged;
        null without validation images.
      ood: separation from each out-of-distribution set, by name; null if the set is missing.
      ood_mean_auroc: mean AUROC over these sets; null if one is missing.
    """

    temperature_scaled: Scaled | None = None
    ood: dict[str, Outside | None] = dataclasses.field(default_factory=dict)
    ood_mean_auroc: Fraction | None = None


@described
class Evaluation:
    """Evaluation of one set of images in three views.

    Attributes:
      collapsed: the one network that the members average to.
      ensemble: the mean of the members' probabilities.
      members: each member.
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
      step: number of minibatches done at the end of the epoch.
      learning_rate, late_phase_learning_rate: learning rates at the end of the epoch.
      loss, accuracy: training loss and accuracy (a fraction), mean over members.
      member_loss, member_accuracy: the same of each member.
      images, seconds, images_per_second: images trained on, time, and speed.
      member_distance: mean distance of the members' late-phase weights from their mean, divided
        by the norm of the mean; only with several members.
      evaluation: evaluation on the test set, with `evaluate.every_epochs`.
      evaluation_swa: the same, of the weights averaged by SWA.
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
