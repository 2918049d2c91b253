"""What ResNet and DenseNet of torchvision have in common: kinds of layers, the stem, the head."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.models.layers import BatchNorm

# Of PyTorch's linear layers: uniform within 1 / sqrt(inputs).
_linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def layers(
    model: nn.Module, *, train: bool, kernel_init: Callable[..., jax.Array]
) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """Convolutions without bias and batch norms, as the attributes of `model` ask for them."""
    param_dtype = np.promote_types(model.dtype, np.float32)
    conv = functools.partial(
        nn.Conv,
        use_bias=False,
        kernel_init=kernel_init,
        precision=model.precision,
        conv_general_dilated=model.conv_general_dilated,
        dtype=model.dtype,
        param_dtype=param_dtype,
    )
    norm = functools.partial(
        BatchNorm,
        train=train,
        axis_name=model.axis_name,
        dtype=model.dtype,
        param_dtype=param_dtype,
    )
    return conv, norm


def stem(
    images: jax.Array, features: int, *, conv: Callable[..., Any], norm: Callable[..., Any]
) -> jax.Array:
    """Images [B, H, W, 3] to [B, H / 4, W / 4, features]: conv_in, bn_in, ReLU, max-pool."""
    x = conv(features, (7, 7), 2, padding=3, name="conv_in")(images)
    x = nn.relu(norm(name="bn_in")(x))
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def head(model: nn.Module, x: jax.Array, *, bias_init: Callable[..., jax.Array]) -> jax.Array:
    """Features [B, H, W, C] to logits [B, model.num_classes], in float32 or wider."""
    param_dtype = np.promote_types(model.dtype, np.float32)
    return nn.Dense(
        model.num_classes,
        kernel_init=_linear_init,
        bias_init=bias_init,
        precision=model.precision,
        dtype=param_dtype,
        param_dtype=param_dtype,
        name="head",
    )(x.astype(param_dtype).mean((1, 2)))


def uniform_bias(num_inputs: int) -> Callable[..., jax.Array]:
    """PyTorch's initialisation of a linear layer's bias."""
    bound = num_inputs**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
