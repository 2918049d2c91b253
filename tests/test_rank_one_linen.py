"""Rank-one factors of linen layers, on activations and as effective weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import jit

import lpw_jax
from lpw_jax import linen

pytestmark = pytest.mark.usefixtures("float64")


class Network(nn.Module):
    """A convolution without a bias, a strided one with a bias, a dense layer."""

    @nn.compact
    def __call__(self, x):
        options = dict(dtype=jnp.float64, param_dtype=jnp.float64)
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False, name="conv1", **options)(x))
        x = nn.relu(nn.Conv(5, (3, 3), strides=2, name="conv2", **options)(x))
        return nn.Dense(3, name="head", **options)(x.mean((1, 2)))


class Recurrent(nn.Module):
    """Its kernels are used otherwise than by calls of nn.Dense."""

    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.OptimizedLSTMCell(4, param_dtype=jnp.float64), name="rnn")(x)


def variables():
    params = jax.eval_shape(Network().init, jax.random.key(0), jnp.zeros((1, 6, 6, 2)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) * 0.5, params)["params"]


def method(apply, *, on_activations, mode):
    def loss(params, model_state, batch, key):
        x, y = batch
        value = jnp.square(apply({"params": params}, x) - y).mean()
        return value, (model_state, {})

    return lpw_jax.LatePhase(
        loss,
        lpw_jax.rank_one("conv.*/kernel", "head/kernel", on_activations=on_activations),
        optax.sgd(0.05),
        optax.sgd(0.1, momentum=0.9),
        member_mode=mode,
    )


def trained(method):
    state = method.init(variables())
    rng = np.random.default_rng(1)
    step = jit(method.step)
    for num_members in (1, 1, 3, 3):
        if num_members > 1 and not state.is_released:
            state = method.release(state, jax.random.key(2), num_members=3, sigma=0.1)
        shape = (num_members, 4)
        batch = rng.standard_normal((*shape, 6, 6, 2)), rng.standard_normal((*shape, 3))
        state, metrics = step(state, batch)
    return state, metrics


@functools.cache
def with_effective_weights():
    return trained(method(Network().apply, on_activations=False, mode="unroll"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "unroll"])
def test_both_forms_are_the_same_training(mode):
    on_activations = method(
        lambda *args: linen.apply(Network(), *args), on_activations=True, mode=mode
    )
    scaled = trained(on_activations)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
        jax.tree.leaves(scaled),
        jax.tree.leaves(with_effective_weights()),
    )
    params, _ = on_activations.collapse(scaled[0])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, variables())


def test_merged_members_share_their_products():
    """No convolution has feature groups, no product a batch of weights."""
    members = method(lambda *args: linen.apply(Network(), *args), on_activations=True, mode="vmap")
    state = members.release(members.init(variables()), num_members=3)
    batch = jnp.zeros((3, 4, 6, 6, 2)), jnp.zeros((3, 4, 3))
    text = str(jax.make_jaxpr(members.step)(state, batch))
    assert "conv_general_dilated" in text
    assert "feature_group_count=3" not in text and "batch_group_count=3" not in text


def test_other_layers_and_axes_are_refused_by_name():
    x = jnp.zeros((2, 5, 3))
    params = Recurrent().init(jax.random.key(0), x)["params"]
    kind = lpw_jax.rank_one("OptimizedLSTMCell_0/hi/kernel", on_activations=True)
    one = lpw_jax.LatePhase(lambda *_: None, kind, optax.sgd(1.0), optax.sgd(1.0)).init(params)
    found, _ = lpw_jax.member(one, 0)
    with pytest.raises(
        ValueError, match="rank_one: .*nn.Dense or nn.Conv, not so .OptimizedLSTMCell_0/hi."
    ):
        linen.apply(Recurrent(), {"params": found}, x)
    kind = lpw_jax.rank_one("head/kernel", in_axis=1, out_axis=0, on_activations=True)
    one = lpw_jax.LatePhase(lambda *_: None, kind, optax.sgd(1.0), optax.sgd(1.0)).init(variables())
    found, _ = lpw_jax.member(one, 0)
    with pytest.raises(
        ValueError, match=r"axes must be \(-2, -1\), but those of 'head' are \(1, 0\)"
    ):
        linen.apply(Network(), {"params": found}, jnp.zeros((1, 6, 6, 2)))
