"""Blocks that compute batch norm and ReLU anew in the backward pass, instead of storing them."""

import functools
from typing import Any

import flax.linen as nn

# Stored besides a block's input; all else of its forward pass is cheap.
_STORED = ("conv_general_dilated", "dot_general")


@functools.cache
def block(kind: type[nn.Module], remat: str) -> type[nn.Module]:
    """The module `kind`, a block of layers, as `remat` asks for.

    With 'batch_norm' its backward pass starts from the block's input and the results of its
    convolutions, and computes all else again, batch statistics and their sums over devices
    included, but no convolution. With 'none' it is `kind`. Names and results are the same.
    """
    return kind if remat == "none" else nn.remat(kind, policy=_is_stored)


def _is_stored(operation: Any, *_: Any, **__: Any) -> bool:
    return operation.name in _STORED
