"""Small array_record files of encoded images, as tensorflow-datasets writes them."""

import pathlib
from collections.abc import Sequence

import numpy as np
from image_files import png
from imagenet_files import jpeg

from lpw_jax.data.tfds_source import import_tensorflow


def example(image: bytes, label: int, file_name: str = "") -> bytes:
    """A serialized tf.train.Example of `image` (encoded), `label` and `file_name`."""
    train = import_tensorflow().train
    values = {
        "image": train.Feature(bytes_list=train.BytesList(value=[image])),
        "label": train.Feature(int64_list=train.Int64List(value=[label])),
    }
    if file_name:
        names = train.BytesList(value=[file_name.encode()])
        values["file_name"] = train.Feature(bytes_list=names)
    return train.Example(features=train.Features(feature=values)).SerializeToString()


def examples(num: int, *, seed: int = 0) -> list[bytes]:
    """Examples of smooth random JPEGs and, every fifth, a PNG; the label is number % 1000."""
    rng = np.random.default_rng(seed)

    def image(i):
        return jpeg(rng) if i % 5 else png(rng.integers(0, 256, (61, 50, 3), dtype=np.uint8))

    return [example(image(i), i % 1000, f"image_{i}.JPEG") for i in range(num)]


def write_records(
    folder: pathlib.Path, records: Sequence[bytes], *, name: str, split: str, num_files: int
) -> list[pathlib.Path]:
    """Writes a split's files, evenly filled and in order; returns their paths."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, numbers in enumerate(np.array_split(np.arange(len(records)), num_files)):
        path = folder / f"{name}-{split}.array_record-{i:05}-of-{num_files:05}"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for number in numbers:
            writer.write(records[number])
        writer.close()
        paths.append(path)
    return paths
