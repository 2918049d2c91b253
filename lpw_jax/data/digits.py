"""scikit-learn's handwritten digits, shown as 32x32 RGB: real data that needs no download."""

import gzip
import importlib.util
from pathlib import Path

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
    table = _table()
    images = np.stack([_upscale(row.reshape(8, 8)) for row in table[:, :-1]])
    labels = table[:, -1].astype(np.int32)
    train, test = _divided(labels)
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


def _table() -> np.ndarray:
    """64 grey values and the label of each image [N, 65], as `sklearn.datasets.load_digits` reads.

    Importing scikit-learn takes longer than all else that happens before the first step compiles.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    (folder,) = package.submodule_search_locations
    with gzip.open(Path(folder) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return np.loadtxt(file, delimiter=",")


def _divided(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and test images.

    They are those of `sklearn.model_selection.train_test_split(..., test_size=TEST_EXAMPLES,
    stratify=labels, random_state=0)`.
    """
    rng = np.random.RandomState(0)
    counts = np.bincount(labels)
    num_train = _shares(counts, len(labels) - TEST_EXAMPLES, rng)
    num_test = _shares(counts - num_train, TEST_EXAMPLES, rng)
    train, test = [], []
    for label, (first, second) in enumerate(zip(num_train, num_test, strict=True)):
        shuffled = np.flatnonzero(labels == label)[rng.permutation(counts[label])]
        train.append(shuffled[:first])
        test.append(shuffled[first : first + second])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def _shares(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """Divides `total` in the ratio of `counts`; of equal remainders chance rounds up some."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    missing = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if not missing:
            break
        equal = np.flatnonzero(remainders == remainder)
        chosen = rng.choice(equal, min(len(equal), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(int)


def _upscale(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR).convert("RGB"))
