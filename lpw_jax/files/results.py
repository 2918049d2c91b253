"""results.json. Those of older versions lack fields that have a default."""

import dataclasses
from typing import Annotated, Any, Literal

from lpw_jax.files.described import Range, described, optional
from lpw_jax.files.measured import Count, Evaluation, Fraction, Metrics, Positive, Views


@described
class Data:
    """The data that was trained and tested on; null where something is not known.

    Attributes:
      name: name of the data set.
      num_classes: number of classes.
      mean, std: of the training data, per channel, on the 0..1 scale.
      image_shape: [H, W, C].
      num_train, num_validation, num_test: numbers of images.
      sha256, test_sha256: of all images and labels with their split, and of the test images.
      note: what is unusual about the data.
      ood_note: what is unusual about the out-of-distribution sets.
      ood_digests: digests of the images of each out-of-distribution set.
      skipped: number of damaged images left out of the evaluation, by set.
      in_training: how many images of 'test' and 'validation' are training images, too.
      class_names: names of the classes in the order of labels; only if the data has them.
    """

    name: str
    num_classes: Annotated[int, Range(1)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[Count, ...] | None = None
    num_train: Count | None = None
    num_validation: Count | None = None
    num_test: Count | None = None
    sha256: str | None = None
    test_sha256: str | None = None
    note: str | None = None
    ood_note: str | None = None
    ood_digests: dict[str, str] | None = None
    skipped: dict[str, Count] | None = None
    in_training: dict[str, Count] | None = None
    class_names: list[str] | None = optional()

    def __post_init__(self):
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"class_names: must be of {self.num_classes} classes, found {len(self.class_names)}"
            )


@described
class Train:
    """The cost of the training; null where something is not known.

    Attributes:
      epochs: number of epochs done.
      seconds: wall time, including compilation, evaluations and the pass after SWA.
      images_per_second: images trained on, divided by the time of the epochs.
      skipped_images: number of damaged images left out.
      num_devices, device_kind: devices of the last session.
      peak_memory_bytes: peak memory of one device in the last session.
    """

    epochs: Count | None = None
    seconds: Positive | None = None
    images_per_second: Positive | None = None
    skipped_images: Count | None = None
    num_devices: Count | None = None
    device_kind: str | None = None
    peak_memory_bytes: Count | None = None


@described
class ParameterCount:
    """Weights of one member in a module of the network.

    Attributes:
      shared, late_phase: number of shared and of late-phase weights.
    """

    shared: Count
    late_phase: Count


@described
class Pretrained(Metrics):
    """The weights of `model.pretrained`, and how good they are here.

    Attributes:
      model: name of the network.
      file, sha256, format: the file, its checksum and its format.
      source: file and sha256 of the weights that it was converted from.
      published: the name of torchvision's weights, if these are the same.
      published_accuracy: the accuracy that torchvision states for its weights, a fraction.
      taken: which part was taken, in words, if the file holds more than the network; else ''.
    """

    model: str
    file: str | None = None
    sha256: str | None = None
    format: str | None = None
    source: dict[str, str] | None = None
    published: str | None = None
    published_accuracy: Fraction
    taken: str = ""


@described
class BestEpoch:
    """The epoch with the best test accuracy of the collapsed network.

    Attributes:
      epoch: number of the epoch.
      views: evaluation on the test set.
    """

    epoch: Count
    views: Evaluation


@described
class Imported:
    """The file of the published code that a network was imported from.

    Attributes:
      file, sha256, format: the file, its checksum and its format.
      tied: whether the weights of before the release were taken.
    """

    file: str
    sha256: str
    format: str
    tied: bool


@described
class EnsembleOf:
    """The runs that a deep ensemble is made of.

    Attributes:
      runs: folders of the runs.
      seeds: seed of each run.
      view: which view of each run is a member.
      different: fields in which the configs differ, without the seed.
    """

    runs: list[str]
    seeds: list[int | None]
    view: Literal["collapsed", "ensemble"]
    different: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not self.runs or len(self.runs) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: must be one for each of runs = {self.runs}")


@described
class SoupOf:
    """The runs whose weights a soup is the mean of.

    Attributes:
      runs: folders of the runs.
      seeds: seed of each run.
      different: fields in which the configs differ, without the seed.
    """

    runs: list[str]
    seeds: list[int | None]
    different: list[str] = dataclasses.field(default_factory=list)


@described
class Results:
    """The whole of results.json.

    Attributes:
      config: every field of the config; for a soup that of its first run.
      seed: seed of the run; null for a deep ensemble or a soup.
      status: 'trained' before the evaluation, then 'complete'.
      num_parameters: weights of the collapsed network; in a deep ensemble of all its networks.
      num_late_phase_parameters: late-phase weights of one member.
      parameters: number of weights in each module.
      coasting: the value of `late_phase.coasting`.
      data: the data that was trained and tested on.
      views: evaluation on the test set; null before the evaluation.
      validation: evaluation on the held-out images of `data.validation_examples`; else null.
      train: the cost of the training.
      pretrained: the weights that the training started from; else null.
      best_epoch: the best epoch, with `evaluate.every_epochs`; else null.
      imported: the file of an imported network of the published code; only there.
      ensemble_of: the runs of a deep ensemble; only there.
      soup_of: the runs of a soup; only there.
    """

    config: dict[str, Any]
    seed: int | None
    status: Literal["trained", "complete"]
    num_parameters: Count
    num_late_phase_parameters: Count
    parameters: dict[str, ParameterCount] | None = None
    coasting: str
    data: Data
    views: Views | None
    validation: Evaluation | None = None
    train: Train
    pretrained: Pretrained | None = None
    best_epoch: BestEpoch | None = None
    imported: Imported | None = optional()
    ensemble_of: EnsembleOf | None = optional()
    soup_of: SoupOf | None = optional()

    def __post_init__(self):
        if self.status == "complete" and self.views is None:
            raise ValueError("views = None: must be an object where status = 'complete'")
        if self.views and self.views.collapsed is None and self.ensemble_of is None:
            raise ValueError("views.collapsed = None: must be an object of all but deep ensembles")
