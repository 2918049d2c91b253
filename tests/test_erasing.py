"""Random erasing against a loop over pixels, and the distributions of its rectangles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from short_run import DIGITS, subset

from lpw_jax import experiment
from lpw_jax.config import load_config
from lpw_jax.data import augment, erasing
from lpw_jax.errors import ConfigError

H, W = 32, 24


def keys(n, step=0):
    return augment.example_keys(jax.random.key(0), step, jnp.arange(n, dtype=jnp.int32))


def drawn(n, probability=0.5):
    rectangles = jit(lambda: erasing.draw(keys(n), probability=probability, height=H, width=W))()
    return erasing.Rectangles(*map(np.asarray, rectangles))


def test_a_rectangle_is_set_to_zero_and_nothing_else():
    images = np.random.default_rng(0).standard_normal((60, H, W, 3)).astype(np.float32)
    rectangles, expected = drawn(60), images.copy()
    for image, top, left, height, width in zip(expected, *rectangles, strict=True):
        for y in range(top, top + height):
            for x in range(left, left + width):
                image[y, x] = 0  # an index beyond the image would raise
    np.testing.assert_array_equal(jit(erasing.erase)(images, rectangles), expected)


def uniform_distance(values):
    """Kolmogorov's distance from the uniform distribution, times the root of the number."""
    values = np.sort(values)
    return np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max() * len(values) ** 0.5


def test_sizes_and_places_have_the_published_distributions():
    n = 20_000
    rectangles = drawn(n)
    erased = rectangles.height > 0
    assert abs(erased.mean() - 0.5) < 4 * 0.5 / n**0.5
    assert ((rectangles.width > 0) == erased).all()
    height, width = rectangles.height[erased].astype(float), rectangles.width[erased].astype(float)
    assert (height < H).all() and (width < W).all()

    # The loop: sizes are drawn until one fits, in float64 and from another generator.
    random, expected = np.random.default_rng(1), []
    while len(expected) < n:
        area = random.uniform(0.02, 0.33) * H * W
        ratio = np.exp(random.uniform(np.log(0.3), np.log(3.3)))
        h, w = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if h < H and w < W:
            expected.append((h, w))
    loop_height, loop_width = np.array(expected, float).T
    for ours, theirs in (
        (height, loop_height), (width, loop_width), (height * width, loop_height * loop_width),
        (height / width, loop_height / loop_width),
    ):  # fmt: skip
        grid = np.unique(theirs)
        shares = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (ours, theirs)]
        assert np.abs(shares[0] - shares[1]).max() < 2.2 * (1 / len(ours) + 1 / n) ** 0.5

    noise = np.random.default_rng(2)
    for start, size, side in (("top", height, H), ("left", width, W)):
        places = side - size + 1
        spread = (getattr(rectangles, start)[erased] + noise.random(len(size))) / places
        assert spread.min() >= 0 and spread.max() <= 1 and uniform_distance(spread) < 2.2


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0), (1.0, 1)])
def test_none_and_all_are_erased(probability, share):
    assert (drawn(200, probability).height > 0).mean() == share


@pytest.mark.slow
def test_rectangles_depend_on_the_key_alone_and_not_on_64_bit_types():
    def of(keys):
        return erasing.draw(keys, probability=0.5, height=H, width=W)

    before = jit(lambda: of(keys(64)))()
    other = jit(lambda: of(keys(64, step=1)))()
    alone = jit(lambda: of(keys(64)[7:8]))()
    with jax.enable_x64(True):
        after = jit(lambda: of(keys(64)))()
    for a, b, single in zip(before, after, alone, strict=True):
        assert a.dtype == b.dtype == jnp.int32
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[7:8], single)
    assert (np.asarray(before.top) != np.asarray(other.top)).any()


def minibatch(*fields):
    config = load_config(DIGITS, [f"--config.{field}" for field in fields])
    source = experiment.train_source(config, subset(40, size=32))
    batch = jit(source.batch)(source.resident, np.arange(40, dtype=np.int32), np.int32(3))
    return np.asarray(batch["image"])


def test_a_run_erases_after_normalisation_with_the_configured_probability():
    plain, erased = minibatch("train.cutout=0"), minibatch("train.random_erasing=0.5")
    differs = ~np.isclose(plain, erased, atol=1e-5)  # two programs may round differently
    assert 8 < differs.any(axis=(1, 2, 3)).sum() < 32
    assert (erased[differs] == 0).all()


@pytest.mark.parametrize(
    ("config", "value", "rule"),
    [
        (DIGITS, -0.1, "must be >= 0"),
        (DIGITS, 1.5, "must be 0 .off. to 1"),
        (DIGITS, "nan", "must be finite"),
        ("configs/imagenet_resnet50.py", 0.5, "must be 0 for imagenet2012"),
    ],
)
def test_impossible_probabilities_are_refused(config, value, rule):
    with pytest.raises(ConfigError, match=f"^train.random_erasing = {value}: {rule}"):
        load_config(config, [f"--config.train.random_erasing={value}"])
