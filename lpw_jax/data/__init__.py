"""Data sets: `load_dataset(name)`, in memory or streamed, and the out-of-distribution sets."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from lpw_jax import registry
from lpw_jax.data import tfds_prepared, tfds_source
from lpw_jax.data.dataset import (
    Dataset,
    cycles_per_epoch,
    epoch_order,
    hold_out,
    normalised,
    split_order,
)
from lpw_jax.data.text import Text
from lpw_jax.errors import UserError

__all__ = [
    "Dataset",
    "check_name",
    "cycles_per_epoch",
    "described",
    "epoch_order",
    "load_dataset",
    "split_order",
]


def check_name(name: str, data_dir: str = "") -> None:
    """Raises UserError, with the nearest known name, when `name` is no known dataset.

    Known are those of the registry, functions by their form, what is prepared in `data_dir` and
    what tensorflow-datasets has. Imports neither JAX nor TensorFlow.
    """
    if not registry.wrong_data(name, ()) or tfds_prepared.find_prepared(name, data_dir):
        return
    if broken := registry.wrong_data(name, tfds_source.known_names()):
        raise UserError(f"data.name = {name!r}: {broken}")


def load_dataset(
    name: str,
    *,
    data_dir: str,
    validation_examples: int = 0,
    manual_dir: str = "",
    image_size: int = 0,
    resize: int = 256,
    skip_corrupt: bool = False,
    on_corrupt: Callable[[str], None] = lambda message: None,
    to_train: bool = True,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    **of_text: int,
) -> Any:
    """A whole dataset: a `Dataset`, a streamed `data.on_disk.OnDisk`, or a `data.text.Text`.

    Args:
      name: as `data.name` in configs/base.py.
      data_dir: a tensorflow-datasets folder; '' means tfds' default
        (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`). Own data may lie there, too; `digits` does
        not use it.
      validation_examples: the last n training images, in stored order, are held out.
      manual_dir, image_size, resize, skip_corrupt: as in configs/base.py.
      on_corrupt: is told of each image that is left out, once.
      to_train: whether training images must be there.
      mean, std: per channel on the scale 0..1; () for the dataset's own, or those of its images.
      **of_text: `num_bytes`, `sequence_length` and `context` as in configs/base.py, for texts.

    Raises:
      UserError: unknown name, impossible `validation_examples`, or data that is absent
        (and cannot be downloaded) or damaged.
    """
    check_name(name, data_dir)
    if validation_examples < 0:
        raise UserError(f"data.validation_examples = {validation_examples}: must be >= 0")
    options = dict(
        data_dir=data_dir,
        validation_examples=validation_examples,
        manual_dir=manual_dir,
        image_size=image_size,
        resize=resize,
        skip_corrupt=skip_corrupt,
        on_corrupt=on_corrupt,
        to_train=to_train,
        **of_text,
    )
    loader = registry.resolve(registry.data(name).loader, "data.name")
    dataset = loader(**registry.accepted(loader, {"name": name, **options}))
    if isinstance(dataset, Dataset):
        dataset = hold_out(dataset, validation_examples)
    if isinstance(dataset, Text):
        return dataset  # whose bytes nothing scales
    return normalised(dataset, mean, std)


def described(name: str) -> Dataset:
    """A small dataset of the package without images: its classes, mean and std.

    CIFAR need not be there.

    Raises:
      UserError: `name` is none of them.
    """
    small = [name for name, known in registry.DATA.items() if known.is_known and known.side]
    if name not in small:
        raise UserError(f"data.name must be one of {', '.join(small)}, not {name!r}")
    no_images, no_labels = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int32)
    splits = ("train", "validation", "test")
    empty = {
        **{f"{split}_images": no_images for split in splits},
        **{f"{split}_labels": no_labels for split in splits},
    }
    known = registry.DATA[name]
    if known.mean:
        return Dataset(
            name=name, num_classes=known.num_classes, mean=known.mean, std=known.std, **empty
        )
    return dataclasses.replace(load_dataset(name, data_dir=""), **empty)
