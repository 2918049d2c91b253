"""results.json. Those of older versions lack fields that have a default."""

import dataclasses
from typing import Annotated, Any, Literal

from lpw_jax.files.described import Range, described, optional
from lpw_jax.files.measured import Count, Evaluation, Fraction, Metrics, Positive, Views


@described
class Data:
    """What was trained and tested on; null is what is not known.

    Attributes:
      name: of the data set.
      num_classes: how many.
      mean, std: of the training data, per channel, on the 0..1 scale.
      image_shape: [H, W, C].
      num_train, num_validation, num_test: images.
      sha256, test_sha256: of all images and labels with their split, and of the test images.
      note: what is unusual about the data.
      ood_note: likewise of the out-of-distribution sets.
      ood_digests: by out-of-distribution set, of its images.
      skipped: damaged images left out of the evaluation, by set.
      in_training: how many images of 'test' and 'validation' are training images, too.
      class_names: in the order of labels; only where the data tell them.
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
    """What the training took; null is what is not known.

    Attributes:
      epochs: done.
      seconds: wall time, compilation, evaluations and the pass after SWA included.
      images_per_second: images trained on, over the time of the epochs.
      skipped_images: damaged ones left out.
      num_devices, device_kind: of the last session.
      peak_memory_bytes: of one device, in the last session.
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
      shared, late_phase: how many are.
    """

    shared: Count
    late_phase: Count


@described
class Pretrained(Metrics):
    """The weights of `model.pretrained`, and how good they are here.

    Attributes:
      model: name of the network.
      file, sha256, format: where they were read, which they are, and how they are written.
      source: file and sha256 of what they were converted from.
      published: the name of torchvision's weights, if these are they.
      published_accuracy: a fraction; what torchvision states for its own.
      taken: in words, what was taken of a file that holds more than the network; '' of others.
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
      epoch: its number.
      views: of the test set.
    """

    epoch: Count
    views: Evaluation


@described
class Imported:
    """The file of the published code that a network was imported from.

    Attributes:
      file, sha256, format: where it was, which it is, and how it is written.
      tied: whether its tied copy was taken.
    """

    file: str
    sha256: str
    format: str
    tied: bool


@described
class EnsembleOf:
    """What a deep ensemble is made of.

    Attributes:
      runs: their folders.
      seeds: of each run.
      view: what each is a member as.
      different: the fields in which configs differ, seeds excepted.
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
      runs: their folders.
      seeds: of each run.
      different: the fields in which configs differ, seeds excepted.
    """

    runs: list[str]
    seeds: list[int | None]
    different: list[str] = dataclasses.field(default_factory=list)


@described
class Results:
    """results.json.

    Attributes:
      config: every field.
      seed: of the run; null for a deep ensemble or a soup.
      status: 'trained' until evaluated, then 'complete'.
      num_parameters: of one collapsed network; in a deep ensemble of all its networks.
      num_late_phase_parameters: of one member.
      parameters: by module.
      coasting: the rule, `late_phase.coasting`.
      data: what was trained and tested on.
      views: the test set; null until evaluated.
      validation: `data.validation_examples`; else null.
      train: what it took.
      pretrained: the weights it began with; else null.
      best_epoch: with `evaluate.every_epochs`; else null.
      imported: only of a network of the published code.
      ensemble_of: only of a deep ensemble.
      soup_of: only of a soup, whose config is its first run's.
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
