"""A dataset in memory, its checks, and the order in which an epoch visits a data set."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np

from lpw_jax.errors import UserError

Split = tuple[np.ndarray, np.ndarray]  # images and labels


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images are uint8 [N, H, W, C], C = 1 or 3, labels int32 [N], both in stored order.

    `mean` and `std` are per channel on the scale 0..1, () until they are computed. `note` says what
    is unusual about the data and belongs beside every result; '' for the ordinary dataset.
    `unofficial` tells the numbers of images if they are not the dataset's official ones; '' if they
    are. `class_names` are in the order of labels, () where nobody named them.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    note: str = ""
    unofficial: str = ""
    class_names: tuple[str, ...] = ()

    @classmethod
    def unsplit(cls, name: str, *, train: Split, test: Split, **facts: Any) -> "Dataset":
        """Of (images, labels), with no training image held out; `facts` are the other fields."""
        return cls(
            name=name,
            train_images=train[0],
            train_labels=train[1],
            validation_images=train[0][:0],
            validation_labels=train[1][:0],
            test_images=test[0],
            test_labels=test[1],
            **facts,
        )

    @property
    def num_train(self) -> int:
        return len(self.train_labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H, W, C]."""
        return self.train_images.shape[1:]

    def channel_sample(self) -> Iterator[np.ndarray]:
        """The training images, a part at a time: uint8 [n, H, W, C]."""
        yield from np.array_split(self.train_images, -(-self.num_train // 1000))

    def first(self, num_train: int) -> "Dataset":
        """With the first training images only."""
        images, labels = self.train_images[:num_train], self.train_labels[:num_train]
        return dataclasses.replace(self, train_images=images, train_labels=labels)

    def identity(self) -> dict[str, Any]:
        """Says which data this is, in JSON's types: equal for equal images, labels and splits.

        `sha256` is over type, shape and bytes of every split's images and labels, so it also
        depends on where the validation split begins; `test_sha256` over those of the test images.
        """
        return {"name": self.name, **self._sizes_and_digest}

    @functools.cached_property
    def image_digests(self) -> dict[str, list[bytes]]:
        """Of each image by split, by which equal ones are found."""
        return {
            split: digests_of(getattr(self, f"{split}_images"))
            for split in ("train", "validation", "test")
        }

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
        test = hashlib.sha256()
        for array in (self.test_images, self.test_labels):
            test.update(f"{array.dtype.str} {array.shape}\n".encode())
            test.update(np.ascontiguousarray(array).data)
        return sizes | {"sha256": digest.hexdigest(), "test_sha256": test.hexdigest()}


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


def normalised(dataset: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """`dataset` with that mean and std of channels, if given, else with its own.

    If it has none, they are those of its training images; sums of integers are exact.

    Raises:
      UserError: they are not as many as the channels, or every pixel of a channel is the same.
    """
    channels = dataset.image_shape[-1]
    if mean and len(mean) != channels:
        raise UserError(
            f"data.mean = {mean!r}: must have a number for each of the {channels} channels of "
            f"{dataset.name}"
        )
    if not mean and dataset.mean:
        check_scale(dataset.mean, dataset.std, where=f"{dataset.name}: ")
        return dataset
    if not mean:
        count, total, squares = 0, 0, 0
        for images in dataset.channel_sample():
            pixels = images.reshape(-1, channels).astype(np.int64)
            count += len(pixels)
            total, squares = total + pixels.sum(0), squares + np.square(pixels).sum(0)
        variances = [int(q) * count - int(t) ** 2 for t, q in zip(total, squares, strict=True)]
        mean = tuple(int(t) / (255 * count) for t in total)
        std = tuple(variance**0.5 / (255 * count) for variance in variances)
        if not all(std):
            raise UserError(f"data.std: must be given for {dataset.name}, whose pixels are all one")
    return dataclasses.replace(dataset, mean=mean, std=std)


def digests_of(images: np.ndarray) -> list[bytes]:
    """A digest of each of the images [N, ...]."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def check_scale(mean: Any, std: Any, *, where: str) -> None:
    """Refuses a mean and std of channels, on the scale 0..1, that images cannot be normalised with.

    Raises:
      UserError: beginning with `where`, and saying which number is not as it must be.
    """
    for name, values, low in (("mean", mean, 0.0), ("std", std, np.finfo(np.float32).tiny)):
        are_numbers = isinstance(values, Sequence | np.ndarray) and all(
            isinstance(value, Real) and low <= value <= 1 for value in values
        )
        if not are_numbers or len(values) != len(mean):
            rule = "0 to 1" if name == "mean" else "above 0 and at most 1, one for each mean"
            raise UserError(f"{where}{name} must be {rule}, on the scale 0..1, found {values!r}")


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


def cycles_per_epoch(num_examples: int, *, batch_size: int, num_members: int) -> int:
    """Whole cycles in an epoch; the remainder, less than one cycle, is dropped."""
    return num_examples // (batch_size * num_members)


def split_order(
    order: np.ndarray,
    *,
    num_members: int,
    batch_size: int,
    num_microbatches: int,
    num_devices: int,
    num_groups: int,
    same_minibatch: bool = False,
) -> np.ndarray:
    """The epoch's whole cycles, divided over D devices in G groups; the remainder is dropped.

    Minibatch m of the epoch, order[m B : (m + 1) B], is member m % K's in cycle m // K, as in the
    reference's loop; if it is the `same_minibatch` for all, m is every member's in cycle m.
    `batch_size` B is that of a whole minibatch; its microbatches lie in it one
    after the other, and so do a device's parts of them.

    Returns:
      int32 [cycles, D, K / G, B / (D / G)]: each group takes the minibatches of its own members,
      and its D / G devices, which are neighbours, share each of their microbatches.
    """
    if same_minibatch:
        whole = order[: len(order) // batch_size * batch_size]
        order = np.repeat(whole.reshape(-1, 1, batch_size), num_members, axis=1).reshape(-1)
    cycles = cycles_per_epoch(len(order), batch_size=batch_size, num_members=num_members)
    order = order[: cycles * num_members * batch_size]
    own, size = num_members // num_groups, num_devices // num_groups
    parts = order.reshape(cycles, num_groups, own, num_microbatches, size, -1)
    return parts.transpose(0, 1, 4, 2, 3, 5).reshape(cycles, num_devices, own, -1)
