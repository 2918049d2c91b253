"""Data sets as arrays in memory: `load_dataset(name)` and the out-of-distribution sets."""

import dataclasses
import difflib

import numpy as np

from lpw_jax.data import cifar, digits
from lpw_jax.data.dataset import Dataset, cycles_per_epoch, epoch_order, hold_out, split_order
from lpw_jax.errors import UserError

_LOADERS = {"cifar10": cifar.load, "cifar100": cifar.load, "digits": digits.load}
DATASETS = tuple(_LOADERS)

__all__ = [
    "DATASETS",
    "Dataset",
    "check_name",
    "cycles_per_epoch",
    "described",
    "epoch_order",
    "load_dataset",
    "split_order",
]


def check_name(name: str) -> None:
    """Raises UserError, with the nearest known name, when `name` is no known dataset."""
    if name not in _LOADERS:
        nearest = difflib.get_close_matches(str(name), DATASETS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"data.name must be one of {', '.join(DATASETS)}, not {name!r} "
            f"(did you mean {nearest!r}?)"
        )


def load_dataset(name: str, *, data_dir: str, validation_examples: int = 0) -> Dataset:
    """Loads a whole dataset into memory.

    Args:
      name: one of `DATASETS`.
      data_dir: a tensorflow-datasets folder; '' means tfds' default
        (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`). `digits` does not use it.
      validation_examples: the last n training images, in stored order, are held out.

    Raises:
      UserError: unknown name, impossible `validation_examples`, or data that is absent
        (and cannot be downloaded) or damaged.
    """
    check_name(name)
    if validation_examples < 0:
        raise UserError(f"data.validation_examples = {validation_examples}: must be >= 0")
    return hold_out(_LOADERS[name](name, data_dir), validation_examples)


def described(name: str) -> Dataset:
    """A dataset without images: its classes, mean and std. CIFAR need not be there.

    Raises:
      UserError: unknown name.
    """
    check_name(name)
    no_images, no_labels = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int32)
    splits = ("train", "validation", "test")
    empty = {
        **{f"{split}_images": no_images for split in splits},
        **{f"{split}_labels": no_labels for split in splits},
    }
    if name in cifar.SPECS:
        spec = cifar.SPECS[name]
        return Dataset(
            name=name, num_classes=spec.num_classes, mean=spec.mean, std=spec.std, **empty
        )
    return dataclasses.replace(_LOADERS[name](name, ""), **empty)
