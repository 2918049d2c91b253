"""A network that is not the package's own, small enough for laws to be tested in float64."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lpw_jax.models.layers import BatchNorm

PATTERNS = (".*bn.*", "head/.*")
CLASSES = 5


class TinyNet(nn.Module):
    axis_name: str | None = None
    dtype: Any = jnp.float64

    @nn.compact
    def __call__(self, x, *, train=False):
        layer = dict(dtype=self.dtype, param_dtype=self.dtype)
        norm = dict(train=train, axis_name=self.axis_name, **layer)
        x = nn.Conv(6, (3, 3), strides=2, name="conv1", **layer)(x)
        x = nn.relu(BatchNorm(name="bn1", **norm)(x))
        x = nn.Conv(8, (3, 3), use_bias=False, name="conv2", **layer)(x)
        x = nn.relu(BatchNorm(name="bn2", **norm)(x))
        return nn.Dense(CLASSES, name="head", **layer)(x.mean((1, 2)))


def images(seed: int, *shape: int) -> np.ndarray:
    """float64 [*shape, 8, 8, 3]."""
    return np.random.default_rng(seed).standard_normal((*shape, 8, 8, 3))


def labels(seed: int, *shape: int) -> np.ndarray:
    """int32 of `shape`."""
    return np.random.default_rng(seed).integers(0, CLASSES, shape).astype(np.int32)
