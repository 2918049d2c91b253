"""Networks, by the name that `config.model.name` gives them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lpw_jax.models.wide_resnet import WideResNet


def create(
    name: str,
    *,
    depth: int,
    width: int,
    num_classes: int,
    axis_name: str | None = None,
    dtype: Any = jnp.float32,
    precision: str = "highest",
    conv_general_dilated: Callable[..., Any] | None = None,
) -> nn.Module:
    """The network `name`, called as `model.apply(variables, images, train=False)`."""
    if name == "wide_resnet":
        return WideResNet(
            depth=depth,
            width=width,
            num_classes=num_classes,
            axis_name=axis_name,
            dtype=dtype,
            precision=precision,
            conv_general_dilated=conv_general_dilated,
        )
    raise ValueError(f"model.name: must be 'wide_resnet', got {name!r}")
