"""Decoding, cropping and resizing of photographs: TensorFlow functions of one encoded image.

JPEG (grey and CMYK too) is cropped while it is decoded; PNG, GIF and BMP are decoded whole. Bytes
that are none of them, or end too early, raise TensorFlow's InvalidArgumentError. Sides, corners
and boxes are vectors in the order (vertical, horizontal), in pixels.
"""

import math
from collections.abc import Callable
from typing import Any

from lpw_jax.data.tfds_source import import_tensorflow

_AREA = (0.08, 1.0)
_RATIO = 4 / 3  # of the longer side to the shorter one, at most
_LOG_RATIO = math.log(_RATIO)
_TRIES = 10
NUM_DRAWS = 4 * _TRIES + 1  # random numbers that an image for training takes


def training_image(encoded: Any, uniform: Any, *, size: int, flip: bool, channels: int = 3) -> Any:
    """A random crop, resized (bilinear, not antialiased), and flipped with probability 1/2.

    Args:
      encoded: scalar string tensor.
      uniform: float64 [NUM_DRAWS] in [0, 1), all that is random.
      size: side of the result in pixels.
      flip: whether to flip at all.
      channels: 3, or 1 for grey ones.

    Returns:
      uint8 [size, size, channels].
    """
    tf = import_tensorflow()
    draws = tf.reshape(uniform[:-1], [_TRIES, 4])
    crop = decode_box(
        encoded,
        lambda sides: random_box(sides, draws),
        dct_method="INTEGER_FAST",
        channels=channels,
    )
    image = tf.cast(tf.round(tf.image.resize(crop, [size, size])), tf.uint8)
    if flip:
        image = tf.cond(uniform[-1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image


def evaluation_image(encoded: Any, *, size: int, resize: int, channels: int = 3) -> Any:
    """The centre of the image after its shorter side became `resize` pixels.

    As torchvision's Resize and CenterCrop make it with Pillow: antialiased bilinear, the longer
    side rounded down, the crop's corner rounded half to even. Only what the crop needs is decoded.

    Args:
      encoded: scalar string tensor.
      size, resize: pixels, size <= resize.
      channels: 3, or 1 for grey ones.

    Returns:
      uint8 [size, size, channels].
    """
    tf = import_tensorflow()
    sides = image_sides(encoded)
    whole = tf.cast(sides, tf.int64)
    resized = tf.cast(whole * resize // tf.reduce_min(whole), tf.float64)
    corner = tf.round((resized - size) / 2)
    step = tf.cast(sides, tf.float64) / resized  # pixels of the source for one of the result
    start, end = corner * step, (corner + size) * step
    reach = tf.maximum(step, 1) + 1  # of the triangle filter, and 1 for rounding
    first = tf.maximum(tf.cast(start - reach, tf.int32), 0)
    last = tf.minimum(tf.cast(tf.math.ceil(end + reach), tf.int32), sides)
    box = tf.concat([first, last - first], axis=0)
    part = decode_box(encoded, lambda _: box, dct_method="INTEGER_ACCURATE", channels=channels)
    image = tf.raw_ops.ScaleAndTranslate(
        images=part[None],
        size=[size, size],
        scale=tf.cast(1 / step, tf.float32),
        translation=tf.cast((tf.cast(first, tf.float64) - start) / step, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.cast(tf.round(tf.ensure_shape(image[0], [size, size, channels])), tf.uint8)


def random_box(sides: Any, uniform: Any) -> Any:
    """torchvision's RandomResizedCrop rule, from random numbers.

    The first of ten tries that fits: its area is uniform over 8 to 100 % of the image's, its ratio
    width / height log-uniform over 3/4 to 4/3, its place uniform. If none fits, the centre of the
    image, cut to the nearest ratio in that range.

    Args:
      sides: int32 [2], of the image.
      uniform: float64 [10, 4] in [0, 1): a try's area, ratio, top and left.

    Returns:
      int32 [4]: corner and sides of the box.
    """
    tf = import_tensorflow()
    full = tf.cast(sides, tf.float64)
    area = (_AREA[0] + (_AREA[1] - _AREA[0]) * uniform[:, :1]) * tf.reduce_prod(full)
    # The ratio's logarithm lies symmetric about 0; half of it each for width and 1 / height.
    half_log = (uniform[:, 1:2] - 0.5) * tf.constant([[-1.0, 1.0]], tf.float64) * _LOG_RATIO
    tries = tf.round(tf.sqrt(area) * tf.exp(half_log))
    fits = tf.reduce_all((tries > 0) & (tries <= full), axis=1)
    chosen = tf.argmax(fits)  # the first of those that fit

    def random():
        side = tries[chosen]
        return tf.concat([tf.floor(uniform[chosen, 2:] * (full - side + 1)), side], axis=0)

    def central():
        side = tf.minimum(full, tf.round(full[::-1] * _RATIO))  # whichever side is too long
        return tf.concat([tf.floor((full - side) / 2), side], axis=0)

    return tf.cast(tf.cond(fits[chosen], random, central), tf.int32)


def image_sides(encoded: Any) -> Any:
    """int32 [2], without decoding if it is a JPEG."""
    tf = import_tensorflow()
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(_decode_other(encoded))[:2],
    )


def decode_box(
    encoded: Any, box: Callable[[Any], Any], *, dct_method: str, channels: int = 3
) -> Any:
    """A part of an image, uint8 [height, width, channels].

    `box` gives its corner and sides (int32 [4]) from those of the image (int32 [2]).
    """
    tf = import_tensorflow()

    def jpeg():  # with the transform that Pillow uses
        part = box(tf.io.extract_jpeg_shape(encoded)[:2])
        return tf.io.decode_and_crop_jpeg(encoded, part, channels=channels, dct_method=dct_method)

    def other():
        image = _decode_other(encoded, channels)
        part = box(tf.shape(image)[:2])
        return tf.slice(image, tf.pad(part[:2], [[0, 1]]), tf.concat([part[2:], [channels]], 0))

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def _decode_other(encoded: Any, channels: int = 3) -> Any:
    tf = import_tensorflow()
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    return tf.ensure_shape(image, [None, None, channels])
