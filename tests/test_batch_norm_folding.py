"""The collapse of batch norms of other libraries: the mean of members' affine maps, exactly."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import jit
from small_models import double

import lpw_jax

pytestmark = pytest.mark.usefixtures("foreign_arithmetic")

B, WIDTH = 5, 4


def spread(tree, seed):
    """Random values of the size of batch norm's, positive."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), tree)


def norms_of(library):
    """A model that is the sum of batch norms: its function, params and model state.

    The third has no shift, the fourth no scale.
    """
    if library == "linen":

        class Norms(nn.Module):
            @nn.compact
            def __call__(self, x):
                norm = functools.partial(nn.BatchNorm, True, param_dtype=jnp.float64)
                return (
                    norm(epsilon=0.5, name="bn1")(x)
                    + norm(epsilon=1e-3, name="bn2")(x)
                    + norm(epsilon=0.1, use_bias=False, name="bn3")(x)
                    + norm(epsilon=0.2, use_scale=False, name="bn4")(x)
                )

        variables = jit(Norms().init)(jax.random.key(0), np.zeros((B, WIDTH)))
        params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
        return lambda params, stats, x: Norms().apply({"params": params, **stats}, x), params, stats

    class Norms(nnx.Module):
        def __init__(self, rngs):
            norm = functools.partial(
                nnx.BatchNorm, WIDTH, param_dtype=jnp.float64, use_running_average=True, rngs=rngs
            )
            self.bn1, self.bn2 = norm(epsilon=0.5), norm(epsilon=1e-3)
            self.bn3 = norm(epsilon=0.1, use_bias=False)
            self.bn4 = norm(epsilon=0.2, use_scale=False)

        def __call__(self, x):
            return self.bn1(x) + self.bn2(x) + self.bn3(x) + self.bn4(x)

    graph, params, stats = nnx.split(Norms(nnx.Rngs(0)), nnx.Param, ...)
    return lambda params, stats, x: nnx.merge(graph, params, stats)(x), params, stats


@pytest.mark.parametrize("selection", ["bn./.*", "bn1/scale"])
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_collapsed_batch_norms_are_the_mean_of_members_affine_maps(library, selection):
    forward, params, stats = norms_of(library)
    params, stats = spread((params, double(stats)), 0)
    method = lpw_jax.LatePhase(
        lambda *_: None,
        lpw_jax.copies(selection),
        optax.sgd(0.1),
        optax.sgd(0.1),
        batch_norm_epsilon={"bn1": 0.5, "bn2": 1e-3, "bn3": 0.1, "bn4": 0.2}.__getitem__,
    )
    state = jit(method.init)(params, stats)
    state = jit(functools.partial(method.release, num_members=3))(state)
    own = spread((state.members, state.member_model_state), 1)
    state = state.replace(members=own[0], member_model_state=own[1])
    x = np.random.default_rng(2).standard_normal((B, WIDTH))
    wanted = np.asarray(jit(functools.partial(lpw_jax.map_members, forward))(state, x)).mean(0)
    params, model_state = jit(method.collapse)(state)
    found = jit(forward)(params, model_state, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    without = dataclasses.replace(method, batch_norm_epsilon=None)
    with pytest.raises(ValueError, match="batch_norm_epsilon: must be given to .*'bn1' exactly"):
        jax.eval_shape(without.collapse, state)


def test_a_network_that_is_one_batch_norm(float64):
    """Its leaves are at the root of both trees."""
    model = nn.BatchNorm(True, epsilon=0.2, param_dtype=jnp.float64)
    variables = spread(double(jit(model.init)(jax.random.key(0), np.zeros((B, WIDTH)))), 0)
    method = lpw_jax.LatePhase(
        lambda *_: None,
        lpw_jax.copies(".*"),
        optax.sgd(0.1),
        optax.sgd(0.1),
        batch_norm_epsilon=0.2,
    )
    state = jit(method.init)(variables["params"], {"batch_stats": variables["batch_stats"]})
    state = jit(functools.partial(method.release, num_members=2))(state)
    own = spread((state.members, state.member_model_state), 1)
    state = state.replace(members=own[0], member_model_state=own[1])
    x = np.random.default_rng(2).standard_normal((B, WIDTH))

    def forward(params, stats):
        return model.apply({"params": params, **stats}, x)

    wanted = np.asarray(jit(functools.partial(lpw_jax.map_members, forward))(state)).mean(0)
    found = jit(forward)(*jit(method.collapse)(state))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
