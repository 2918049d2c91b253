"""Any image classification set of tensorflow-datasets, in memory or streamed from disk."""

import functools
import math
from collections.abc import Callable

from lpw_jax import registry
from lpw_jax.data import images as decoding
from lpw_jax.data import tfds_prepare, tfds_prepared, tfds_source
from lpw_jax.data.dataset import Dataset, check_labels
from lpw_jax.data.on_disk import OnDisk, opened
from lpw_jax.errors import UserError


def load(
    name: str,
    data_dir: str,
    *,
    image_size: int,
    resize: int,
    validation_examples: int,
    skip_corrupt: bool,
    on_corrupt: Callable[[str], None],
) -> Dataset | OnDisk:
    """Opens `name`, downloading and preparing it if it is not in `data_dir`.

    The test set is the split 'test' or, without one, 'validation'. Up to `images.MAX_IN_MEMORY`
    bytes of a split's pixels are kept in memory. Other arguments are as for `imagenet.load`;
    `validation_examples` are held out here of what is streamed only.

    Raises:
      UserError: it is absent and cannot be downloaded, damaged, no set of labelled images, has no
        test set, or would be streamed and is not array_record.
    """
    prepared = tfds_prepared.find_prepared(name, data_dir)
    if prepared is None:
        prepared = tfds_prepare.prepare(name, data_dir=data_dir, url=registry.data(name).url)
    sizes = prepared.split_sizes
    test_split = "test" if sizes.get("test") else "validation"
    if not sizes.get("train") or not sizes.get(test_split):
        raise UserError(
            f"data.name = {name!r}: must have the splits train and test (or validation), but "
            f"{prepared.folder} has {', '.join(n for n, size in sizes.items() if size) or 'none'}"
        )
    shape, num_classes = tfds_source.described(prepared)
    class_names = tfds_prepared.class_names(prepared, num_classes)
    if image_size:
        shape = (image_size, image_size, shape[2] or 3)
    if None not in shape:
        num_bytes = max(sizes["train"], sizes[test_split]) * math.prod(shape)
        if num_bytes > decoding.MAX_IN_MEMORY:
            if prepared.file_format != "array_record" or not image_size:
                raise UserError(
                    f"data.name = {name!r}: must be prepared as array_record (python -m "
                    "lpw_jax.data convert) and have data.image_size > 0, to be streamed; "
                    f"in memory it would take {num_bytes / 2**30:.1f} GiB"
                )
            return opened(
                prepared,
                name,
                test_split=test_split,
                validation_examples=validation_examples,
                image_size=image_size,
                resize=resize,
                skip_corrupt=skip_corrupt,
                on_corrupt=on_corrupt,
                num_classes=num_classes,
                class_names=class_names,
                channels=shape[2],
            )
    decode = functools.partial(decoding.decode_any, side=image_size)
    splits = {}
    for split in ("train", test_split):
        images, labels = tfds_source.read_split(prepared, split, decode)
        where = f"{prepared.folder} (split {split!r})"
        check_labels(labels, num_classes=num_classes, where=where, remedy=tfds_prepared.REMEDY)
        splits[split] = images, labels
    train, test = decoding.with_equal_channels(splits["train"][0], splits[test_split][0])
    return Dataset.unsplit(
        name,
        train=(train, splits["train"][1]),
        test=(test, splits[test_split][1]),
        num_classes=num_classes,
        class_names=class_names,
    )
