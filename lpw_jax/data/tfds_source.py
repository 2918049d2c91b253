"""Image classification splits out of a tensorflow-datasets folder, as arrays.

array_record is read without TensorFlow; tfrecord goes through tf.data. Either way the encoded
images come out and Pillow decodes them, so pixels do not depend on the storage format.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from lpw_jax.errors import UserError

_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset: `folder` is <data_dir>/<name>/<version>."""

    folder: pathlib.Path
    description: str
    file_format: str
    split_sizes: dict[str, int]


def root(data_dir: str) -> pathlib.Path:
    """`data_dir`, or tfds' default folder when it is ''."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(data_dir or default).expanduser()


def find_prepared(name: str, data_dir: str) -> Prepared | None:
    """The newest prepared version of `name`, or None; reads only its dataset_info.json."""
    found = [
        path
        for path in root(data_dir).glob(f"{name}/*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    if not found:
        return None
    path = max(found, key=lambda p: tuple(map(int, p.parent.name.split("."))))
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        sizes = {s["name"]: sum(map(int, s.get("shardLengths", ()))) for s in info["splits"]}
        file_format = info.get("fileFormat", "tfrecord")
        return Prepared(path.parent, info.get("description", ""), file_format, sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a readable tfds dataset_info.json: {error}") from None


def read_split(prepared: Prepared, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split in stored order: images uint8 [N, 32, 32, 3], labels int32 [N].

    Raises:
      UserError: naming the folder, for an absent split, unreadable files, images of another
        size, or tfrecord data without TensorFlow.
    """
    where = f"{prepared.folder} (split {split!r})"
    size = prepared.split_sizes.get(split, 0)
    if not size:
        raise UserError(f"{where} holds no images; prepare the dataset again")
    read = _data_source_examples if prepared.file_format == "array_record" else _tf_data_examples
    try:
        examples = list(read(prepared, split))
    except Exception as error:  # each reader raises its own kinds, TensorFlow's without a base
        raise UserError(f"{where} cannot be read: {_first_line(error)}") from error
    if len(examples) != size:
        raise UserError(f"{where}: dataset_info.json says {size} images, found {len(examples)}")
    labels = np.array([label for _, label in examples], np.int32)
    images = np.empty((size, 32, 32, 3), np.uint8)
    for i, (encoded, _) in enumerate(examples):  # threads gain nothing on images this small
        images[i] = decode_image(encoded, f"{where}, example {i}")
    return images, labels


def decode_image(encoded: bytes, where: str) -> np.ndarray:
    """Decodes one 32x32 PNG or JPEG to uint8 [32, 32, 3]; UserError naming `where` if it isn't."""
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            if image.size == (32, 32):
                return np.asarray(image.convert("RGB"))
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is not a readable image: {_first_line(error)}") from None
    raise UserError(f"{where}: images must be 32x32 pixels, found {width}x{height}")


def prepare(name: str, *, data_dir: str, url: str) -> Prepared:
    """Downloads and prepares `name` as array_record with tfds' progress bar (needs TensorFlow).

    `url` is probed first: without a network tfds itself would retry for many minutes.

    Raises:
      UserError: nothing could be downloaded or written; says what to do instead.
    """
    folder = root(data_dir)
    try:
        import requests

        requests.head(url, timeout=10, allow_redirects=True).raise_for_status()
        _import_tensorflow()
        import tensorflow_datasets as tfds

        tfds.builder(name, data_dir=folder, file_format="array_record").download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # tfds, requests and TensorFlow share no base class
        command = (
            "import tensorflow_datasets as tfds; "
            f"tfds.builder('{name}', data_dir='tfds', file_format='array_record')"
            ".download_and_prepare()"
        )
        raise UserError(
            f"data.dir: {name} is not in {folder} and could not be downloaded "
            f"({type(error).__name__}: {_first_line(error)[:80]}). "
            "On a machine with a network run\n"
            f'  python -c "{command}"\n'
            f"and copy the folder tfds/{name} to {folder / name}, or point data.dir at a "
            "tensorflow-datasets folder that holds it."
        ) from None
    prepared = find_prepared(name, data_dir)
    if prepared is None:
        raise UserError(f"{folder / name} holds no complete dataset: remove it and try again")
    return prepared


def _data_source_examples(prepared: Prepared, split: str) -> Iterator[tuple[bytes, int]]:
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(prepared.folder)
    source = builder.as_data_source(split=split, decoders=decoders)
    for start in range(0, len(source), _CHUNK):
        indices = range(start, min(start + _CHUNK, len(source)))
        yield from ((e["image"], int(e["label"])) for e in source.__getitems__(list(indices)))


def _tf_data_examples(prepared: Prepared, split: str) -> Iterator[tuple[bytes, int]]:
    tf = _import_tensorflow()
    import tensorflow_datasets as tfds

    dataset = tfds.builder_from_directory(prepared.folder).as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # shards one after another
    )
    dataset = dataset.map(lambda e: (e["image"], e["label"])).batch(_CHUNK)
    for images, labels in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        yield from zip(images, labels, strict=True)


def _import_tensorflow():
    try:
        import tensorflow as tf
    except ImportError:
        raise UserError(
            "tfrecord data, and preparing a dataset, need TensorFlow: pip install tensorflow-cpu "
            "(array_record data is read without it)"
        ) from None
    with contextlib.suppress(RuntimeError):  # it is already running, with the devices it has
        tf.config.set_visible_devices([], "GPU")  # it would take JAX's memory
    return tf


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
