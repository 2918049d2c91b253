"""scikit-learn's handwritten digits, shown as 32x32 RGB: real data that needs no download."""

import numpy as np
from PIL import Image

from lpw_jax.data.dataset import Dataset

TEST_EXAMPLES = 360
NOTE = "scikit-learn handwritten digits (8x8 shown as 32x32)"


def load(name: str) -> Dataset:
    """1,437 training and 360 test images, split at random but once for all, stratified.

    Grey values 0..16 become 0..255 before the bilinear upscaling. `mean` and `std` are those of
    the training images.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    images = np.stack([_upscale(image) for image in source.images])
    labels = source.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_EXAMPLES, stratify=labels, random_state=0
    )
    scaled = images[train] / 255.0
    return Dataset.unsplit(
        name,
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        num_classes=10,
        mean=(float(scaled.mean()),) * 3,
        std=(float(scaled.std()),) * 3,
        note=NOTE,
    )


def _upscale(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR).convert("RGB"))
