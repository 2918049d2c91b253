"""Layers shared by every network: batch norm with PyTorch's statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BATCH_NORM_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's statistics.

    In training mode it normalises with the biased variance of the batch and writes the batch's own
    mean and *unbiased* variance, n / (n - 1), into `batch_stats`; folding them into running
    averages is the caller's (`state.update_running`), which lets training (momentum 0.1) and the
    re-estimation after SWA (cumulative mean) share one layer. In evaluation mode it normalises
    with the statistics in `batch_stats`.

    Attributes:
      train: which of the two modes.
      axis_name: pmap axis over whose devices the batch is split, or None. Statistics are those of
        the whole batch, so that results do not depend on the number of devices.
      dtype: dtype of the output. Statistics and the affine map stay in `param_dtype`.
      param_dtype: dtype of scale, shift and statistics.
    """

    train: bool
    axis_name: str | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x` [..., C]; returns the same shape in `dtype`."""
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, features, self.param_dtype)
        stats = [
            self.variable("batch_stats", name, init, features, self.param_dtype)
            for name, init in (("mean", jnp.zeros), ("var", jnp.ones))
        ]
        x = x.astype(self.param_dtype)
        if self.train:
            mean, var, count = _batch_moments(x, self.axis_name)
            stats[0].value, stats[1].value = mean, var * (count / (count - 1))
        else:
            mean, var = stats[0].value, stats[1].value
        scale = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        shift = bias - mean * scale
        return (x * _as_row(scale, x) + _as_row(shift, x)).astype(self.dtype)


def _batch_moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array, int]:
    """Mean and biased variance per channel of the whole batch, and the values per channel."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]

    def mean_over_batch(value):
        value = value.mean(axes)
        return value if axis_name is None else jax.lax.pmean(value, axis_name)

    if axis_name is not None:
        count *= jax.lax.axis_size(axis_name)
    if count < 2:
        raise ValueError(f"BatchNorm: training needs two values per channel, got shape {x.shape}")
    mean = mean_over_batch(x)
    return mean, mean_over_batch(jnp.square(x - _as_row(mean, x))), count


def _as_row(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A [C] vector with the rank of `x`, so that broadcasting is explicit."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
