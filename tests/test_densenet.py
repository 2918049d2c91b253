"""DenseNet: channels grow as the paper says, initialisation is torchvision's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from torchvision_weights import random_variables

from lpw_jax.models.convolution import cpu_conv_general_dilated
from lpw_jax.models.densenet import DenseNet


def small(layers=(2, 2), **attributes):
    return DenseNet(
        num_classes=5, stage_sizes=layers, growth=4, features_in=10, bn_size=2, **attributes
    )


def images_of(dtype, size=32):
    return np.random.default_rng(0).standard_normal((4, size, size, 3)).astype(dtype)


def test_layers_add_channels_and_transitions_halve_everything():
    def run(images):
        variables = small().init(jax.random.key(0), images)
        _, seen = small().apply(variables, images, capture_intermediates=True, mutable=True)
        return variables, seen

    variables, seen = jax.eval_shape(run, images_of(jnp.float32))
    found = {
        name: module["__call__"][0].shape[1:]
        for name, module in seen["intermediates"].items()
        if name.startswith(("group", "transition"))
    }
    assert found == {
        "group0_layer0": (8, 8, 14),
        "group0_layer1": (8, 8, 18),
        "transition0": (4, 4, 9),
        "group1_layer0": (4, 4, 13),
        "group1_layer1": (4, 4, 17),
    }
    assert variables["params"]["group1_layer1"]["conv1"]["kernel"].shape == (1, 1, 13, 8)


def test_initialisation_is_torchvisions():
    model = DenseNet(num_classes=100, stage_sizes=(1,), growth=48, features_in=96)

    @jit
    def initialised(key):  # what is not returned is not computed either
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return params["group0_layer0"]["conv2"]["kernel"], params["head"]

    kernel, head = jax.device_get(initialised(jax.random.key(0)))
    assert abs(kernel.std() / np.sqrt(2 / (9 * 192)) - 1) < 0.02  # fan-in
    bound = 144**-0.5
    assert 0.9 * bound < np.abs(head["kernel"]).max() <= bound
    assert not head["bias"].any()


@pytest.mark.slow
def test_gradients_are_the_same_with_either_convolution_in_a_loop_or_outside(float64):
    images = images_of(jnp.float64, 36)  # the transition's pooling drops the last of 9 pixels
    variables = random_variables(small((1, 1), dtype=jnp.float64), images)

    def loss(params, images, convolution):
        model = small((1, 1), dtype=jnp.float64, conv_general_dilated=convolution)
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).sum()

    def in_a_loop(params, images):
        def one(total, images):
            grads = jax.grad(loss)(params, images, cpu_conv_general_dilated)
            return jax.tree.map(jnp.add, total, grads), None

        return jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), images[None])[0]

    plain = jax.jit(lambda params, images: jax.grad(loss)(params, images, None))
    both = (f(variables["params"], images) for f in (jax.jit(in_a_loop), plain))
    for found, expected in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
