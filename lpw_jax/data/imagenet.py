"""ImageNet (ILSVRC 2012) through tensorflow-datasets, streamed from disk.

What tfds calls its 'validation' split is the test set here, as in the reference; validation
examples are held out of the training images.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Collection
from typing import Any

from lpw_jax.data import imagenet_images, imagenet_prepare
from lpw_jax.data.imagenet_prepare import NAME
from lpw_jax.data.records import Records, open_split
from lpw_jax.data.streamed import Streamed
from lpw_jax.errors import UserError

NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class ImageNet:
    """Images of `image_size` x `image_size` pixels; test images have a shorter side of `resize`.

    `mean` and `std` are per channel on the scale 0..1, as torchvision's networks were trained with.
    `note` says what is unusual about the data and belongs beside every result. `unofficial` tells
    the numbers of images if they are not the official ones; '' if they are.
    """

    train_records: Records | None
    validation_records: Records | None
    test_records: Records
    image_size: int
    resize: int
    skip_corrupt: bool
    on_corrupt: Callable[[str], None]
    name: str = NAME
    num_classes: int = NUM_CLASSES
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    note: str = ""
    unofficial: str = ""

    @property
    def num_train(self) -> int:
        """0 if only the images to evaluate on are there."""
        return len(self.train_records or ())

    @property
    def num_validation(self) -> int:
        return len(self.validation_records or ())

    @property
    def num_test(self) -> int:
        return len(self.test_records)

    def first(self, num_train: int) -> "ImageNet":
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
        if not self.train_records:
            raise UserError(
                f"data.dir holds no training images of {NAME}, only those to evaluate on; put "
                f"{imagenet_prepare.FILES['train']} into data.manual_dir, remove the folder {NAME} "
                "from data.dir and prepare it again"
            )

        def decode(encoded, uniform):
            return imagenet_images.training_image(encoded, uniform, size=self.image_size, flip=flip)

        return self._source(
            self.train_records,
            decode,
            "train",
            dtype=dtype,
            seed=seed,
            num_draws=imagenet_images.NUM_DRAWS,
            replace_corrupt=True,
        )

    def evaluation_sources(self, *, dtype: Any) -> dict[str, Streamed]:
        """Central crops of `test` and, if some are held out, `validation`."""

        def decode(encoded, uniform):
            del uniform  # nothing is random
            return imagenet_images.evaluation_image(
                encoded, size=self.image_size, resize=self.resize
            )

        sources = {"test": self._source(self.test_records, decode, "validation", dtype=dtype)}
        if self.validation_records:
            held_out = self._source(self.validation_records, decode, "train", dtype=dtype)
            sources["validation"] = held_out
        return sources

    def _source(self, records: Records, decode: Callable, split: str, **options: Any) -> Streamed:
        return Streamed(
            records,
            decode,
            name=f"{self.name} (split {split!r})",
            image_size=self.image_size,
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
            skip_corrupt=self.skip_corrupt,
            on_corrupt=self.on_corrupt,
            **options,
        )


def load(
    data_dir: str,
    manual_dir: str,
    *,
    image_size: int,
    resize: int,
    validation_examples: int,
    skip_corrupt: bool,
    on_corrupt: Callable[[str], None],
    splits: Collection[str] = ("validation",),
) -> ImageNet:
    """Opens ImageNet in `data_dir`, preparing it first from `manual_dir` if it is not there.

    Args:
      data_dir: a tensorflow-datasets folder; '' means tfds' default.
      manual_dir: the folder of the archives, as for `imagenet_prepare.find_or_prepare`.
      image_size, resize: pixels, image_size <= resize.
      validation_examples: the last n training images, in stored order, are held out.
      skip_corrupt: images that do not decode are left out; otherwise they are an error.
      on_corrupt: is told of each image that is left out, once.
      splits: those of tfds that must be there.

    Raises:
      UserError: the data is absent, incomplete or damaged, or `validation_examples` impossible.
    """
    if image_size > resize:
        raise UserError(f"data.resize = {resize}: must be >= data.image_size ({image_size})")
    prepared = imagenet_prepare.find_or_prepare(data_dir, manual_dir, splits=splits)
    sizes = prepared.split_sizes
    total = sizes.get("train", 0)
    if not total:
        validation_examples = 0  # they are of the training images: there are none to evaluate on
    if validation_examples < 0 or validation_examples >= max(total, 1):
        raise UserError(
            f"data.validation_examples = {validation_examples}: must be >= 0 and less than the "
            f"{total} training images of {NAME} in {prepared.folder}"
        )
    split = functools.partial(open_split, prepared.folder, NAME)
    train, held_out = None, None
    if total:
        records = split("train", num_records=total)
        train = records.part(0, total - validation_examples)
        held_out = records.part(total - validation_examples, validation_examples) or None
    unofficial = imagenet_prepare.unofficial(sizes)
    return ImageNet(
        train_records=train,
        validation_records=held_out,
        test_records=split("validation", num_records=sizes.get("validation", 0)),
        image_size=image_size,
        resize=resize,
        skip_corrupt=skip_corrupt,
        on_corrupt=on_corrupt,
        note=unofficial,
        unofficial=unofficial,
    )
