"""ImageNet (ILSVRC 2012) through tensorflow-datasets, streamed from disk.

What tfds calls its 'validation' split is the test set here, as in the reference; validation
examples are held out of the training images.
"""

from collections.abc import Callable

from lpw_jax import registry
from lpw_jax.data import imagenet_prepare, tfds_prepared
from lpw_jax.data.imagenet_prepare import NAME
from lpw_jax.data.on_disk import OnDisk, opened
from lpw_jax.errors import UserError


def load(
    data_dir: str,
    manual_dir: str,
    *,
    image_size: int,
    resize: int,
    validation_examples: int,
    skip_corrupt: bool,
    on_corrupt: Callable[[str], None],
    to_train: bool = False,
) -> OnDisk:
    """Opens ImageNet in `data_dir`, preparing it first from `manual_dir` if it is not there.

    Args:
      data_dir: a tensorflow-datasets folder; '' means tfds' default.
      manual_dir: the folder of the archives, as for `imagenet_prepare.find_or_prepare`.
      image_size, resize: pixels, image_size <= resize.
      validation_examples: the last n training images, in stored order, are held out.
      skip_corrupt: images that do not decode are left out; otherwise they are an error.
      on_corrupt: is told of each image that is left out, once.
      to_train: whether training images must be there.

    Raises:
      UserError: the data is absent, incomplete or damaged, or `validation_examples` impossible.
    """
    if image_size > resize:
        raise UserError(f"data.resize = {resize}: must be >= data.image_size ({image_size})")
    splits = ("train", "validation") if to_train else ("validation",)
    prepared = imagenet_prepare.find_or_prepare(data_dir, manual_dir, splits=splits)
    unofficial = imagenet_prepare.unofficial(prepared.split_sizes)
    known = registry.DATA[NAME]
    return opened(
        prepared,
        NAME,
        test_split="validation",
        validation_examples=validation_examples,
        image_size=image_size,
        resize=resize,
        skip_corrupt=skip_corrupt,
        on_corrupt=on_corrupt,
        num_classes=known.num_classes,
        class_names=tfds_prepared.class_names(prepared, known.num_classes),
        mean=known.mean,
        std=known.std,
        note=unofficial,
        unofficial=unofficial,
        remedy=f"put {imagenet_prepare.FILES['train']} into data.manual_dir, remove the folder "
        f"{NAME} from data.dir and prepare it again",
    )
