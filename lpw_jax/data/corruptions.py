"""CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich, 2019), from their published .npy files.

Each file holds a corruption's five severities one after the other, mildest first, each of the whole
test set; labels.npy repeats the labels as often. The archives' four further corruptions, made to
tune methods on (speckle_noise, gaussian_blur, spatter, saturate), are not looked at.
"""

import dataclasses
import functools

import numpy as np
from etils import epath

from lpw_jax import registry
from lpw_jax.data import resemblance
from lpw_jax.data.dataset import Dataset, check_labels
from lpw_jax.data.nearby import nearby
from lpw_jax.errors import UserError
from lpw_jax.files import storage

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
SEVERITIES = 5
# An image is known as the test image that it resembles so much, and by so much more than others.
_CORRELATION, _LEAD = 0.8, 0.05
# Of a sample, how many must be known, how many of them may have another label, and how many must
# be most like themselves a severity before. Measured of all 19 corruptions and CIFAR-10, 0.82 are
# known and none has another label; without their originals 0.04 are; and 0.23 of fog, 0.76 of the
# others are most like themselves.
_SAMPLE, _KNOWN, _TOLERATED, _OWN = 500, 0.5, 0.05, 0.1
_LABELS = "labels"
_ARCHIVES = {name: known.corrupted for name, known in registry.CIFAR.items()}
_REMEDY = "unpack the archive again"


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """Corrupted test images of `name`, on disk until they are read.

    Attributes:
      folder: where the files are.
      labels: int32 [N], of every severity alike.
      images: by corruption uint8 [5, N, 32, 32, 3], memory-mapped.
    """

    name: str
    folder: str
    labels: np.ndarray
    images: dict[str, np.ndarray]

    def matches(self, dataset: Dataset) -> bool:
        """Whether these have the test labels of `dataset`, in whatever order.

        tensorflow-datasets stores the images in another order than the published files do.

        Raises:
          UserError: they have not, but are as many, and `dataset` is the official one.
        """
        counts, expected = (
            np.bincount(labels, minlength=dataset.num_classes)
            for labels in (self.labels, dataset.test_labels)
        )
        same = np.array_equal(counts, expected)
        if not same and not dataset.unofficial and len(self.labels) == len(dataset.test_labels):
            raise UserError(
                f"{storage.path(self.folder) / _LABELS}.npy: each class of {self.name} must have "
                f"as many images as in the test set, {_range(expected)}, but has "
                f"{_range(counts)}; use the files of {_ARCHIVES[self.name]}"
            )
        return same

    def check_order(self, dataset: Dataset) -> bool:
        """Whether images are seen to be the test images of `dataset`, in the order of the labels.

        Of a sample, that is by content: mildly corrupted ones look like themselves, and those of
        each severity like those of the one before.

        Raises:
          UserError: they look like test images with other labels, or, where `dataset` is the
            official one, like none; severities are in different orders.
        """
        sample = np.unique(np.linspace(0, len(self.labels) - 1, _SAMPLE).astype(int))
        originals, labels = resemblance.blocks(dataset.test_images), self.labels[sample]
        every = True
        for name, severities in self.images.items():
            where = f"{storage.path(self.folder) / name}.npy"
            before = resemblance.blocks(severities[0][sample])
            found, correlation, lead = resemblance.nearest(before, originals)
            known = (correlation > _CORRELATION) & (lead > _LEAD)
            wrong = int((known & (dataset.test_labels[found] != labels)).sum())
            if wrong > _TOLERATED * len(sample):
                raise UserError(
                    f"{where}: images must be in the order of {_LABELS}.npy, but of {known.sum()} "
                    f"that are seen to be test images {wrong} have another label; use the files of "
                    f"{_ARCHIVES[self.name]}"
                )
            every &= bool(known.mean() > _KNOWN)
            if not every and not dataset.unofficial:
                raise UserError(
                    f"{where}: must be corrupted test images of {self.name}, but of {len(sample)} "
                    f"only {known.sum()} look like one; use the files of {_ARCHIVES[self.name]}"
                )
            for severity, images in enumerate(severities[1:], 2):
                after = resemblance.blocks(images[sample])
                own = resemblance.nearest(after, before)[0] == np.arange(len(sample))
                if own.mean() < max(_OWN, 4 / len(sample)):
                    raise UserError(
                        f"{where}: the images of severity {severity} must be those of severity "
                        f"{severity - 1}, more corrupted, in the same order, but of {len(sample)} "
                        f"only {own.sum()} look like it; use the files of {_ARCHIVES[self.name]}"
                    )
                before = after
        return every


def _range(counts: np.ndarray) -> str:
    low, high = counts.min(), counts.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def load(name: str, folder: str) -> Corrupted:
    """Opens the files of `cifar10` or `cifar100`, and checks their types and shapes.

    They are in `folder`, or one near it, as for `nearby`.

    Raises:
      UserError: there are none for `name`, files are missing (all of them are named) or damaged.
    """
    if name not in _ARCHIVES:
        raise UserError(
            f"--corruptions = {folder!r}: data.name must be {' or '.join(_ARCHIVES)}, of whose "
            f"test images there are corrupted ones, but this run's is {name}"
        )
    place = storage.path(folder)
    if storage.is_remote(place) or not place.exists():
        raise UserError(
            f"--corruptions = {folder!r}: must be a folder on this machine with the files of "
            f"{_ARCHIVES[name]}"
        )
    place = nearby(place, functools.partial(_known, _ARCHIVES[name]), field="--corruptions")
    storage.has_folder(place, what="a folder of .npy files")
    files = {stem: place / f"{stem}.npy" for stem in (*CORRUPTIONS, _LABELS)}
    missing = [f.name for f in files.values() if not storage.has_file(f, what="a .npy file")]
    if missing:
        raise UserError(
            f"--corruptions = {folder!r}: must hold all {len(files)} files of {_ARCHIVES[name]}, "
            f"but lacks {', '.join(missing)}"
        )
    labels = _read_labels(files.pop(_LABELS), registry.DATA[name].num_classes)
    images = {stem: _open_images(file, len(labels)) for stem, file in files.items()}
    return Corrupted(name=name, folder=folder, labels=labels, images=images)


def _known(archive: str, folder: epath.Path) -> list[str]:
    """The names of the files in a folder of corrupted images."""
    if not folder.is_dir() or folder.name in _ARCHIVES.values() and folder.name != archive:
        return []
    names = {f"{stem}.npy" for stem in (*CORRUPTIONS, _LABELS)}
    found = [path.name for path in folder.iterdir() if path.name in names and not path.is_dir()]
    return found if len(found) > 1 else []


def _read_labels(file: epath.Path, num_classes: int) -> np.ndarray:
    labels = _open(file)
    whole = labels.ndim == 1 and labels.size and labels.size % SEVERITIES == 0
    if not whole or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{file}: must be integers [5 N], found {labels.dtype} {list(labels.shape)}; {_REMEDY}"
        )
    check_labels(labels, num_classes=num_classes, where=str(file), remedy=_REMEDY)
    by_severity = np.array(labels, np.int32).reshape(SEVERITIES, -1)
    if (by_severity != by_severity[0]).any():
        raise UserError(f"{file}: labels must repeat after each of 5 severities; {_REMEDY}")
    return by_severity[0]


def _open_images(file: epath.Path, num_images: int) -> np.ndarray:
    images = _open(file)
    shape = (SEVERITIES * num_images, 32, 32, 3)
    if images.dtype != np.uint8 or images.shape != shape:
        raise UserError(
            f"{file}: must be uint8 {list(shape)}, 5 severities of the {num_images:,} images that "
            f"{_LABELS}.npy tells, found {images.dtype} {list(images.shape)}; {_REMEDY}"
        )
    return images.reshape(SEVERITIES, num_images, 32, 32, 3)


def _open(file: epath.Path) -> np.ndarray:
    with storage.reading(file, _REMEDY):
        return np.lib.format.open_memmap(file, mode="r")
