"""A dataset in memory, its checks, and the order in which an epoch visits it."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from lpw_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images are uint8 [N, H, W, 3], labels int32 [N], both in stored order.

    `mean` and `std` are per channel on the scale 0..1. `note` says what is unusual about the
    data and belongs beside every result; '' for the ordinary dataset. `unofficial` tells the
    numbers of images if they are not the dataset's official ones; '' if they are.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    note: str = ""
    unofficial: str = ""

    def identity(self) -> dict[str, Any]:
        """Says which data this is, in JSON's types: equal for equal images, labels and splits.

        `sha256` is over type, shape and bytes of every split's images and labels, so it also
        depends on where the validation split begins.
        """
        return {"name": self.name, **self._sizes_and_digest}

    @functools.cached_property
    def _sizes_and_digest(self) -> dict[str, Any]:
        # Asked for at every stage of a run; the arrays do not change.
        digest = hashlib.sha256()
        sizes = {}
        for split in ("train", "validation", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            sizes[f"num_{split}"] = len(labels)
            for array in (images, labels):
                digest.update(f"{split} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return sizes | {"sha256": digest.hexdigest()}


def hold_out(dataset: Dataset, n: int) -> Dataset:
    """Moves the last `n` training images to the validation split (0 <= n < N)."""
    total = len(dataset.train_labels)
    if not 0 <= n < total:
        raise UserError(
            f"data.validation_examples = {n}: must be >= 0 and less than the {total} training "
            f"images of {dataset.name}"
        )
    keep = total - n
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:keep],
        train_labels=dataset.train_labels[:keep],
        validation_images=dataset.train_images[keep:],
        validation_labels=dataset.train_labels[keep:],
    )


def check_labels(labels: np.ndarray, *, num_classes: int, where: str, remedy: str) -> None:
    """Raises UserError naming `where` and `remedy` unless all labels are 0..num_classes-1."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{where}: labels must lie in 0..{num_classes - 1}, "
            f"found {labels.min()}..{labels.max()}; {remedy}"
        )


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The permutation int32 [num_examples] of one epoch, a function of (seed, epoch) only.

    Sorts the raw bit stream, which NumPy keeps stable over versions and platforms
    (`Generator.permutation` may change between versions).
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(num_examples)
    return np.argsort(bits, kind="stable").astype(np.int32)
