"""Random erasing (Zhong et al., 2017): one rectangle of an image, of random size, is set to 0.

As in `augment`, an example's random numbers are a function of its key alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

AREA = 0.02, 0.33  # of the rectangle, as a share of the image's; uniform
RATIO = 0.3, 3.3  # of its height to its width; log-uniform
TRIALS = 10  # sizes, the first of which that fits is taken; if none does, nothing is erased
_PURPOSE = 1  # folded into the key, from which `augment.draw` draws, too


class Rectangles(NamedTuple):
    """What is erased of each example, int32 [B] in pixels; height and width 0 for nothing."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


def draw(keys: jax.Array, *, probability: float, height: int, width: int) -> Rectangles:
    """Draws the rectangles of a batch of images of height x width pixels from `keys` [B]."""

    def scaled(uniform, limits):
        low, high = (jnp.asarray(limit, jnp.float32) for limit in limits)
        return low + uniform * (high - low)

    def one(key: jax.Array) -> Rectangles:
        sizes, places = jax.random.split(jax.random.fold_in(key, _PURPOSE))
        # float32 throughout: other types would consume other bits.
        uniform = jax.random.uniform(sizes, (2 * TRIALS + 1,), jnp.float32)
        area = scaled(uniform[:TRIALS], AREA) * jnp.float32(height * width)
        ratio = jnp.exp(scaled(uniform[TRIALS:-1], jnp.log(jnp.array(RATIO, jnp.float32))))
        heights, widths = (
            jnp.round(jnp.sqrt(square)).astype(jnp.int32) for square in (area * ratio, area / ratio)
        )
        fits = (heights < height) & (widths < width)
        first = jnp.argmax(fits)
        erased = fits.any() & (uniform[-1] < jnp.float32(probability))
        h, w = (jnp.where(erased, size[first], jnp.int32(0)) for size in (heights, widths))
        limits = jnp.stack([jnp.int32(height) - h, jnp.int32(width) - w]) + jnp.int32(1)
        top, left = jax.random.randint(places, (2,), 0, limits, dtype=jnp.int32)
        return Rectangles(top, left, h, w)

    return jax.vmap(one)(keys)


def erase(images: jax.Array, rectangles: Rectangles) -> jax.Array:
    """Images [B, H, W, C] with 0 in their rectangles."""
    rows = _covered(rectangles.top, rectangles.height, images.shape[1])[:, :, None, None]
    columns = _covered(rectangles.left, rectangles.width, images.shape[2])[:, None, :, None]
    return jnp.where(rows & columns, jnp.zeros((), images.dtype), images)


def _covered(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """bool [B, size]: the pixels of one axis from `start` on."""
    offset = jnp.arange(size, dtype=jnp.int32)[None, :] - start[:, None]
    return (offset >= 0) & (offset < length[:, None])
