"""Images in folders named after their classes: DIR/train/CLASS/*, DIR/test/CLASS/*."""

import unicodedata
from collections.abc import Callable
from concurrent import futures

import numpy as np
from etils import epath

from lpw_jax.data import folders
from lpw_jax.data import images as decoding
from lpw_jax.data.dataset import Dataset
from lpw_jax.data.nearby import nearby
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_REMEDY = "remove it, or put it right"
_THREADS = 16  # decoding leaves Python's lock, and buckets are far away
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}


def load(
    name: str,
    data_dir: str,
    image_size: int,
    skip_corrupt: bool = False,
    on_corrupt: Callable[[str], None] = lambda message: None,
) -> Dataset:
    """Reads every image in the folders of classes and in theirs, in the order of names.

    Classes are the folders of DIR/train in the order of their names. The test set is DIR/test or,
    without one, DIR/val (or validation). Images are grey, one channel, if all of both splits are.
    What `folders` says is hidden, or no image, is left out.

    Args:
      name: what the data set is called.
      data_dir: the folder, local or remote, or one that is near it, as for `nearby`.
      image_size: side in pixels, as for `images.decode_any`.
      skip_corrupt: images that do not decode are left out; otherwise they are an error.
      on_corrupt: is told in one line each what was left out.

    Raises:
      UserError: naming a folder that is not there or holds nothing, or an image that cannot be
        read, or that they are too many.
    """
    if not data_dir:
        raise UserError(f"data.dir = '': must be the folder of {name}, with train/ and test/")
    root = nearby(storage.path(data_dir), lambda place: _splits(place).values(), field="data.dir")
    places, classes, splits, num_corrupt = _splits(root), [], {}, 0
    for split in ("train", "test"):
        if split not in places:
            raise UserError(_absent(root, split))
        left_out = folders.LeftOut()
        files = _by_class(root / places[split], split, classes, left_out)
        left_out.tell(root / places[split], on_corrupt)
        read, labels = _read(files, image_size, on_corrupt if skip_corrupt else None)
        num_corrupt += len(files) - len(labels)
        numbers = {label: number for number, label in enumerate(classes)}
        splits[split] = read, np.array([numbers[label] for label in labels], np.int32)
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
        class_names=tuple(classes),
        note=f"{num_corrupt:,} damaged images left out" if num_corrupt else "",
    )


def _splits(place: epath.Path) -> dict[str, str]:
    """The names of the splits' folders in `place`, {} unless both are there."""
    if not place.is_dir():
        return {}
    names = {name.lower(): name for name in sorted(path.name for path in place.iterdir())}
    found = {
        split: names[known[0]]
        for split, others in _SPLITS.items()
        if (known := [other for other in others if other in names])
    }
    return found if len(found) == len(_SPLITS) else {}


def _absent(root: epath.Path, split: str) -> str:
    """What is to be said where `_splits` finds none."""
    rule = "must be a folder with train/CLASS and test/CLASS (or val/CLASS)"
    if not storage.has_folder(root, what=rule.removeprefix("must be ")):
        return f"data.dir: {root} must be there, with a folder for each split and class"
    with storage.reading(root):
        names = sorted(path.name for path in root.iterdir() if not folders.is_hidden(path.name))
    shown = ", ".join(names[:5]) + (", ..." if names[5:] else "")
    return f"data.dir: {root} {rule}, but holds {shown or 'nothing'}"


def _by_class(
    place: epath.Path, split: str, classes: list[str], left_out: folders.LeftOut
) -> list[tuple[epath.Path, str]]:
    """The images in `place` with their classes; those of the training images are `classes` then."""
    found = []
    for folder in sorted(folders.folders(place, left_out), key=_label):
        label = _label(folder)
        ignored = folders.LeftOut()
        images = folders.images(folder, ignored)
        left_out.within(folder.name, ignored)
        if split == "train" and label not in classes:
            classes.append(label)
        elif images and label not in classes:
            raise UserError(
                f"{folder}: every class must have training images, but there is none of "
                f"{label}, only of {', '.join(classes[:5])}{', ...' if classes[5:] else ''}"
            )
        found.append((folder, images, ignored))
    if not any(images for _, images, _ in found):
        beside = f"; left out are {left_out}" if left_out else ""
        raise UserError(f"data.dir: {place} must hold images, CLASS/*.jpg or the like{beside}")
    if split == "train":
        for folder, images, ignored in found:
            if not images:
                raise UserError(
                    f"{folder} must hold images, as every folder of a class, but holds "
                    f"{ignored or 'nothing'}; remove it, if it is no class"
                )
    return [(image, _label(folder)) for folder, images, _ in found for image in images]


def _label(folder: epath.Path) -> str:
    """A class's name; macOS and others write accents in two ways, which look alike."""
    return unicodedata.normalize("NFC", folder.name)


def _read(
    files: list[tuple[epath.Path, str]], side: int, on_corrupt: Callable[[str], None] | None
) -> tuple[np.ndarray, list[str]]:
    """The images, and the classes of those that are left; damaged ones are refused without one."""

    def decoded(item):
        file, label = item
        try:
            encoded = folders.read(file, _REMEDY, max_bytes=decoding.MAX_FILE)
            return str(file), decoding.decode_any(encoded, str(file), _REMEDY, side=side), label
        except UserError as error:
            if not on_corrupt:
                raise
            on_corrupt(f"{error.args[0].removesuffix(f'; {_REMEDY}')}; it is left out")
            return None

    if side:
        decoding.check_fits(len(files) * side**2, str(files[0][0].parent.parent))
    labels = []

    def sound(results):
        for result in results:
            if result:
                *image, label = result
                labels.append(label)
                yield image

    with futures.ThreadPoolExecutor(_THREADS) as threads:
        images = decoding.stack(sound(threads.map(decoded, files)), len(files))
    if not labels:
        raise UserError(f"{files[0][0].parent.parent}: no image can be read")
    return images[: len(labels)], labels
