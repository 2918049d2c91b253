"""A dataset in memory, its checks, and the order in which an epoch visits it."""

import dataclasses

import numpy as np

from lpw_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images are uint8 [N, H, W, 3], labels int32 [N], both in stored order.

    `mean` and `std` are per channel on the scale 0..1. `note` says what is unusual about the
    data and belongs beside every result; '' for the ordinary dataset.
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


def check_labels(labels: np.ndarray, *, num_classes: int, where: str) -> None:
    """Raises UserError naming `where` unless there are labels, all of them 0..num_classes-1."""
    if not len(labels):
        raise UserError(f"{where} holds no images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{where}: labels must lie in 0..{num_classes - 1}, "
            f"found {labels.min()}..{labels.max()}"
        )


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The permutation int32 [num_examples] of one epoch, a function of (seed, epoch) only.

    Sorts the raw bit stream, which NumPy keeps stable over versions and platforms
    (`Generator.permutation` may change between versions).
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(num_examples)
    return np.argsort(bits, kind="stable").astype(np.int32)
