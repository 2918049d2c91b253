"""Blocks that compute batch norm and ReLU anew in the backward pass, instead of storing them."""

import functools
from typing import Any

import flax.linen as nn

# Stored besides a block's input; all else of its forward pass is cheap.
_STORED = ("conv_general_dilated", "dot_general", "reduce_sum")


@functools.cache
def block(kind: type[nn.Module], remat: str) -> type[nn.Module]:
    """The module `kind`, a block of layers, as `remat` asks for.

    With 'batch_norm' its backward pass starts from the block's input, the results of its
    convolutions and the batch statistics, with which it computes all else again: no convolution and
    no communication is repeated. With 'none' it is `kind`. Names and results are the same.
    """
    return kind if remat == "none" else nn.remat(kind, policy=_is_stored)


def _is_stored(operation: Any, *inputs: Any, **_: Any) -> bool:
    # Statistics have at most two axes, [K, C], arrays of images at least four.
    of_statistics = all(x.ndim <= 2 for x in inputs) and operation.name != "broadcast_in_dim"
    return operation.name in _STORED or of_statistics
