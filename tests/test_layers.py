"""Batch norm follows PyTorch's rules, on one device and on many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from tiny_net import random_variables

from lpw_jax import models
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.models.layers import BatchNorm


def inputs():
    return np.random.default_rng(0).normal(3.0, 2.0, (16, 4, 4, 6))


@pytest.mark.parametrize("num_devices", [1, 8])
def test_batch_statistics_are_the_whole_batchs_with_unbiased_variance(float64, num_devices):
    x = inputs()
    bn = BatchNorm(train=True, axis_name=AXIS, dtype=jnp.float64, param_dtype=jnp.float64)
    params = {"scale": np.linspace(0.5, 2, 6), "bias": np.linspace(-1, 1, 6)}

    def apply(x):
        return bn.apply({"params": params}, x, mutable=["batch_stats"])

    devices = Devices.over(jax.devices()[:num_devices])
    lifted = devices.lift(apply, in_axes=(0,), out_axes=(0, None))
    y, updated = lifted(devices.shard(x.reshape(num_devices, -1, 4, 4, 6)))
    flat = x.reshape(-1, 6)
    expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * params["scale"][None, None, None]
    expected += params["bias"][None, None, None]
    np.testing.assert_allclose(np.reshape(y, x.shape), expected, atol=1e-12)
    seen = updated["batch_stats"]
    np.testing.assert_allclose(seen["mean"].value, flat.mean(0), atol=1e-12)
    np.testing.assert_allclose(seen["var"].value, flat.var(0, ddof=1), atol=1e-12)


def gradients_of_batch_norm(x, scale, bias, along, num_devices=1):
    """Gradients of sum(along * y), with respect to x, scale and bias, over the device axis."""

    def own_gradients(x, along):
        bn = BatchNorm(train=True, axis_name=AXIS, dtype=x.dtype, param_dtype=scale.dtype)

        def loss(x, scale, bias):
            params = {"scale": scale, "bias": bias}
            y, _ = bn.apply({"params": params}, x, mutable=["batch_stats"])
            return (along * y).sum()

        x_grad, *of_params = jax.grad(loss, argnums=(0, 1, 2))(x, scale, bias)
        return x_grad, jax.lax.psum(of_params, AXIS)

    devices = Devices.over(jax.devices()[:num_devices])
    divided = [devices.shard(a.reshape(num_devices, -1, *a.shape[1:])) for a in (x, along)]
    lifted = devices.lift(own_gradients, in_axes=(0, 0), out_axes=(0, None))
    x_grad, of_params = lifted(*divided)
    return np.reshape(x_grad, x.shape), *of_params


def gradients_of_formula(x, scale, bias, along):
    """The same by automatic differentiation of the formula, on one device."""

    def loss(x, scale, bias):
        flat = x.reshape(-1, x.shape[-1])
        mean = flat.mean(0, keepdims=True)
        var = jnp.square(flat - mean).mean(0, keepdims=True)
        y = (flat - mean) / jnp.sqrt(var + 1e-5) * scale[None] + bias[None]
        return (along.reshape(flat.shape) * y).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, scale, bias)


def arguments(dtype=np.float64):
    """x, scale, bias and the gradient of the output."""
    random = np.random.default_rng(1)
    vectors = random.uniform(0.5, 2, (2, 6))
    along = random.standard_normal(inputs().shape) + inputs() ** 2 / 10  # not orthogonal to x
    return [np.asarray(a, dtype) for a in (inputs(), *vectors, along)]


@pytest.mark.parametrize("num_devices", [1, 8])
def test_gradients_are_those_of_the_formula_on_the_whole_batch(float64, num_devices):
    found = gradients_of_batch_norm(*arguments(), num_devices)
    for ours, expected in zip(found, gradients_of_formula(*arguments()), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.usefixtures("fast_steps")
@pytest.mark.parametrize("offset", [0.0, 20.0, 200.0])
def test_float32_gradients_lose_no_more_than_the_docstring_says(offset):
    x, scale, bias, along = arguments()
    x = x + offset
    found = gradients_of_batch_norm(*(np.asarray(a, np.float32) for a in (x, scale, bias, along)))
    with jax.enable_x64(True):
        expected = gradients_of_formula(x, scale, bias, along)
    for ours, exact in zip(found, expected, strict=True):
        bound = 1e-6 * (1 + (3.0 + offset) / 2.0)  # mean 3, deviation 2
        assert np.abs(ours - np.asarray(exact)).max() < bound * np.abs(exact).max()


def test_no_gradient_flows_through_the_statistics():
    x, scale, bias, along = arguments(np.float32)
    bn = BatchNorm(train=True)

    def loss(x, weight):
        params = {"scale": scale, "bias": bias}
        y, updated = bn.apply({"params": params}, x, mutable=["batch_stats"])
        return (along * y).sum() + weight * sum(
            jnp.square(leaf).sum() for leaf in jax.tree.leaves(updated)
        )

    gradient = jax.jit(jax.grad(loss))
    without, with_statistics = (np.asarray(gradient(x, weight)) for weight in (0.0, 1e3))
    assert np.abs(without).max() > 0
    np.testing.assert_array_equal(without, with_statistics)


def test_bfloat16_gradients_are_the_float32_ones_rounded():
    x, scale, bias, along = arguments(np.float32)
    x, along = (np.asarray(a.astype(jnp.bfloat16), np.float32) for a in (x, along))
    expected = gradients_of_batch_norm(x, scale, bias, along)
    found = gradients_of_batch_norm(x.astype(jnp.bfloat16), scale, bias, along.astype(jnp.bfloat16))
    assert [a.dtype for a in found] == [jnp.bfloat16, np.float32, np.float32]
    for ours, wide in zip(found, expected, strict=True):
        error = np.abs(np.asarray(ours, np.float32) - wide).max()
        assert error < 2**-7 * np.abs(wide).max()  # a bfloat16 has 8 bits


def test_evaluation_uses_running_statistics():
    x = inputs().astype(np.float32)
    stats = {"mean": np.full(6, 2.0, np.float32), "var": np.full(6, 4.0, np.float32)}
    params = {"scale": np.full(6, 3.0, np.float32), "bias": np.full(6, 1.0, np.float32)}
    y = jax.jit(BatchNorm(train=False).apply)({"params": params, "batch_stats": stats}, x)
    np.testing.assert_allclose(y, (x - 2) / np.sqrt(4 + 1e-5) * 3 + 1, rtol=1e-5, atol=1e-5)


def test_initialisation_is_he_normal_with_fan_in():
    model = models.create("wide_resnet", depth=10, width=4, num_classes=100)

    @jit
    def initialised(key):  # what is not returned is not computed either
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return params["group2_block0"]["conv2"]["kernel"], params["head"], params["bn_out"]

    kernel, head, bn_out = jax.device_get(initialised(jax.random.key(0)))
    fan_in = 3 * 3 * 256
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.01)
    assert np.abs(kernel).max() > 3.5 * kernel.std()  # not truncated at two deviations
    np.testing.assert_allclose(head["kernel"].std(), np.sqrt(2 / 256), rtol=0.02)
    assert (head["bias"] == 0).all()
    assert (bn_out["scale"] == 1).all() and (bn_out["bias"] == 0).all()


def test_bfloat16_keeps_weights_statistics_and_logits_in_float32():
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    outputs = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.create("wide_resnet", depth=10, width=1, num_classes=10, dtype=dtype)
        variables = random_variables(model, (16, 16, 3))
        outputs[dtype] = jax.device_get(
            jit(lambda v, x, model=model: model.apply(v, x, train=True, mutable="batch_stats"))(
                variables, images.astype(dtype)
            )
        )
        wide = {leaf.dtype for leaf in jax.tree.leaves((variables, outputs[dtype]))}
        assert wide == {np.dtype(np.float32)}
    (exact, _), (rounded, _) = outputs.values()
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


def test_a_wrong_depth_is_refused():
    model = models.create("wide_resnet", depth=12, width=1, num_classes=10)
    with pytest.raises(ValueError, match="6n [+] 4 with n >= 1, got 12"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
