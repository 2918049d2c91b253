"""Data for comparisons that take minutes: few images, and small ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpw_jax.data import load_dataset

TRAIN, BLOCK = 2000, 4


def cifar10(data_dir: str) -> dict[str, Any]:
    """CIFAR-10 as own data: its first 2,000 training images, all test images, at 8x8 pixels.

    A pixel is the mean of a block of 4x4.
    """
    whole = load_dataset("cifar10", data_dir=data_dir)
    return {
        "train_images": _smaller(whole.train_images[:TRAIN]),
        "train_labels": whole.train_labels[:TRAIN],
        "test_images": _smaller(whole.test_images),
        "test_labels": whole.test_labels,
        "num_classes": whole.num_classes,
        "class_names": whole.class_names,
        "note": whole.note,
    }


def _smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of blocks of images [N, H, W, C]."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
