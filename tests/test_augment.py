"""Augmentation against a slow numpy version fed the same random numbers; keys, orders, laws."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
from jax import jit
from PIL import Image

from lpw_jax.data import epoch_order, load_dataset
from lpw_jax.data.augment import Draws, augment, draw, example_keys, normalize, transform

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PADDING = 4
SETTINGS = {"mean": MEAN, "std": STD, "dtype": jnp.float32}


def random_images(n, height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def keys(n, step=0, seed=0):
    return example_keys(jax.random.key(seed), step, jnp.arange(n, dtype=jnp.int32))


def augmented(keys, images, *, crop_padding=4, flip=True, cutout=16):
    return augment(keys, images, crop_padding=crop_padding, flip=flip, cutout=cutout, **SETTINGS)


def slow(draws, images, *, crop_padding, flip, cutout):
    """Pixel by pixel, from the description of the reference's input, in float64."""
    batch, height, width, channels = images.shape
    out = np.zeros(images.shape)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                cropped_x = width - 1 - x if flip and draws.flip[b] else x
                row = y + int(draws.top[b]) - crop_padding
                column = cropped_x + int(draws.left[b]) - crop_padding
                inside = 0 <= row < height and 0 <= column < width
                for c in range(channels):
                    value = images[b, row, column, c] if inside else 0
                    out[b, y, x, c] = (value / 255 - MEAN[c]) / STD[c]
        if cutout:
            top, left = (int(v[b]) - cutout // 2 for v in (draws.cutout_y, draws.cutout_x))
            rows = slice(max(top, 0), max(top + cutout, 0))
            out[b, rows, max(left, 0) : max(left + cutout, 0)] = 0
    return out


def make_draws(rows):
    top, left, flip, y, x = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    return Draws(top, left, flip.astype(bool), y, x)


BORDERS = [  # top, left, flip, cutout_y, cutout_x in images of 12 x 10
    (0, 0, 0, 0, 0),
    (0, 2 * PADDING, 1, 0, 9),
    (2 * PADDING, 0, 0, 11, 0),
    (2 * PADDING, 2 * PADDING, 1, 11, 9),
    (PADDING, PADDING, 0, 6, 5),
    (PADDING, PADDING, 1, 3, 7),
]


def test_border_cases_equal_the_slow_version(float64):
    images, draws = random_images(len(BORDERS), 12, 10), make_draws(BORDERS)
    cases = [
        {"crop_padding": PADDING, "flip": flip, "cutout": cutout}
        for flip in (False, True)
        for cutout in (0, 1, 4, 5, 40)
    ]

    @jit
    def fast(draws, images):
        shared = {"mean": MEAN, "std": STD, "dtype": jnp.float64}
        return [transform(draws, images, **settings, **shared) for settings in cases]

    for settings, found in zip(cases, fast(draws, images), strict=True):
        expected = slow(draws, images, **settings)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14, err_msg=str(settings))


def test_random_batches_equal_the_slow_version():
    images = random_images(16, 12, 10)
    cases = [
        {"crop_padding": 4, "flip": True, "cutout": 8},
        {"crop_padding": 1, "flip": False, "cutout": 3},
        {"crop_padding": 0, "flip": True, "cutout": 0},
    ]

    @jit
    def fast(images):
        return [
            (
                draw(keys(16), crop_padding=settings["crop_padding"], height=12, width=10),
                augmented(keys(16), images, **settings),
            )
            for settings in cases
        ]

    for settings, (draws, found) in zip(cases, jax.device_get(fast(images)), strict=True):
        expected = slow(draws, images, **settings)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=str(settings))


def test_an_even_cutout_covers_half_a_side_on_each_side_of_its_centre():
    draws = make_draws([(0, 0, 0, 20, 3)])
    cut = jit(lambda i: transform(draws, i, crop_padding=0, flip=False, cutout=16, **SETTINGS))
    out = np.asarray(cut(random_images(1)))
    covered = np.argwhere((out == 0).all(axis=(0, 3)))
    np.testing.assert_array_equal(covered.min(axis=0), [12, 0])
    np.testing.assert_array_equal(covered.max(axis=0), [27, 10])
    assert len(covered) == 16 * 11


@jit
def normalized(images):
    return normalize(images, **SETTINGS)


def test_without_augmentation_only_normalisation_remains():
    images = random_images(3)
    plain = jit(lambda i: augmented(keys(3), i, crop_padding=0, flip=False, cutout=0))
    np.testing.assert_array_equal(plain(images), normalized(images))


def test_normalisation_in_float64_is_exact_to_rounding(float64):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    expected = (images / 255 - np.array(MEAN)) / np.array(STD)
    result = jit(lambda i: normalize(i, mean=MEAN, std=STD, dtype=jnp.float64))(images)
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-15)


def test_bfloat16_is_the_rounded_float32_result():
    images = random_images(3)
    half = jit(lambda i: normalize(i, mean=MEAN, std=STD, dtype=jnp.bfloat16))(images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, np.asarray(normalized(images)).astype(jnp.bfloat16))


def test_offsets_flips_and_centres_are_uniform_and_hit_every_value():
    n = 20_000
    draws = jit(lambda: draw(keys(n), crop_padding=PADDING, height=32, width=16))()
    limits = {"top": 9, "left": 9, "flip": 2, "cutout_y": 32, "cutout_x": 16}
    for name, values in limits.items():
        counts = np.bincount(np.asarray(getattr(draws, name)).astype(int), minlength=values)
        assert len(counts) == values, name
        chi_square = ((counts - n / values) ** 2 / (n / values)).sum()
        assert chi_square < values - 1 + 5 * np.sqrt(2 * values), (name, chi_square)
    columns = np.stack([np.asarray(v).astype(float) for v in draws])
    assert np.abs(np.corrcoef(columns) - np.eye(5)).max() < 0.03


def of_examples(indices, images):
    """Augmented in step 0 with seed 0."""
    return augmented(example_keys(jax.random.key(0), 0, indices), images)


augmented_examples = jit(of_examples)  # used with few shapes, each of which is compiled


def test_an_example_is_augmented_alone_as_in_any_batch():
    images, indices = random_images(8), np.arange(8, dtype=np.int32)
    batch = np.asarray(augmented_examples(indices, images))
    np.testing.assert_array_equal(augmented_examples(indices[5:6], images[5:6])[0], batch[5])
    backwards = np.asarray(augmented_examples(indices[::-1], images[::-1]))
    np.testing.assert_array_equal(backwards[::-1], batch)


def test_keys_depend_on_seed_step_and_example_only():
    of = jit(
        lambda seed, step, index: jax.random.key_data(
            example_keys(jax.random.key(seed), step, index)
        )
    )
    everyone = np.arange(50, dtype=np.int32)
    data = {
        (seed, step): np.asarray(of(seed, step, everyone)) for seed in (0, 1) for step in (0, 1, 2)
    }
    everything = np.concatenate(list(data.values()))
    assert len(np.unique(everything, axis=0)) == len(everything)
    index = np.array([[7, 3], [40, 0]], np.int32)
    folded = np.asarray(of(1, 2, index))
    assert folded.shape[:2] == (2, 2)
    np.testing.assert_array_equal(folded, data[1, 2][index])


def test_random_numbers_do_not_depend_on_64_bit_types():
    def drawn():
        return draw(keys(64, step=5), crop_padding=4, height=32, width=32)

    before = jit(drawn)()
    with jax.enable_x64(True):
        after = jit(drawn)()
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_members_under_vmap_equal_a_loop_inside_jit():
    images = random_images(24).reshape(3, 8, 32, 32, 3)
    indices = np.arange(24, dtype=np.int32).reshape(3, 8)
    stacked = jit(jax.vmap(of_examples))(indices, images)
    looped = [augmented_examples(*member) for member in zip(indices, images, strict=True)]
    np.testing.assert_allclose(stacked, np.stack(looped), rtol=0, atol=1e-6)


def test_the_epoch_order_is_a_permutation_that_depends_on_seed_and_epoch():
    order = epoch_order(3, 7, 1_000)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(1_000))
    np.testing.assert_array_equal(order, epoch_order(3, 7, 1_000))
    for other in (epoch_order(3, 8, 1_000), epoch_order(4, 7, 1_000), epoch_order(7, 3, 1_000)):
        assert (order == other).mean() < 0.02


def test_the_epoch_order_never_changes_between_versions_and_platforms():
    assert epoch_order(0, 1, 10).tolist() == [7, 4, 5, 1, 9, 8, 6, 2, 0, 3]


def test_show_batch_writes_stored_images_over_augmented_ones(tmp_path):
    root = pathlib.Path(__file__).resolve().parents[1]
    script = runpy.run_path(str(root / "scripts" / "show_batch.py"))
    output = tmp_path / "batch.png"
    script["main"](
        ["--config", str(root / "configs" / "digits_bn.py"), "--output", str(output)]
        + ["--columns", "3", "--steps", "2", "--scale", "1", "--config.train.cutout=8"]
    )
    grid = np.asarray(Image.open(output))
    digits = load_dataset("digits", data_dir="")
    order = epoch_order(0, 1, len(digits.train_labels))
    assert grid.shape == (3 * 32, 3 * 32, 3)
    np.testing.assert_array_equal(grid[:32, 32:64], digits.train_images[order[1]])
    assert (grid[32:64] != grid[64:]).any() and (grid[:32] != grid[32:64]).any()
