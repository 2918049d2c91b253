"""A flax.linen module of one's own, whose batch norms hand out what they saw."""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from lpw_jax import linen
from lpw_jax.method.model_state import Observed


class Linen:
    """See `own.OwnNetwork`.

    Attributes:
      module: what the function gave.
      wrong: the rule that it breaks; '' if it breaks none.
    """

    def __init__(self, module: Any):
        self.module, self.wrong = module, ""
        if not isinstance(module, nn.Module):
            self.wrong = (
                "must give a flax.linen Module, or take rngs and give a flax.nnx one, "
                f"not {module!r}"
            )

    def init(self, key: jax.Array, images: jax.Array, *, options: dict) -> dict[str, Any]:
        """All variables."""
        return self.module.init(key, images, **options)

    def apply(
        self,
        variables: dict[str, Any],
        images: jax.Array,
        *,
        train: bool,
        rngs: Any,
        on_norm: Callable[[str, Any], None],
        options: dict,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits, and what was written. Kernels may be `Factored`."""
        observed = nn.intercept_methods(_observing(on_norm)) if train else contextlib.nullcontext()
        mutable = ["batch_stats"] if train else []
        with observed:
            return linen.apply(
                self.module, variables, images, mutable=mutable, rngs=rngs, **options
            )


def _observing(on_norm: Callable[[str, Any], None]) -> Callable:
    """An interceptor under which flax's batch norms give `Observed` for their new statistics."""
    inside = None  # the layer that is being called; its class may call that of its base

    def call_layer(call, args, kwargs, context):
        nonlocal inside
        layer = context.module
        stats = layer.variables.get("batch_stats", {})
        own = {name: old for name, old in stats.items() if not isinstance(old, dict)}
        if context.method_name != "__call__" or not own or layer is inside:
            return call(*args, **kwargs)
        on_norm("/".join(layer.path), layer)
        if not isinstance(layer, nn.BatchNorm):
            return call(*args, **kwargs)
        momentum, before, inside = layer.momentum, inside, layer
        # Without memory its new statistics are the batch's own. Flax's modules do not let
        # attributes be set; this one is a copy for this pass.
        object.__setattr__(layer, "momentum", 0.0)
        try:
            result = call(*args, **kwargs)
        finally:
            object.__setattr__(layer, "momentum", momentum)
            inside = before
        for name, old in own.items():
            seen = layer.get_variable("batch_stats", name)
            if seen is not old:
                observed = Observed(seen.astype(old.dtype), 1 - momentum)
                layer.put_variable("batch_stats", name, observed)
        return result

    return call_layer
