"""CIFAR-10 and CIFAR-100 through tensorflow-datasets."""

import re

import numpy as np

from lpw_jax import registry
from lpw_jax.data import tfds_prepare, tfds_prepared, tfds_source
from lpw_jax.data.dataset import Dataset, check_labels
from lpw_jax.errors import UserError

OFFICIAL_SIZES = {"train": 50_000, "test": 10_000}


SPECS = registry.CIFAR


def load(name: str, data_dir: str) -> Dataset:
    """Loads `cifar10` or `cifar100`, downloading and preparing it if it is not in `data_dir`.

    Raises:
      UserError: it is absent and cannot be downloaded, or what is there is damaged.
    """
    spec = SPECS[name]
    prepared = tfds_prepared.find_prepared(name, data_dir)
    if prepared is None:
        prepared = tfds_prepare.prepare(name, data_dir=data_dir, url=spec.url)
    for split in OFFICIAL_SIZES:
        if not prepared.split_sizes.get(split):
            raise UserError(
                f"{prepared.folder} (split {split!r}) holds no images; {tfds_prepared.REMEDY}"
            )
    train, test = (read_split(name, prepared, split) for split in ("train", "test"))
    return Dataset.unsplit(
        name,
        train=train,
        test=test,
        num_classes=spec.num_classes,
        mean=spec.mean,
        std=spec.std,
        class_names=tfds_prepared.class_names(prepared, spec.num_classes),
        note=note(name, prepared),
        unofficial=unofficial(len(train[1]), len(test[1])),
    )


def unofficial(num_train: int, num_test: int) -> str:
    """Numbers of images that are not CIFAR's, beside those that are; '' for CIFAR's own."""
    if {"train": num_train, "test": num_test} == OFFICIAL_SIZES:
        return ""
    return (
        f"{num_train:,} training and {num_test:,} test images, officially "
        f"{OFFICIAL_SIZES['train']:,} and {OFFICIAL_SIZES['test']:,}"
    )


def read_split(
    name: str, prepared: tfds_prepared.Prepared, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and labels int32 [N], checked to lie in the classes' range."""
    images, labels = tfds_source.read_split(prepared, split)
    where = f"{prepared.folder} (split {split!r})"
    check_labels(
        labels, num_classes=SPECS[name].num_classes, where=where, remedy=tfds_prepared.REMEDY
    )
    return images, labels


def note(name: str, prepared: tfds_prepared.Prepared) -> str:
    """What is unusual about prepared data: its own description, its size; '' for tfds' CIFAR."""
    text = prepared.description.strip()
    ordinary = " ".join(text.split()).startswith(SPECS[name].opening)
    paragraph = "" if ordinary else " ".join(text.split("\n\n")[0].split())
    if len(paragraph) > 200:
        paragraph = paragraph[:200].rsplit(" ", 1)[0] + " ..."
    sizes = {split: prepared.split_sizes.get(split, 0) for split in OFFICIAL_SIZES}
    told = set(re.findall(r"\d+", paragraph.replace(",", "")))
    if sizes == OFFICIAL_SIZES or {str(n) for n in sizes.values()} <= told:
        return paragraph
    return f"{paragraph} {sizes['train']} training and {sizes['test']} test images".strip()
