"""Networks, by the name that `config.model.name` gives them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lpw_jax import registry
from lpw_jax.models.own import OwnNetwork

__all__ = ["OwnNetwork", "create"]


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
    remat: str = "none",
    **of_text: int,
) -> nn.Module | OwnNetwork:
    """The network `name`, called as `model.apply(variables, images, train=False)`.

    `depth` and `width` are for networks that have a choice of them; `of_text` are the attributes of
    networks of bytes that others do not have.

    Raises:
      ValueError: there is no network `name`.
      UserError: 'package.module:function' is none, or gives no flax module.
    """
    options = dict(
        num_classes=num_classes,
        depth=depth,
        width=width,
        axis_name=axis_name,
        dtype=dtype,
        precision=precision,
        conv_general_dilated=conv_general_dilated,
        remat=remat,
    )
    if registry.is_function(name):
        return OwnNetwork(name, **options)
    if name not in registry.NETWORKS:
        known = ", ".join(registry.NETWORKS)
        raise ValueError(f"model.name: must be one of {known}, got {name!r}")
    network = registry.NETWORKS[name]
    builder = registry.resolve(network.builder, "model.name")
    return builder(**network.arguments, **registry.accepted(builder, options | of_text))
