"""Image classification splits out of a tensorflow-datasets folder, as arrays.

array_record is read without TensorFlow; tfrecord goes through tf.data. Either way the encoded
images come out and Pillow decodes them, so pixels do not depend on the storage format.
"""

import contextlib
import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from lpw_jax.data.images import decode_image, stack
from lpw_jax.errors import UserError
from lpw_jax.files import storage

REMEDY = "copy the dataset anew, or remove its folder and prepare it again"
_FORMATS = ("array_record", "tfrecord")
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset: `folder` is <data_dir>/<name>/<version>."""

    folder: epath.Path
    description: str
    file_format: str
    split_sizes: dict[str, int]


def root(data_dir: str) -> epath.Path:
    """`data_dir`, or tfds' default folder when it is ''."""
    return storage.path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def known_names() -> list[str]:
    """The names of tfds' own data sets; takes a moment."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def find_prepared(name: str, data_dir: str) -> Prepared | None:
    """The newest prepared version of `name`, or None; reads only its dataset_info.json.

    Raises:
      UserError: naming what is in the way of a folder, cannot be read, or is not as tfds writes it.
    """
    folder = root(data_dir)
    if not storage.has_folder(folder, what="a folder of tensorflow-datasets (data.dir)"):
        return None
    for part in name.split("/"):  # the set, and perhaps one of its configs
        with storage.reading(folder):
            if part not in (path.name for path in folder.iterdir()):
                return None
        folder /= part
        storage.has_folder(folder, what="the folder of a dataset")
    with storage.reading(folder):
        versions = [p for p in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]
        versions.sort(key=lambda path: tuple(map(int, path.name.split("."))))
        found = [path for path in versions if storage.is_file(path / "dataset_info.json")]
    if versions and not found:
        raise UserError(f"{versions[-1]} holds no readable dataset_info.json; {REMEDY}")
    return _read_info(found[-1] / "dataset_info.json") if found else None


def read_split(
    prepared: Prepared, split: str, decode: Callable[..., np.ndarray] = decode_image
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split in stored order: images uint8 [N, H, W, C], labels int32 [N].

    `decode` makes one image [H, W, C] of encoded bytes, their place and a remedy; by default it
    takes 32x32 pixels in colour only.

    A remote folder's files are first copied to a temporary local one: readers of array_record
    open files by name.

    Raises:
      UserError: naming the folder or file, for an absent split, unreadable files, images of
        another size, or tfrecord data without TensorFlow.
    """
    where = f"{prepared.folder} (split {split!r})"
    size = prepared.split_sizes.get(split, 0)
    if not size:
        raise UserError(f"{where} holds no images; {REMEDY}")
    read = _data_source_examples
    if prepared.file_format == "tfrecord":
        read = _tf_data_examples
        with storage.reading(where):
            import_tensorflow()
    with storage.reading(where, REMEDY), _local(prepared.folder, split) as folder:
        builder = _builder(folder, shown=prepared.folder)
        for path in builder.info.splits[split].filepaths:
            if not storage.is_file(epath.Path(path)):
                raise UserError(f"{where} lacks its file {os.path.basename(path)}; {REMEDY}")
        examples = list(read(builder, split))
    if len(examples) != size:
        raise UserError(
            f"{where}: dataset_info.json says {size} images, found {len(examples)}; {REMEDY}"
        )
    labels = np.array([label for _, label in examples], np.int32)
    places = [f"{where}, example {i}" for i in range(size)]
    images = (  # threads gain nothing on small images
        (place, decode(encoded, place, REMEDY))
        for place, (encoded, _) in zip(places, examples, strict=True)
    )
    return stack(images, size), labels


def described(prepared: Prepared) -> tuple[tuple[int | None, ...], int]:
    """The shape [H, W, C] of images, None where they differ, and the number of classes.

    Raises:
      UserError: it is not a dataset of labelled images.
    """
    with _local(prepared.folder, "") as folder:
        features = _builder(folder, shown=prepared.folder).info.features
    shape, classes = features["image"].shape, getattr(features["label"], "num_classes", None)
    if len(shape) != 3 or not classes:
        raise UserError(f"{prepared.folder}: must have one image and one class label an example")
    return shape, classes


def import_tensorflow():
    """The module, quiet and kept off the GPUs; raises ImportError, saying what to install."""
    if "tensorflow" not in sys.modules:
        _silence_tensorflow()
    try:
        import tensorflow as tf
    except ImportError:
        raise ImportError(
            "tfrecord data, and preparing a dataset, need TensorFlow: pip install tensorflow-cpu "
            "(array_record data is read without it)"
        ) from None
    with contextlib.suppress(RuntimeError):  # it is already running, with the devices it has
        tf.config.set_visible_devices([], "GPU")  # it would take JAX's memory
    return tf


def _silence_tensorflow() -> None:
    """Before its import: it would tell of its own affairs."""
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "2"), ("TF_ENABLE_ONEDNN_OPTS", "0")):
        os.environ.setdefault(name, value)


def _read_info(path: epath.Path) -> Prepared:
    try:
        info = json.loads(path.read_text())
        sizes = {s["name"]: sum(map(int, s.get("shardLengths", ()))) for s in info["splits"]}
        description, file_format = info.get("description", ""), info.get("fileFormat", "tfrecord")
        if not isinstance(description, str):
            raise ValueError(f"description must be text, not {description!r}")
        if file_format not in _FORMATS:
            raise ValueError(f"fileFormat must be {' or '.join(_FORMATS)}, not {file_format!r}")
        return Prepared(path.parent, description, file_format, sizes)
    except Exception as error:  # whatever a file of any content makes of the lines above
        message = storage.first_line(error)
        raise UserError(
            f"{path} is not a readable tfds dataset_info.json: {message}; {REMEDY}"
        ) from None


@contextlib.contextmanager
def _local(folder: epath.Path, split: str) -> Iterator[epath.Path]:
    """`folder`, or if it is remote a temporary copy of what reading `split` needs."""
    if not storage.is_remote(folder):
        yield folder
        return
    shard = re.compile(rf"-{re.escape(split)}\.")
    files = [path for path in folder.iterdir() if storage.is_file(path)]
    with tempfile.TemporaryDirectory() as copy:
        wanted = (p for p in files if p.suffix in (".json", ".txt") or shard.search(p.name))
        storage.copy(wanted, epath.Path(copy))
        yield epath.Path(copy)


def _builder(folder: epath.Path, *, shown: epath.Path) -> Any:
    """tfds' reader of `folder`, whose features must be those of image classification."""
    path = shown / "features.json"
    with storage.reading(path, REMEDY):
        for name in _class_names(json.loads((folder / path.name).read_text())):
            if not name.startswith("tensorflow_datasets."):  # tfds would import its module
                raise UserError(f"{path}: must name tfds' own classes, not {name!r}; {REMEDY}")
    with storage.reading(f"{shown} (dataset_info.json, features.json)", REMEDY):
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        features = builder.info.features
        named = set(features.keys()) if isinstance(features, tfds.features.FeaturesDict) else set()
    if not {"image", "label"} <= named:
        raise UserError(f"{path}: must have the features image and label; {REMEDY}")
    return builder


def _class_names(tree: Any) -> Iterator[str]:
    """The Python classes that a features.json names, in its newer and its older form."""
    if isinstance(tree, list):
        for value in tree:
            yield from _class_names(value)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("pythonClassName", "python_class_name", "type") and isinstance(value, str):
                yield value
            yield from _class_names(value)


def _data_source_examples(builder: Any, split: str) -> Iterator[tuple[bytes, int]]:
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    info = builder.info.splits[split]
    for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
        reader = array_record_module.ArrayRecordReader(str(path))
        if reader.num_records() != length:  # tfds would read the first ones
            raise ValueError(
                f"dataset_info.json says {length} images for {os.path.basename(path)}, found "
                f"{reader.num_records()}"
            )
        reader.close()
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    for start in range(0, len(source), _CHUNK):
        indices = range(start, min(start + _CHUNK, len(source)))
        yield from ((e["image"], int(e["label"])) for e in source.__getitems__(list(indices)))


def _tf_data_examples(builder: Any, split: str) -> Iterator[tuple[bytes, int]]:
    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # shards one after another
    )
    dataset = dataset.map(lambda e: (e["image"], e["label"])).batch(_CHUNK)
    for images, labels in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        yield from zip(images, labels, strict=True)
