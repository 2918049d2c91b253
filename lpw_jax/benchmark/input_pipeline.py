"""Images per second of the streamed training input, beside bare tf.data pipelines."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lpw_jax import experiment
from lpw_jax.data import imagenet_images
from lpw_jax.data.on_disk import OnDisk
from lpw_jax.data.tfds_source import import_tensorflow
from lpw_jax.errors import UserError

BATCH, BATCHES = 128, 16
_STORED = 1000  # encoded images, at most, that the bare pipeline holds in memory


def measure(config: ConfigDict, *, repeats: int) -> dict[str, Any]:
    """All in turn, on the same images, without a network; medians over `repeats` rounds.

    The bare pipelines hold the encoded images in memory and decode, crop, resize and flip them.
    One is given boxes drawn before by our rule, so that it does the same work. The other draws
    TensorFlow's own, whose boxes have less area: `mean_areas`, as fractions of the image.

    Raises:
      UserError: the training images of `config` are not streamed.
    """
    dataset = experiment.load_dataset(config)
    if not isinstance(dataset, OnDisk):
        raise UserError(f"{dataset.name} lives on the devices, nothing is streamed")
    source = experiment.train_source(config, dataset)
    size, encoded = config.data.image_size, _encoded_images(dataset)
    shape = (BATCHES, BATCH)
    indices = np.resize(np.arange(len(encoded)), shape)
    boxes = {name: _boxes(encoded, rule) for name, rule in _RULES.items()}
    same = boxes["ours"][0]
    rates: dict[str, list[float]] = {"ours": [], "same_boxes": [], "tensorflow": []}
    for number in range(repeats + 1):
        contenders = {
            "ours": lambda epoch=number: source.feeds(indices, epoch=epoch),
            "same_boxes": lambda: _bare(encoded, same, size),
            "tensorflow": lambda: _bare(encoded, None, size),
        }
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            rate = _images_per_second(iter(contenders[name]()))
            if number:  # the first round warms up
                rates[name].append(rate)
    return {
        "images": len(encoded),
        "image_size": size,
        "cpus": os.cpu_count(),
        "mean_areas": {name: area for name, (_, area) in boxes.items()},
        "images_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "ratios": {
            name: statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True))
            for name in ("same_boxes", "tensorflow")
        },
        "rounds": rates,
    }


def _encoded_images(dataset: OnDisk) -> list[bytes]:
    tf, records = import_tensorflow(), dataset.train_records
    numbers = range(min(len(records), _STORED))
    examples = (tf.train.Example.FromString(records[i]).features.feature for i in numbers)
    encoded = (example["image"].bytes_list.value[0] for example in examples)
    return [image for image in encoded if image.startswith(b"\xff\xd8\xff")]  # JPEG


def _our_box(sides: Any) -> Any:
    tf = import_tensorflow()
    return imagenet_images.random_box(sides, tf.random.uniform([10, 4], dtype=tf.float64))


def _tensorflow_box(sides: Any) -> Any:
    """What a user would write."""
    tf = import_tensorflow()
    corner, box, _ = tf.image.sample_distorted_bounding_box(
        tf.pad(sides, [[0, 1]], constant_values=3),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([corner[:2], box[:2]], axis=0)


_RULES = {"ours": _our_box, "tensorflow": _tensorflow_box}


def _boxes(encoded: Sequence[bytes], rule: Callable[[Any], Any]) -> tuple[np.ndarray, float]:
    """A box for each image of a measurement, [N, 4], and their mean part of the image's area."""
    tf = import_tensorflow()

    def box(data):
        sides = tf.io.extract_jpeg_shape(data)[:2]
        return rule(sides), sides

    images = tf.data.Dataset.from_tensor_slices(encoded).repeat().take(BATCH * BATCHES)
    boxes, sides = next(images.map(box).batch(BATCH * BATCHES).as_numpy_iterator())
    return boxes, float((boxes[:, 2:] / sides).prod(axis=1).mean())


def _bare(encoded: Sequence[bytes], boxes: np.ndarray | None, image_size: int) -> Iterator[Any]:
    """Batches of crops at `boxes`, or at TensorFlow's own."""
    tf = import_tensorflow()

    def image(data, *box):
        window = box[0] if box else _tensorflow_box(tf.io.extract_jpeg_shape(data)[:2])
        crop = tf.io.decode_and_crop_jpeg(data, window, channels=3)
        crop = tf.image.resize(crop, [image_size, image_size])
        return tf.cast(tf.image.random_flip_left_right(crop), tf.uint8)

    data = tf.data.Dataset.from_tensor_slices(encoded).repeat().take(BATCH * BATCHES)
    if boxes is not None:
        data = tf.data.Dataset.zip(data, tf.data.Dataset.from_tensor_slices(boxes))
    data = data.map(image, num_parallel_calls=tf.data.AUTOTUNE)
    return data.batch(BATCH, drop_remainder=True).prefetch(2).as_numpy_iterator()


def _images_per_second(batches: Iterator[Any]) -> float:
    """After the first batch, which includes building the pipeline."""
    next(batches)
    start = time.perf_counter()
    count = sum(1 for _ in itertools.islice(batches, BATCHES))
    return count * BATCH / (time.perf_counter() - start)
