"""Networks, by the name that `config.model.name` gives them."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lpw_jax.models.densenet import DenseNet
from lpw_jax.models.resnet import ResNet
from lpw_jax.models.wide_resnet import WideResNet

# Networks of torchvision: those that have pretrained weights.
TORCHVISION = {
    "resnet50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3)),
    "resnet152": functools.partial(ResNet, stage_sizes=(3, 8, 36, 3)),
    "densenet161": DenseNet,
}
NAMES = ("wide_resnet", *TORCHVISION)


def create(
    name: str,
    *,
    num_classes: int,
    depth: int | None = None,
    width: int | None = None,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
    precision: str = "highest",
    conv_general_dilated: Callable[..., Any] | None = None,
) -> nn.Module:
    """The network `name`, called as `model.apply(variables, images, train=False)`.

    `depth` and `width` are those of 'wide_resnet'; the other networks have no choice of them.

    Raises:
      ValueError: there is no network `name`.
    """
    if name not in NAMES:
        raise ValueError(f"model.name: must be one of {', '.join(NAMES)}, got {name!r}")
    if name == "wide_resnet":
        network = functools.partial(WideResNet, depth=depth, width=width)
    else:
        network = TORCHVISION[name]
    return network(
        num_classes=num_classes,
        axis_name=axis_name,
        dtype=dtype,
        precision=precision,
        conv_general_dilated=conv_general_dilated,
    )
