"""Random crop, flip, cutout, erasing and normalisation, inside the jitted step.

An example's random bits are a function of (seed key, step, its index in the dataset), so the
result depends neither on the batch it is in nor on the number of devices or hosts. `draw` makes
the random numbers, `transform` applies them; `augment` does both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.data import erasing


class Draws(NamedTuple):
    """The random numbers of each example, all of shape [B]."""

    top: jax.Array  # int32, first row of the crop in the padded image, 0..2*crop_padding
    left: jax.Array  # int32, first column, likewise
    flip: jax.Array  # bool
    cutout_y: jax.Array  # int32, centre row of the square, 0..H-1
    cutout_x: jax.Array  # int32, centre column, 0..W-1


def example_keys(key: jax.Array, step: jax.Array | int, index: jax.Array) -> jax.Array:
    """One typed key per example, a function of (key, step, index) only.

    Args:
      key: a typed key (`jax.random.key`) made from the seed.
      step: minibatch counter, integer scalar.
      index: int32 [...], the examples' positions in the dataset.

    Returns:
      Keys of the shape of `index`.
    """
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return fold_in(jax.random.fold_in(key, step), index.reshape(-1)).reshape(index.shape)


def draw(keys: jax.Array, *, crop_padding: int, height: int, width: int) -> Draws:
    """Draws the random numbers of a batch from `keys` [B]."""

    def one(key: jax.Array) -> Draws:
        limits = (2 * crop_padding + 1, 2 * crop_padding + 1, 2, height, width)
        # Integers throughout: a float draw would consume other bits under 64-bit types.
        top, left, flip, y, x = jax.random.randint(
            key, (5,), 0, jnp.asarray(limits, jnp.int32), dtype=jnp.int32
        )
        return Draws(top, left, flip == 1, y, x)

    return jax.vmap(one)(keys)


def transform(
    draws: Draws,
    images: jax.Array,
    *,
    crop_padding: int,
    flip: bool,
    cutout: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Applies given random numbers; arguments and result as in `augment`."""
    _, height, width, channels = images.shape
    if crop_padding:
        border = (crop_padding, crop_padding)
        padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
        zero = jnp.zeros((), jnp.int32)

        def crop(image, top, left):
            return jax.lax.dynamic_slice(image, (top, left, zero), (height, width, channels))

        images = jax.vmap(crop)(padded, draws.top, draws.left)
    if flip:
        images = jnp.where(draws.flip[:, None, None, None], images[:, :, ::-1], images)
    images = normalize(images, mean=mean, std=std, dtype=dtype)
    if cutout:
        rows = _covered(draws.cutout_y, height, cutout)[:, :, None, None]
        columns = _covered(draws.cutout_x, width, cutout)[:, None, :, None]
        images = jnp.where(rows & columns, jnp.zeros((), dtype), images)
    return images


def augment(
    keys: jax.Array,
    images: jax.Array,
    *,
    crop_padding: int,
    flip: bool,
    cutout: int,
    random_erasing: float = 0.0,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Augments and normalises a batch as the reference does for CIFAR.

    Pads with black, crops HxW at an offset uniform over 0..2*crop_padding in each direction,
    flips left-right with probability 1/2, normalises, then sets one square and perhaps a rectangle
    of random size to 0.

    Args:
      keys: [B] from `example_keys`.
      images: uint8 [B, H, W, C].
      crop_padding: pixels on each side; 0 switches cropping off.
      flip: whether to flip at all.
      cutout: side of the square in pixels, 0 = off. Its centre (y, x) is uniform over the image
        pixels; it covers [y - side//2, y - side//2 + side) and so on, clipped at the border.
      random_erasing: probability of the rectangle, as in `erasing`.
      mean, std: per channel, on the scale 0..1.
      dtype: of the result.

    Returns:
      [B, H, W, C] of `dtype`.
    """
    height, width = images.shape[1:3]
    images = transform(
        draw(keys, crop_padding=crop_padding, height=height, width=width),
        images,
        crop_padding=crop_padding,
        flip=flip,
        cutout=cutout,
        mean=mean,
        std=std,
        dtype=dtype,
    )
    if random_erasing:
        rectangles = erasing.draw(keys, probability=random_erasing, height=height, width=width)
        images = erasing.erase(images, rectangles)
    return images


def normalize(
    images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...], dtype: jnp.dtype
) -> jax.Array:
    """(images / 255 - mean) / std of uint8 [..., C], computed in float32 at least.

    `mean` and `std` are per channel on the scale 0..1. Of `dtype`, exact to its rounding.
    """
    work = np.promote_types(dtype, np.float32)  # jnp's refuses where promotion is strict
    shape = (1,) * (images.ndim - 1) + (len(mean),)
    mean, std = (jnp.asarray(value, work).reshape(shape) for value in (mean, std))
    return ((images.astype(work) / jnp.asarray(255, work) - mean) / std).astype(dtype)


def _covered(centre: jax.Array, size: int, side: int) -> jax.Array:
    """bool [B, size]: the pixels of one axis that a square of `side` pixels covers."""
    offset = jnp.arange(size, dtype=jnp.int32)[None, :] - centre[:, None] + side // 2
    return (offset >= 0) & (offset < side)
