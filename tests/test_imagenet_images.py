"""Crops and sizes of photographs, against torchvision's rules written out and against Pillow."""

import io
import math
import sys

import numpy as np
import pytest
from image_files import png
from imagenet_files import jpeg
from PIL import Image

from lpw_jax.data import imagenet_images
from lpw_jax.data.tfds_source import import_tensorflow

NUM_DRAWS = imagenet_images.NUM_DRAWS
SIDES = [(300, 500), (500, 333), (64, 64), (1, 1), (10, 1000), (1000, 10), (200, 150), (3, 2)]


def torchvision_box(height, width, uniform):
    """RandomResizedCrop.get_params, with its random numbers from outside."""
    for area, ratio, top, left in uniform:
        target = height * width * (0.08 + 0.92 * area)
        aspect = math.exp(math.log(3 / 4) + ratio * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1)), h, w
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def bilinear(image, size):
    """Pixel centres at half-integers, not antialiased, in float64."""

    def weights(length):
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(np.floor(place).astype(int), max(length - 2, 0))
        matrix = np.zeros((size, length))
        matrix[np.arange(size), low] = 1 - (place - low)
        matrix[np.arange(size), np.minimum(low + 1, length - 1)] += place - low
        return matrix

    height, width, _ = image.shape
    return np.einsum("ih,jw,hwc->ijc", weights(height), weights(width), image.astype(float))


def pillow(encoded, *, size, resize):
    """Resize and CenterCrop of torchvision's reference evaluation."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    short, long = sorted(image.size)
    sides = resize, int(resize * long / short)
    image = image.resize(
        sides if image.width <= image.height else sides[::-1], Image.Resampling.BILINEAR
    )
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).astype(int)


@pytest.fixture(scope="module")
def tf():
    """TensorFlow, which takes seconds to import and need not be in every worker."""
    return import_tensorflow()


def test_tensorflow_is_imported_without_keras(tf):
    assert "keras" not in sys.modules and tf.__version__


@pytest.fixture(scope="module")
def box(tf):
    return tf.function(
        imagenet_images.random_box,
        input_signature=[tf.TensorSpec([2], tf.int32), tf.TensorSpec([10, 4], tf.float64)],
    )


@pytest.fixture(scope="module")
def training(tf):
    """(encoded, uniform, flip) -> image of 32 x 32."""
    both = [
        tf.function(
            lambda encoded, uniform, flip=flip: imagenet_images.training_image(
                encoded, uniform, size=32, flip=flip
            ),
            input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([NUM_DRAWS], tf.float64)],
        )
        for flip in (False, True)
    ]
    return lambda encoded, uniform, flip: both[flip](encoded, uniform).numpy()


@pytest.fixture(scope="module")
def evaluation(tf):
    """encoded -> image, of 32 x 32 from a shorter side of 40."""
    one = tf.function(
        lambda encoded: imagenet_images.evaluation_image(encoded, size=32, resize=40),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    return lambda encoded: one(encoded).numpy().astype(int)


@pytest.mark.parametrize("height, width", SIDES)
def test_boxes_follow_torchvisions_rule(box, height, width):
    draws = np.random.default_rng([height, width]).random((60, 10, 4))
    for uniform in draws:
        found = box(np.array([height, width], np.int32), uniform).numpy()
        assert tuple(found) == torchvision_box(height, width, uniform)


def test_long_images_have_no_box_that_fits_and_keep_their_centre(box):
    uniform = np.random.default_rng(0).random((10, 4))
    assert tuple(box(np.array([10, 1000], np.int32), uniform).numpy()) == (0, 493, 10, 13)
    assert tuple(box(np.array([1000, 10], np.int32), uniform).numpy()) == (493, 0, 13, 10)


def test_areas_and_ratios_are_spread_as_stated(box):
    sides = np.array([4000, 4000], np.int32)
    draws = np.random.default_rng(1).random((2000, 10, 4))
    boxes = np.array([box(sides, uniform).numpy() for uniform in draws], float)
    area, ratio = boxes[:, 2] * boxes[:, 3] / 4000**2, np.log(boxes[:, 3] / boxes[:, 2])
    assert 0.0799 < area.min() < 0.09 and 0.95 < area.max() <= 1
    # Boxes larger than the image are drawn again, so large areas are a little rarer than others.
    assert 0.48 < area.mean() < 0.55 and abs(ratio.mean()) < 0.02
    assert 0.27 < np.abs(ratio).max() < math.log(4 / 3) + 1e-3


def test_a_training_image_is_its_box_resized(training):
    pixels = np.random.default_rng(2).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for uniform in np.random.default_rng(5).random((20, NUM_DRAWS)):
        top, left, height, width = torchvision_box(70, 90, uniform[:-1].reshape(10, 4))
        wanted = bilinear(pixels[top : top + height, left : left + width], 32)
        found = training(png(pixels), uniform, False)
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() < 0.51


def test_half_of_the_training_images_are_mirrored(training):
    encoded = jpeg(np.random.default_rng(3))
    mirrored = 0
    for uniform in np.random.default_rng(6).random((60, NUM_DRAWS)):
        plain, found = training(encoded, uniform, False), training(encoded, uniform, True)
        assert (found == plain).all() or (found == plain[:, ::-1]).all()
        mirrored += (found != plain).any()
    assert 15 < mirrored < 45


@pytest.mark.parametrize("sides", [(48, 97), (300, 500), (33, 40), (20, 30)])
def test_evaluation_images_are_pillows(evaluation, sides):
    rng = np.random.default_rng(sides)
    for _ in range(8):
        encoded = jpeg(rng, sides)
        difference = np.abs(evaluation(encoded) - pillow(encoded, size=32, resize=40))
        assert difference.mean() < 0.5 and difference.max() <= 3


def test_a_resized_png_is_pillows_to_a_rounding(evaluation):
    rng = np.random.default_rng(4)
    for height, width in [(83, 120), (120, 83), (57, 41), (40, 40), (500, 61), (25, 31)]:
        encoded = png(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        difference = np.abs(evaluation(encoded) - pillow(encoded, size=32, resize=40))
        assert difference.max() <= 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(training, evaluation, mode):
    encoded = jpeg(np.random.default_rng(5), mode=mode)
    assert training(encoded, np.full(NUM_DRAWS, 0.5), True).shape == (32, 32, 3)
    difference = np.abs(evaluation(encoded) - pillow(encoded, size=32, resize=40))
    assert difference.mean() < (1 if mode == "L" else 4)  # ways to convert CMYK differ


def test_a_part_is_that_of_the_whole_image_but_for_the_colours_of_its_edge(tf):
    encoded = jpeg(np.random.default_rng(6), (200, 201))
    whole = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    for box in [(0, 0, 200, 200), (13, 57, 100, 31), (199, 199, 1, 1)]:
        top, left, height, width = box
        part = imagenet_images.decode_box(
            encoded, lambda sides, box=box: box, dct_method="INTEGER_ACCURATE"
        )
        difference = np.abs(
            part.numpy() - whole[top : top + height, left : left + width].astype(int)
        )
        assert not difference[:, 1:-1].any() and difference.max() <= 4  # colours are interpolated


@pytest.mark.parametrize("cut", [lambda b: b[: len(b) // 2], lambda b: b"text", lambda b: b""])
def test_what_is_no_whole_image_is_an_error(tf, training, evaluation, cut):
    encoded = cut(jpeg(np.random.default_rng(7)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        training(encoded, np.full(NUM_DRAWS, 0.5), True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluation(encoded)
