"""Flax linen models whose members' rank-one factors act on activations."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from lpw_jax.method.kinds.rank_one import Factored


def apply(model: nn.Module, variables: dict[str, Any], *args: Any, **options: Any) -> Any:
    """`model.apply` for parameters of `rank_one(..., on_activations=True)`.

    Layers whose kernel is a `Factored` compute ((x * u) W) * v + bias, so that in a vmap over
    members, which have u and v of their own, the product with W is one for all. Without any it is
    `model.apply`.

    Args:
      variables: as for `model.apply`; `params` may hold `Factored` kernels of nn.Dense, nn.Conv and
        layers whose class has `takes_factors`: these are called with `factors`, (u, v).

    Raises:
      ValueError: a `Factored` of another layer, or of other axes than [..., in, out].
    """
    flat = flatten_dict(variables["params"], is_leaf=lambda _, leaf: isinstance(leaf, Factored))
    factored = {path[:-1]: leaf for path, leaf in flat.items() if isinstance(leaf, Factored)}
    if not factored:
        return model.apply(variables, *args, **options)
    biases, seen = {}, set()
    for module, leaf in factored.items():
        if leaf.axes != (-2, -1):
            raise ValueError(
                f"rank_one: on activations of linen layers axes must be (-2, -1), but those of "
                f"{'/'.join(module)!r} are {leaf.axes}"
            )
        flat[*module, "kernel"] = leaf.weight
        if (*module, "bias") in flat:  # added after the factor
            biases[module] = flat[*module, "bias"]
            flat[*module, "bias"] = jnp.zeros_like(biases[module])

    def scaled(call, args, options, context):
        layer = context.module
        by_itself = getattr(type(layer), "takes_factors", False)
        is_layer = type(layer) in (nn.Dense, nn.Conv) or by_itself
        is_call = context.method_name == "__call__" and is_layer
        if not is_call or layer.path not in factored:
            return call(*args, **options)
        seen.add(layer.path)
        leaf, bias = factored[layer.path], biases.get(layer.path)
        if by_itself:
            return call(*args, **options, factors=(leaf.inputs, leaf.outputs))
        x, *rest = args
        x = x * _last(leaf.inputs.astype(x.dtype), x)
        y = call(x, *rest, **options)
        y = y * _last(leaf.outputs.astype(y.dtype), y)
        return y if bias is None else y + _last(bias.astype(y.dtype), y)

    params = unflatten_dict(flat)
    with nn.intercept_methods(scaled):
        found = model.apply({**variables, "params": params}, *args, **options)
    if other := sorted("/".join(path) for path in factored.keys() - seen):
        raise ValueError(
            "rank_one: on activations a weight must be the kernel of a called nn.Dense or nn.Conv, "
            f"not so {other[0]!r}; choose on_activations=False for it"
        )
    return found


def _last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector over the last axis of `x`, of its rank."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
