"""A data set that is streamed from disk, where tensorflow-datasets prepared it as array_record."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lpw_jax.data import imagenet_images
from lpw_jax.data.records import Records, open_split
from lpw_jax.data.streamed import Streamed
from lpw_jax.data.tfds_prepared import Prepared
from lpw_jax.errors import UserError

_SAMPLE = 10_000  # images that channels are measured on


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """Images of `image_size` x `image_size` pixels; test images have a shorter side of `resize`.

    Training images are random crops. `mean` and `std` are per channel on the scale 0..1, () until
    they are computed. `remedy` says what to do if there are no training images.
    `note` says what is unusual about the data and belongs beside every result. `unofficial` tells
    the numbers of images if they are not the official ones; '' if they are. `class_names` are in
    the order of labels, () where nobody named them.
    """

    train_records: Records | None
    validation_records: Records | None
    test_records: Records
    image_size: int
    resize: int
    skip_corrupt: bool
    on_corrupt: Callable[[str], None]
    name: str
    num_classes: int
    test_split: str
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    remedy: str = ""
    note: str = ""
    unofficial: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def num_train(self) -> int:
        """0 if only the images to evaluate on are there."""
        return len(self.train_records or ())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of what the network sees."""
        return self.image_size, self.image_size, self.channels

    @property
    def num_validation(self) -> int:
        return len(self.validation_records or ())

    @property
    def num_test(self) -> int:
        return len(self.test_records)

    def first(self, num_train: int) -> "OnDisk":
        """With the first training images only."""
        return dataclasses.replace(self, train_records=self.train_records.part(0, num_train))

    def identity(self) -> dict[str, Any]:
        """Says which data this is, in JSON's types: equal for equal files and splits.

        `sha256` is over every file's name, size, number of records and first record, not over
        140 GB; and over the numbers of images, of which that held out is one. `test_sha256` is
        that of the test images alone, which suffice for an evaluation.
        """
        sizes = {
            "num_train": self.num_train,
            "num_validation": self.num_validation,
            "num_test": self.num_test,
        }
        test = self.test_records.digest()
        train = self.train_records.digest() if self.train_records else ""
        digest = hashlib.sha256(repr((sizes, train, test)).encode()).hexdigest()
        return {"name": self.name, **sizes, "sha256": digest, "test_sha256": test}

    def train_source(self, *, seed: int, flip: bool, dtype: Any) -> Streamed:
        """Random crops, a function of (seed, epoch, number), flipped with probability 1/2.

        Raises:
          UserError: there are no training images.
        """

        def decode(encoded, uniform):
            return imagenet_images.training_image(
                encoded, uniform, size=self.image_size, flip=flip, channels=self.channels
            )

        return self._source(
            self._training_records(),
            decode,
            "train",
            dtype=dtype,
            seed=seed,
            num_draws=imagenet_images.NUM_DRAWS,
            replace_corrupt=True,
        )

    def training_images(self, *, dtype: Any) -> Streamed:
        """Central crops of the training images; errors as in `train_source`."""
        return self._source(self._training_records(), self._central, "train", dtype=dtype)

    def _training_records(self) -> Records:
        if not self.train_records:
            raise UserError(
                f"data.dir holds no training images of {self.name}, only those to evaluate on; "
                f"{self.remedy}"
            )
        return self.train_records

    def evaluation_sources(self, *, dtype: Any) -> dict[str, Streamed]:
        """Central crops of `test` and, if some are held out, `validation`."""
        central = functools.partial(self._source, decode=self._central, dtype=dtype)
        sources = {"test": central(self.test_records, split=self.test_split)}
        if self.validation_records:
            sources["validation"] = central(self.validation_records, split="train")
        return sources

    def channel_sample(self) -> Iterator[np.ndarray]:
        """Central crops of up to 10,000 training images, evenly spaced: uint8 [n, H, W, C] each."""
        source = self._source(self.train_records, self._central, "train", dtype=np.float32)
        numbers = np.arange(0, len(source), -(-len(source) // _SAMPLE))
        numbers = np.pad(numbers, (0, -len(numbers) % 100), constant_values=-1)
        for feed in source.feeds(numbers.reshape(-1, 100), epoch=0):
            yield feed["image"][feed["valid"]]

    def _central(self, encoded: Any, uniform: Any) -> Any:
        del uniform  # nothing is random
        return imagenet_images.evaluation_image(
            encoded, size=self.image_size, resize=self.resize, channels=self.channels
        )

    def _source(self, records: Records, decode: Callable, split: str, **options: Any) -> Streamed:
        return Streamed(
            records,
            decode,
            name=f"{self.name} (split {split!r})",
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
            skip_corrupt=self.skip_corrupt,
            on_corrupt=self.on_corrupt,
            **options,
        )


def opened(
    prepared: Prepared, name: str, *, test_split: str, validation_examples: int, **options: Any
) -> OnDisk:
    """Opens the files of a prepared data set.

    The last `validation_examples` training images, in stored order, are held out; `options` are
    the other attributes of `OnDisk`.

    Raises:
      UserError: the files are absent, incomplete or damaged, or `validation_examples` impossible.
    """
    sizes = prepared.split_sizes
    total = sizes.get("train", 0)
    if not total:
        validation_examples = 0  # they are of the training images: there are none to evaluate on
    if validation_examples < 0 or validation_examples >= max(total, 1):
        raise UserError(
            f"data.validation_examples = {validation_examples}: must be >= 0 and less than the "
            f"{total} training images of {name} in {prepared.folder}"
        )
    split = functools.partial(open_split, prepared.folder, name.partition("/")[0])
    train, held_out = None, None
    if total:
        records = split("train", num_records=total)
        train = records.part(0, total - validation_examples)
        held_out = records.part(total - validation_examples, validation_examples) or None
    return OnDisk(
        name=name,
        train_records=train,
        validation_records=held_out,
        test_records=split(test_split, num_records=sizes.get(test_split, 0)),
        test_split=test_split,
        **options,
    )
