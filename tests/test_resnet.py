"""ResNet: torchvision's sizes and initialisation, and members that do not mix."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import jit
from torchvision_weights import random_variables

from lpw_jax import models
from lpw_jax.models.convolution import cpu_conv_general_dilated
from lpw_jax.models.resnet import ResNet

IMAGES = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
BATCH_NORMS = r"(.*/)?bn[^/]*/(scale|bias)"  # the default of late_phase.patterns


def small(**attributes):
    return ResNet(stage_sizes=(1, 2), num_classes=5, **attributes)


def outputs(model, module):
    """Shapes and dtypes: the logits, and what is in a module."""

    def run(images):
        variables = model.init(jax.random.key(0), images)
        return model.apply(variables, images, capture_intermediates=True, mutable=True)

    logits, seen = jax.eval_shape(run, IMAGES)
    return logits, seen["intermediates"][module]


@pytest.mark.parametrize(
    ("name", "count", "batch_norms"),
    [
        ("resnet50", 25_557_032, 53),
        ("resnet152", 60_192_808, 155),
        ("densenet161", 28_681_000, 161),
    ],
)
def test_parameters_are_as_many_as_torchvisions_and_patterns_find_every_batch_norm(
    name, count, batch_norms
):
    model = models.create(name, num_classes=1000)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    flat = flatten_dict(variables["params"], sep="/")
    assert sum(leaf.size for leaf in flat.values()) == count
    late = [path for path in flat if re.fullmatch(BATCH_NORMS, path)]
    assert len(late) == 2 * batch_norms == len(jax.tree.leaves(variables["batch_stats"]))


def test_only_wide_resnet_and_torchvisions_networks_can_be_made():
    with pytest.raises(ValueError, match="model.name: must be one of wide_resnet.*, got 'vgg'"):
        models.create("vgg", num_classes=10)
    assert models.create("wide_resnet", depth=10, width=2, num_classes=3).depth == 10


def test_initialisation_is_torchvisions():
    model = ResNet(stage_sizes=(1, 1), num_classes=5)
    fan_outs = {("group0_block0", "conv2"): 9 * 64, ("group1_block0", "conv3"): 512}

    @jit
    def initialised(key):  # what is not returned is not computed either
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return [params[block][name]["kernel"] for block, name in fan_outs], params["head"]

    kernels, head = jax.device_get(initialised(jax.random.key(0)))
    for kernel, fan_out in zip(kernels, fan_outs.values(), strict=True):
        assert abs(kernel.std() / np.sqrt(2 / fan_out) - 1) < 0.02
    bound = 512**-0.5
    for leaf in jax.tree.leaves(head):
        assert bound / 2 < np.abs(leaf).max() <= bound


def test_the_3x3_convolution_has_the_stride():
    _, block = outputs(small(), "group1_block0")
    sides = [block[name]["__call__"][0].shape[1] for name in ("conv1", "conv2", "conv_shortcut")]
    assert sides == [16, 8, 8]


@pytest.mark.slow
def test_members_are_independent_merged_or_one_after_the_other(float64):
    size = 47  # gives odd sides
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, size, size, 3)))
    variables = random_variables(small(dtype=jnp.float64), images[0])

    def gradients(convolution, over_members):
        model = small(dtype=jnp.float64, conv_general_dilated=convolution)

        def loss(params, images):
            logits, _ = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum()

        return jax.jit(over_members(loss))(variables["params"], images)

    def merged(loss):
        return jax.grad(lambda params, images: jax.vmap(loss, (None, 0))(params, images).sum())

    def scanned(loss):
        def total(params, images):
            def add(total, images):
                return jax.tree.map(jnp.add, total, jax.grad(loss)(params, images)), None

            return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), images)[0]

        return total

    ours = gradients(cpu_conv_general_dilated, scanned)
    for found, expected in zip(*map(jax.tree.leaves, (ours, gradients(None, merged))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_bfloat16_computes_in_it_and_keeps_weights_and_logits_wide():
    model = small(dtype=jnp.bfloat16)
    logits, block = outputs(model, "group1_block1")
    assert logits.dtype == jnp.float32
    assert block["__call__"][0].dtype == jnp.bfloat16
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
