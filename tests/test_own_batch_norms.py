"""Batch norms of flax in networks of one's own: trained, re-estimated and collapsed as by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import jit

import lpw_jax
from lpw_jax import models, networks
from lpw_jax.models import functions
from lpw_jax.tasks import classification

IMAGE, CLASSES, K, B = (2, 2, 1), 3, 2, 6
MOMENTUM, EPSILON = 0.7, 0.3


class Linen(nn.Module):
    """Two batch norms, of which one sees the images as they are, and a frozen one."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(
            nn.BatchNorm,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            axis_name=self.axis_name,
            param_dtype=jnp.float64,
            force_float32_reductions=False,
        )
        dense = functools.partial(nn.Dense, param_dtype=jnp.float64)
        x = norm(name="bn1")(x.reshape(len(x), -1), use_running_average=not train)
        x = norm(name="bn2")(jnp.tanh(dense(5, name="in")(x)), use_running_average=not train)
        return dense(CLASSES, name="head")(norm(name="frozen")(x, use_running_average=True))


class Nnx(nnx.Module):
    def __init__(self, axis_name, rngs):
        norm = functools.partial(
            nnx.BatchNorm,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            axis_name=axis_name,
            param_dtype=jnp.float64,
            rngs=rngs,
        )
        dense = functools.partial(nnx.Linear, param_dtype=jnp.float64, rngs=rngs)
        self.bn1, self.bn2, self.frozen = norm(4), norm(5), norm(5)
        for layer in (self.bn1, self.bn2, self.frozen):  # whose statistics are float32
            layer.mean, layer.var = (
                nnx.BatchStat(jnp.zeros(layer.num_features, jnp.float64)) for _ in range(2)
            )
        self.head = dense(5, CLASSES)
        setattr(self, "in", dense(4, 5))

    def __call__(self, x, train):
        x = self.bn1(x.reshape(len(x), -1), use_running_average=not train)
        x = self.bn2(jnp.tanh(getattr(self, "in")(x)), use_running_average=not train)
        return self.head(self.frozen(x, use_running_average=True))


def linen(axis_name):
    return Linen(axis_name)


def of_nnx(axis_name, rngs):
    return Nnx(axis_name, rngs)


pytestmark = [
    pytest.mark.usefixtures("foreign_arithmetic"),
    pytest.mark.parametrize("library", ["linen", "of_nnx"]),
]


def create(library):
    return models.create(f"{__name__}:{library}", num_classes=CLASSES, dtype=jnp.float64)


def variables_of(model):
    """Random ones, in numpy arrays."""
    random = np.random.default_rng(0)
    images = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float64)
    like = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: random.uniform(0.5, 1.5, leaf.shape), like)


def method(model, *patterns):
    sgd = optax.sgd(0.0)
    loss_fn = functions.training_loss(model, classification.loss)
    return lpw_jax.LatePhase(loss_fn, lpw_jax.copies(*patterns), sgd, sgd)


def released(model, *patterns):
    """A released state of members that differ."""
    variables, random = variables_of(model), np.random.default_rng(1)
    made_by = method(model, *patterns)
    tied = made_by.init(variables["params"], variables["batch_stats"])
    state = jax.device_get(made_by.release(tied, num_members=K))
    own = jax.tree.map(
        lambda leaf: leaf * random.uniform(0.5, 1.5, leaf.shape),
        (state.members, state.member_model_state),
    )
    return state.replace(members=own[0], member_model_state=own[1])


def by_hand(params, stats, x, train):
    """(logits, statistics that the batch norms saw) of one network, in numpy."""
    seen = {}

    def norm(name, h, train):
        weights, found = params[name], stats[name]
        if train:
            found = seen[name] = {"mean": h.mean(0), "var": h.var(0)}
        h = (h - found["mean"]) / np.sqrt(found["var"] + EPSILON)
        return h * weights["scale"] + weights["bias"]

    def dense(name, h):
        return h @ params[name]["kernel"] + params[name]["bias"]

    h = norm("bn1", x.reshape(len(x), -1), train)
    h = norm("bn2", np.tanh(dense("in", h)), train)
    return dense("head", norm("frozen", h, False)), seen


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected
    )


def images(seed, *shape):
    return np.random.default_rng(seed).standard_normal((*shape, *IMAGE))


def test_statistics_follow_members_minibatches_as_flax_lets_them(library):
    """In a vmap, where late-phase layers have their own and shared ones are followed in turn."""
    model = create(library)
    start = released(model, "bn1/.*", "head/.*")
    batch = {"image": images(2, K, B), "label": np.zeros((K, B), np.int32)}
    step = jit(method(model, "bn1/.*", "head/.*").step)
    found, _ = jax.device_get(step(start, batch))
    shared = start.shared_model_state["bn2"]
    for k in range(K):
        params, stats = lpw_jax.member(start, k)
        _, seen = by_hand(params, stats, batch["image"][k], True)

        def follow(old, new):
            return MOMENTUM * old + (1 - MOMENTUM) * new

        own = jax.tree.map(follow, stats["bn1"], seen["bn1"])
        shared = jax.tree.map(follow, shared, seen["bn2"])
        assert_close(lpw_jax.member(found, k)[1]["bn1"], own)
    assert_close(found.shared_model_state["bn2"], shared)
    assert_close(found.shared_model_state["frozen"], start.shared_model_state["frozen"])


def test_reestimated_statistics_are_those_of_all_that_was_seen(library):
    model = create(library)
    start = state = released(model, "bn./.*", "head/.*")
    step = jit(lpw_jax.statistics_step(functions.statistics(model)))
    batches, done = [images(3, B), images(4, B // 2)], 0
    for batch in batches:
        done += len(batch)
        state = step(state, batch, len(batch) / done)
    for k in range(K):
        params, stats = lpw_jax.member(start, k)
        seen = [by_hand(params, stats, batch, True)[1] for batch in batches]
        mean = jax.tree.map(lambda *parts: (2 * parts[0] + parts[1]) / 3, *seen)
        found = lpw_jax.member(state, k)[1]
        assert_close({name: found[name] for name in mean}, mean)
        assert_close(found["frozen"], stats["frozen"])


def test_members_collapse_with_the_epsilon_of_their_layers(library):
    model = create(library)
    state, x = released(model, "frozen/.*"), images(5, B)
    logits = np.mean([by_hand(*lpw_jax.member(state, k), x, False)[0] for k in range(K)], axis=0)
    collapse, forward = networks.collapse_of(model, IMAGE), jit(functions.forward(model))
    assert_close(forward(*collapse(state), x), logits)  # after it all is linear
    equal = lpw_jax.select_members(state, [1, 1])
    assert_close(forward(*collapse(equal), x), by_hand(*lpw_jax.member(state, 1), x, False)[0])
