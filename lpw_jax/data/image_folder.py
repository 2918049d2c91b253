"""Images in folders named after their classes: DIR/train/CLASS/*, DIR/test/CLASS/*."""

import os
from collections.abc import Iterator
from concurrent import futures

import numpy as np
from etils import epath
from PIL import Image

from lpw_jax.data import images as decoding
from lpw_jax.data.dataset import Dataset
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_REMEDY = "remove it, or put it right"
_THREADS = 16  # decoding leaves Python's lock, and buckets are far away


def load(name: str, data_dir: str, image_size: int) -> Dataset:
    """Reads every image that Pillow knows by the ending of its name, in the order of names.

    Classes are the folders of DIR/train in the order of their names. Images are grey, one channel,
    if all of both splits are. What begins with a dot is left out.

    Args:
      name: what the data set is called.
      data_dir: the folder, local or remote.
      image_size: side in pixels, as for `images.decode_any`.

    Raises:
      UserError: naming a folder that is not there or holds nothing, or an image that cannot be
        read, or that they are too many.
    """
    if not data_dir:
        raise UserError(f"data.dir = '': must be the folder of {name}, with train/ and test/")
    root = storage.path(data_dir)
    classes = [folder.name for folder in _folders(root / "train")]
    splits = {}
    for split in ("train", "test"):
        files, labels = [], []
        for folder in _folders(root / split):
            if folder.name not in classes:
                raise UserError(
                    f"{folder}: every class must have training images, but there is no folder "
                    f"{root / 'train' / folder.name}"
                )
            found = list(_images(folder))
            files += found
            labels += [classes.index(folder.name)] * len(found)
        if not files:
            raise UserError(f"data.dir: {root / split} must hold images, CLASS/*.jpg or the like")
        splits[split] = _read(files, image_size), np.array(labels, np.int32)
    train, test = decoding.with_equal_channels(splits["train"][0], splits["test"][0])
    if train.shape[1:] != test.shape[1:]:  # only with image_size = 0
        raise UserError(
            f"data.image_size = 0: training and test images of {root} must have one size, not "
            f"{list(train.shape[1:3])} and {list(test.shape[1:3])}"
        )
    return Dataset.unsplit(
        name,
        train=(train, splits["train"][1]),
        test=(test, splits["test"][1]),
        num_classes=len(classes),
    )


def _folders(place: epath.Path) -> list[epath.Path]:
    if not storage.has_folder(place, what="a folder with a folder for each class"):
        raise UserError(f"data.dir: {place} must be there, with a folder for each class")
    with storage.reading(place):
        found = [path for path in place.iterdir() if path.name[0] != "." and path.is_dir()]
        return sorted(found, key=lambda path: path.name)


def _images(folder: epath.Path) -> Iterator[epath.Path]:
    known = Image.registered_extensions()
    with storage.reading(folder):
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if path.name[0] != "." and os.path.splitext(path.name)[1].lower() in known:
                yield path


def _read(files: list[epath.Path], side: int) -> np.ndarray:
    def decoded(file):
        with storage.reading(file, _REMEDY):
            encoded = file.read_bytes()
        return str(file), decoding.decode_any(encoded, str(file), _REMEDY, side=side)

    if side:
        decoding.check_fits(len(files) * side**2, str(files[0].parent.parent))
    with futures.ThreadPoolExecutor(_THREADS) as threads:
        return decoding.stack(threads.map(decoded, files), len(files))
