"""Weights that anybody can make again: each tensor is a function of its torchvision name."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from lpw_jax import models
from lpw_jax.weights import torchvision_names


def tensor(name, shape):
    """The recorded networks' tensor `name`, float64 in PyTorch's layout."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return 0.1 * random.standard_normal(shape)
    if len(shape) == 1:
        centre = 1.0 if name.endswith("weight") else 0.0
        gain = 0.25 if name.endswith("bn3.weight") else 1.0
        return (centre + 0.1 * random.standard_normal(shape)) * gain
    return random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))


def shapes(model_name, num_classes):
    """torchvision's names of a network's weights, without counters, and their shapes there."""
    model = models.create(model_name, num_classes=num_classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return {
        torchvision_names.torch_name(model_name, path): torchvision_names.to_torch(
            np.broadcast_to(0, leaf.shape)
        ).shape
        for path, leaf in flatten_dict(variables, sep="/").items()
    }


def state_dict(model_name, num_classes):
    """The recorded network, float64, with counters."""
    found = shapes(model_name, num_classes)
    found |= dict.fromkeys(torchvision_names.counters(found), ())
    return {name: tensor(name, shape) for name, shape in found.items()}


def zeros(model_name, num_classes):
    """A small state dict of the right names and shapes: float16 zeros, without counters."""
    return {n: np.zeros(shape, np.float16) for n, shape in shapes(model_name, num_classes).items()}


def random_variables(model, images):
    """Any variables of `model`, which makes them faster than its own initialisation does."""
    random = np.random.default_rng(1)

    def leaf(like):
        return jnp.asarray(random.uniform(0.5, 1.5, like.shape), like.dtype)

    return jax.tree.map(leaf, jax.eval_shape(model.init, jax.random.key(0), images))
