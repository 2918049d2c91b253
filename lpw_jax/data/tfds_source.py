"""Image classification splits out of a tensorflow-datasets folder, as arrays.

array_record is read without TensorFlow; tfrecord goes through tf.data. Either way the encoded
images come out and Pillow decodes them, so pixels do not depend on the storage format.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from lpw_jax.data.images import decode_image, stack
from lpw_jax.data.tfds_prepared import REMEDY, Prepared
from lpw_jax.errors import UserError
from lpw_jax.files import limits, storage

_CHUNK = 1000


def known_names() -> list[str]:
    """The names of tfds' own data sets; takes a moment."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


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
        with _without_keras():
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


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """TensorFlow imports Keras, for two seconds, and does without where there is none."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop("keras", None)


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
        for name in _class_names(limits.read_json(folder / path.name)):
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
