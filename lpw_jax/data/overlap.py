"""Sets of images that are not apart, and labels that are not of their images, by content."""

import numpy as np
from numpy.typing import NDArray

from lpw_jax.data import resemblance
from lpw_jax.data.dataset import Dataset, digests_of
from lpw_jax.errors import UserError

TOLERATED = 0.01  # of the images; CIFAR, too, has some twice
_SAMPLE, _AMONG, _FEW = 500, 5000, 100


def in_training(dataset: Dataset) -> dict[str, int]:
    """How many of the `test` and `validation` images are training images, too.

    Raises:
      UserError: all of them are.
    """
    trained = set(dataset.image_digests["train"])
    found = {}
    for split in ("test", "validation"):
        images = dataset.image_digests[split]
        found[split] = sum(digest in trained for digest in images)
        if images and found[split] == len(images):
            raise UserError(
                f"{dataset.name}: {split} images must be others than the training images, but all "
                f"{len(images):,} are among them"
            )
    return found


def check_outside(dataset: Dataset, outside: dict[str, NDArray[np.uint8]]) -> list[str]:
    """A line on each out-of-distribution set that has some of the dataset's own images.

    Raises:
      UserError: half of a set or more are training or test images.
    """
    if not outside:
        return []
    own = {*dataset.image_digests["train"], *dataset.image_digests["test"]}
    lines = []
    for name, images in outside.items():
        shared = sum(digest in own for digest in digests_of(images))
        line = f"OOD set {name}: {shared:,} of its {len(images):,} images are of {dataset.name}"
        if 2 * shared >= len(images):
            raise UserError(f"{line}, so that they are not out of distribution")
        lines += [line] * bool(shared)
    return lines


def labels_look_random(dataset: Dataset) -> str:
    """Says so if a test image's label is not more often that of the most similar training image.

    So it is where images and labels are in different orders; '' otherwise, and for few images.
    """
    if len(dataset.test_labels) < _FEW or len(dataset.train_labels) < _FEW:
        return ""
    chosen, among = (
        np.unique(np.linspace(0, len(images) - 1, most).astype(int))
        for images, most in ((dataset.test_images, _SAMPLE), (dataset.train_images, _AMONG))
    )
    blocks = [
        resemblance.blocks(images)
        for images in (dataset.test_images[chosen], dataset.train_images[among])
    ]
    nearest, *_ = resemblance.nearest(*blocks)
    labels, theirs = dataset.test_labels[chosen], dataset.train_labels[among]
    counts = (np.bincount(found, minlength=dataset.num_classes) for found in (labels, theirs))
    chance = float(np.multiply(*counts).sum() / (len(labels) * len(theirs)))
    alike = float((theirs[nearest] == labels).mean())
    if chance > 0.9 or alike > chance + 3 * (chance * (1 - chance) / len(labels)) ** 0.5:
        return ""
    return (
        f"{dataset.name}: of {len(labels)} test images {100 * alike:.1f} % have the label of the "
        f"training image that is most like them, by chance {100 * chance:.1f} % would; are images "
        "and labels in the same order?"
    )
