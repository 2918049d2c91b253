"""Averages over training, and statistics that are estimated again for them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from jax import jit

import lpw_jax

INPUTS = np.random.default_rng(0).standard_normal((4, 4, 3))


def assert_close(got, wanted):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), got, wanted)


def test_a_mean_over_states_is_the_mean(float64):
    method = small_models.linear()
    state, mean = small_models.released(method), None
    start, add = jit(lpw_jax.Average.start), jit(lpw_jax.Average.add)
    seen, mean = [], start(state)
    for _ in range(5):
        state = small_models.apart(state).replace(
            shared=jax.tree.map(lambda x: x * 1.3, state.shared)
        )
        seen.append((state.shared, state.members))
        mean = add(mean, state)
    wanted = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *seen)
    assert_close((mean.state.shared, mean.state.members), wanted)
    assert int(mean.count) == 5
    assert_close(jit(method.collapse)(mean.state)[0]["head"]["w"], wanted[1]["head"]["w"].mean(0))


def test_an_exponential_mean_starts_at_its_first_state(float64):
    state = small_models.released(small_models.linear())
    add = jit(functools.partial(lpw_jax.Average.add, decay=0.9))
    mean, wanted = jit(lpw_jax.Average.start)(state), None
    for _ in range(4):
        state = small_models.apart(state)
        new = state.members["head"]["w"]
        wanted = new if wanted is None else 0.9 * wanted + 0.1 * new
        mean = add(mean, state)
    assert_close(mean.state.members["head"]["w"], wanted)


def normed(params, x, mean, var):
    """A batch norm of its own between two products, and what it saw."""
    h = x @ params["in"]["w"]
    seen = h.mean(0), h.var(0)
    mean, var = seen if mean is None else (mean, var)
    rows = functools.partial(jnp.broadcast_to, shape=h.shape)
    h = (h - rows(mean)) / jnp.sqrt(rows(var) + 1e-5) * rows(params["bn"]["scale"])
    return (h + rows(params["bn"]["bias"])) @ params["head"]["w"], seen


def normed_state(late_phase):
    method = small_models.linear(late_phase)
    params = small_models.linear_weights() | {"bn": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    return small_models.released(
        method, 2, params, {"bn": {"mean": jnp.zeros(2), "var": jnp.ones(2)}}
    )


@pytest.mark.parametrize("member_mode", ["vmap", "scan"])
def test_statistics_of_late_phase_layers_become_those_of_all_data(float64, member_mode):
    def statistics_fn(params, model_state, batch, key):
        _, (mean, var) = normed(params, batch, None, None)
        return {"bn": {"mean": lpw_jax.Observed(mean, 0.1), "var": var}}

    state = normed_state("bn/.*")
    state = state.replace(  # members differ before their batch norm, too
        members=state.members
        | {"in": {"w": np.stack([state.shared["in"]["w"] * k for k in (1, 2)])}},
        shared=state.shared | {"in": {"w": None}},
    )
    step = jit(lpw_jax.statistics_step(statistics_fn, member_mode=member_mode))
    for number, batch in enumerate(INPUTS):
        state = step(state, batch, 1 / (number + 1))
    for k, w in enumerate(np.asarray(state.members["in"]["w"])):
        found = jax.tree.map(lambda leaf, k=k: leaf[k], state.member_model_state["bn"])
        assert_close(found["mean"], (INPUTS.reshape(-1, 3) @ w).mean(0))
        assert_close(found["var"], (INPUTS @ w).var(1).mean(0))  # the mean of batches' variances


def test_statistics_of_a_shared_layer_follow_members_in_turn(float64):
    def statistics_fn(params, model_state, batch, key):
        h = batch @ params["in"]["w"] * params["head"]["w"].sum()
        return {"bn": {"mean": h.mean(0), "var": lpw_jax.Observed(h.var(0), 0.1)}}

    state = normed_state("head/w")
    step = jit(lpw_jax.statistics_step(statistics_fn))
    wanted = {"mean": np.zeros(2), "var": np.ones(2)}
    for momentum, batch in zip((1.0, 0.5, 0.4), INPUTS, strict=False):
        state = step(state, batch, momentum)
        for head in np.asarray(state.members["head"]["w"]):
            h = batch @ np.asarray(state.shared["in"]["w"]) * head.sum()
            for name, seen in (("mean", h.mean(0)), ("var", h.var(0))):
                wanted[name] = (1 - momentum) * wanted[name] + momentum * seen
    assert_close(state.shared_model_state["bn"], wanted)


class Net(nn.Module):
    """One of two batch norms is late-phase in the test."""

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=False, momentum=self.momentum, param_dtype=x.dtype
        )
        x = norm(name="bn1")(nn.Dense(2, param_dtype=x.dtype, name="in")(x))
        return norm(name="bn2")(jnp.tanh(x))


def test_statistics_of_flax_layers_without_memory(float64):
    def statistics_fn(params, model_state, batch, key):
        variables = {"params": params, **model_state}
        return Net(momentum=0.0).apply(variables, batch, mutable=["batch_stats"])[1]

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # flax's
        variables = jit(Net().init)(jax.random.key(0), INPUTS[0])
        params = variables["params"]
        model_state = {"batch_stats": jax.tree.map(np.float64, variables["batch_stats"])}
        method = small_models.linear("bn2/.*")
        state = small_models.released(method, 2, params, model_state)
        state = state.replace(
            member_model_state=jax.tree.map(np.zeros_like, state.member_model_state)
        )
        step = jit(lpw_jax.statistics_step(statistics_fn))
        for number, batch in enumerate(INPUTS):
            state = step(state, batch, 1 / (number + 1))
    h = INPUTS @ np.asarray(params["in"]["kernel"]) + np.asarray(params["in"]["bias"])
    mean, var = h.mean(1, keepdims=True), h.var(1, keepdims=True)
    scale, bias = (np.asarray(state.shared["bn1"][name]) for name in ("scale", "bias"))
    inner = np.tanh((h - mean) / np.sqrt(var + 1e-5) * scale + bias)
    own = state.member_model_state["batch_stats"]["bn2"]
    for k in range(2):
        assert_close(own["mean"][k], inner.mean((0, 1)))
        assert_close(own["var"][k], inner.var(1).mean(0))
    # bn1 is shared: it sees a batch twice with the same momentum.
    running = np.zeros(2)
    for number, seen in enumerate(mean[:, 0]):
        for _ in range(2):
            running += (seen - running) / (number + 1)
    assert_close(state.shared_model_state["batch_stats"]["bn1"]["mean"], running)


def test_a_donated_state_leaves_its_average(float64):
    method = small_models.linear()
    step = jit(method.step, donate_argnums=0)
    state = jax.tree.map(jnp.asarray, small_models.released(method))
    mean = lpw_jax.Average.start(state)
    jit(lpw_jax.Average.add, donate_argnums=0)(mean, state)
    mean = lpw_jax.Average.start(state)
    state, _ = step(state, small_models.minibatches(0))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((mean, state)))


def test_averages_that_cannot_be():
    method = small_models.linear()
    mean = lpw_jax.Average.start(method.init(small_models.linear_weights()))
    with pytest.raises(ValueError, match="must have the 1 members.*got 3; start a new average"):
        mean.add(small_models.released(method))
    with pytest.raises(ValueError, match=r"decay: must be in \[0, 1\), got 1.0"):
        mean.add(method.init(small_models.linear_weights()), decay=1.0)
    with pytest.raises(ValueError, match="member_mode: must be one of .*, got 'pmap'"):
        lpw_jax.statistics_step(lambda *_: None, member_mode="pmap")
