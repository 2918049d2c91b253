"""Small ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of generated JPEGs, laid out as theirs.

As a program it makes the two of them:

    python tests/imagenet_files.py FOLDER
"""

import importlib.util
import io
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
from image_files import Member, write_archive
from PIL import Image

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
_TFDS = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
_LISTS = _TFDS / "datasets" / "imagenet2012"
SYNSETS = tuple((_LISTS / "labels.txt").read_text().split())  # 1000; the index is the label
VAL_SYNSETS = tuple((_LISTS / "validation_labels.txt").read_text().split())  # of numbers 1 to 50000


def make_tars(
    folder: pathlib.Path,
    *,
    num_classes: int = 4,
    per_class: int = 3,
    num_val: int = 6,
    seed: int = 0,
    sides: tuple[int, int] = (48, 97),
) -> pathlib.Path:
    """Writes both tars into `folder` (made if need be) and returns it; zero images leave one out.

    The classes are spread over the 1000; validation numbers are 1 to `num_val`. The images'
    heights and widths are drawn from `range(*sides)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if num_classes * per_class:
        classes = SYNSETS[:: len(SYNSETS) // num_classes][:num_classes]
        write_train(folder, train_images(classes, per_class, seed=seed, sides=sides))
    if num_val:
        write_val(folder, val_images(range(1, num_val + 1), seed=seed, sides=sides))
    return folder


def train_images(
    classes: Sequence[str], per_class: int, *, seed: int = 0, sides: tuple[int, int] = (48, 97)
) -> dict[str, list[tuple[str, bytes]]]:
    """For each synset of `classes` its images' names and encoded bytes."""
    rng = np.random.default_rng([seed, 0])
    return {
        synset: [(f"{synset}_{10 * i + 3}.JPEG", jpeg(rng, sides)) for i in range(per_class)]
        for synset in classes
    }


def val_images(
    numbers: Iterable[int], *, seed: int = 0, sides: tuple[int, int] = (48, 97)
) -> list[tuple[str, bytes]]:
    """Names and encoded bytes of validation images."""
    rng = np.random.default_rng([seed, 1])
    return [(val_name(number), jpeg(rng, sides)) for number in numbers]


def val_name(number: int) -> str:
    """The official name of validation image `number`, 1 to 50000."""
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_train(folder: pathlib.Path, images: dict[str, list[Member]]) -> pathlib.Path:
    """Writes the tar of class tars and returns its path."""
    members = [(f"{synset}.tar", tar(files)) for synset, files in images.items()]
    write_archive(folder / TRAIN, members, "w")
    return folder / TRAIN


def write_val(folder: pathlib.Path, images: list[Member]) -> pathlib.Path:
    """Writes the flat tar of validation images and returns its path."""
    write_archive(folder / VAL, images, "w")
    return folder / VAL


def tar(members: list[Member]) -> bytes:
    """An uncompressed archive."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "class.tar")
        write_archive(path, members, "w")
        return path.read_bytes()


def jpeg(rng: np.random.Generator, sides: tuple[int, int] = (48, 97), mode: str = "RGB") -> bytes:
    """A smooth random image as a JPEG file of the colour `mode` (RGB, L or CMYK)."""
    height, width = (int(side) for side in rng.integers(*sides, 2))
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (6, 6, channels), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    make_tars(pathlib.Path(sys.argv[1]))
