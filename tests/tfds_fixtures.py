"""Makes small tensorflow-datasets folders with tfds' own writer, and a bucket to put them into.

As a program it makes the folders:

    python tests/tfds_fixtures.py FOLDER

It writes
  FOLDER/array_record   cifar10 as tfds describes it, cifar100 with its own description, and sets
                        that the program does not know: grey_dots, grey, its test set 'validation',
                        and unlabelled
  FOLDER/tfrecord       the same cifar10 in three shards, and svhn_cropped
"""

import pathlib
import subprocess
import sys

import numpy as np
import shared
from etils.epath import backend, gpath
from fsspec.implementations import dirfs, local

SIZES = {"train": 1_203, "test": 20}
SVHN_SIZES = {"train": 3, "test": 25}
GREY_SIZES = {"train": 30, "validation": 12}
CIFAR10_TEXT = (
    "The CIFAR-10 dataset consists of 60000 32x32 colour images in 10 classes, with 6000 images "
    "per class. There are 50000 training images and 10000 test images."
)
CIFAR100_TEXT = "A tenth of CIFAR-100.\n\nA second paragraph."


def arrays(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images uint8 [N, 32, 32, 3] and labels [N] of a split, in stored order."""
    size = {"svhn_cropped": SVHN_SIZES, "grey_dots": GREY_SIZES}.get(name, SIZES)[split]
    rng = np.random.default_rng([len(name), len(split)])
    if name == "grey_dots":
        return rng.integers(0, 256, (size, 12, 10, 1), dtype=np.uint8), np.arange(size) % 3
    colours = rng.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)
    classes = 100 if name == "cifar100" else 10
    return colours.repeat(8, axis=1).repeat(8, axis=2), np.arange(size) % classes


class Bucket(dirfs.DirFileSystem):
    """What is in the folder BUCKETS/NAME appears as gs://NAME."""

    protocol = "gs"

    @classmethod
    def mount(cls, buckets: pathlib.Path, monkeypatch) -> None:
        """Serves all gs:// paths that go through etils, for one test."""
        files = local.LocalFileSystem()
        remote = cls(str(buckets), files)
        monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)  # it would ask Google
        monkeypatch.setattr(
            type(backend.fsspec_backend),
            "fs",
            lambda self, path: remote if str(path).startswith("gs://") else files,
        )


def folder() -> pathlib.Path:
    """The folder, made on first use by this file as a program of its own."""

    def make(path):
        command = [sys.executable, __file__, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return shared.once("tfds", make)


def _write(root: str, file_format: str, name: str, *, text: str, num_shards: int = 1) -> None:
    import tensorflow_datasets as tfds

    grey = name == "grey_dots"
    image = tfds.features.Image(shape=(12, 10, 1) if grey else (32, 32, 3))
    classes = {"grey_dots": 3, "cifar100": 100}.get(name, 10)
    label = tfds.features.ClassLabel(num_classes=classes)

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=text,
                features=tfds.features.FeaturesDict(
                    {
                        "id": tfds.features.Text(),
                        "image": image,
                        "label": np.int64 if name == "unlabelled" else label,
                    }
                ),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split) for split in (GREY_SIZES if grey else SIZES)
            }

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(zip(*arrays(name, split), strict=True)):
                yield i, {"id": f"{split}_{i}", "image": image, "label": int(label)}

    Small.name = name
    builder = Small(data_dir=f"{root}/{file_format}", file_format=file_format)
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=num_shards)
    builder.download_and_prepare(download_config=config)


def main(root: str) -> None:
    _write(root, "array_record", "cifar10", text=CIFAR10_TEXT)
    _write(root, "array_record", "cifar100", text=CIFAR100_TEXT)
    _write(root, "array_record", "grey_dots", text="Noise.")
    _write(root, "array_record", "unlabelled", text="Numbers, no classes.")
    _write(root, "tfrecord", "cifar10", text=CIFAR10_TEXT, num_shards=3)
    _write(root, "tfrecord", "svhn_cropped", text="Street view house numbers.")


if __name__ == "__main__":
    main(sys.argv[1])
