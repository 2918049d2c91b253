"""Models of a few dozen weights with several losses, and the formulas of late-phase weights.

Their weights have the same names, so that the same kinds can be had for each.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import jit

import lpw_jax

WIDTH = 4


class Problem(NamedTuple):
    """What is trained: parameters and `batch(seed, K, B)` in numpy arrays, and a loss function."""

    params: dict[str, Any]
    loss_fn: Callable
    batch: Callable


def double(tree):
    """Floating arrays in float64: flax keeps statistics in float32."""
    return jax.tree.map(
        lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def dense(x, kernel):
    """x W, where W may be an `lpw_jax.Factored`."""
    if isinstance(kernel, lpw_jax.Factored):
        u, v = (
            vector.reshape((1,) * (x.ndim - 1) + (-1,))
            for vector in (kernel.inputs, kernel.outputs)
        )
        return ((x * u) @ kernel.weight) * v
    return x @ kernel


def forward(params, h):
    """Of what the first layer made, [..., 4]."""
    norm, head = params["norm"], params["head"]
    h = jnp.tanh(h)
    scale, shift, bias = (
        jnp.broadcast_to(vector, (*h.shape[:-1], len(vector)))
        for vector in (norm["scale"], norm["shift"], head["bias"])
    )
    return dense(h * scale + shift, head["kernel"]) + bias


def regression(params, x):
    """Outputs for inputs [B, 4]."""
    return forward(
        params, dense(jnp.tanh(dense(x, params["in"]["kernel"])), params["mid"]["kernel"])
    )


def regression_loss(params, model_state, batch, key):
    """Mean squared error; without key or state."""
    error = regression(params, batch["x"]) - batch["y"]
    return jnp.square(error).mean(), (model_state, {"error": error})


def two_inputs_loss(params, model_state, batch, key):
    """Of numbers and classes, with a mean over absolute errors."""
    numbers, (classes, wanted) = batch
    one_hot = jax.nn.one_hot(classes, WIDTH, dtype=numbers.dtype)
    h = dense(numbers, params["in"]["kernel"]) + dense(one_hot, params["mid"]["kernel"])
    loss = jnp.sqrt(1 + jnp.square(forward(params, h) - wanted)).mean()
    return loss, (model_state, {})


def sequence_loss(params, model_state, batch, key):
    """Next token, of the two before it, with dropout."""
    tokens = batch["tokens"]
    embedded = dense(jax.nn.one_hot(tokens, WIDTH, dtype=np.float64), params["in"]["kernel"])
    kept = jax.random.bernoulli(key, 0.8, embedded.shape)
    embedded = jnp.where(kept, embedded / 0.8, 0)
    before, now = params["mid"]["kernel"][0], params["mid"]["kernel"][1]
    logits = forward(params, embedded[:, :-2] @ before + embedded[:, 1:-1] @ now)
    log_probs = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probs, tokens[:, 2:, None], axis=-1)[..., 0]
    return losses.mean(), (model_state, {"of_position": losses.mean(0), "entropy": {"all": losses}})


def parameters(outputs: int, kernel_shape: tuple[int, ...] = ()) -> dict[str, Any]:
    """Random weights, those of the middle layer [*kernel_shape, 4, 4]."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape) * 0.7

    return {
        "in": {"kernel": normal(WIDTH, WIDTH)},
        "mid": {"kernel": normal(*kernel_shape, WIDTH, WIDTH)},
        "norm": {"scale": 1 + normal(WIDTH), "shift": normal(WIDTH)},
        "head": {"kernel": normal(WIDTH, outputs), "bias": normal(outputs)},
    }


def _regression_batch(seed, *shape):
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((*shape, WIDTH)), "y": random.standard_normal((*shape, 2))}


def _two_inputs_batch(seed, *shape):
    random = np.random.default_rng(seed)
    numbers = random.standard_normal((*shape, WIDTH))
    return numbers, (random.integers(0, WIDTH, shape), random.standard_normal((*shape, 2)))


def _sequence_batch(seed, *shape):
    return {"tokens": np.random.default_rng(seed).integers(0, WIDTH, (*shape, 6))}


PROBLEMS = {
    "regression": Problem(parameters(2), regression_loss, _regression_batch),
    "two_inputs": Problem(parameters(2), two_inputs_loss, _two_inputs_batch),
    "sequence": Problem(parameters(WIDTH, (2,)), sequence_loss, _sequence_batch),
}
KINDS = {
    "copies": lpw_jax.copies("norm/.*", "head/.*"),
    "rank_one": lpw_jax.rank_one(".*/kernel"),
    "low_rank": lpw_jax.low_rank(2, "(mid|head)/kernel"),
    "templates": lpw_jax.templates(
        lpw_jax.mixed("in/kernel", num_templates=3),
        lpw_jax.mixed("mid/kernel", num_templates=3, split=2),
    ),
    "shared templates": lpw_jax.templates(
        lpw_jax.mixed("in/kernel", num_templates=3, split=2, late_phase=False),
        lpw_jax.mixed("mid/kernel", num_templates=3, split=2),
    ),
    "all": lpw_jax.copies(".*"),
    "several": (
        lpw_jax.copies("head/.*"),
        lpw_jax.rank_one("mid/kernel"),
        lpw_jax.low_rank(1, "in/kernel"),
    ),
}


def combine(theta: Any, phi: Any) -> Any:
    """A member's parameters by the formulas of the kinds; arguments are divided as a state's."""
    banks = {
        f"{name}/kernel": getattr(layer["kernel"], "templates", layer["kernel"])
        for name, layer in theta.items()
        if "kernel" in layer
    }
    return {
        name: {leaf: _weight(shared, phi[name][leaf], banks) for leaf, shared in layer.items()}
        for name, layer in theta.items()
    }


def _weight(shared, own, banks):
    if own is None:
        own = getattr(shared, "coefficients", None)
    if own is None:
        return shared
    if hasattr(own, "inputs"):  # W[..., i, o] u[i] v[o]
        return jnp.einsum("...io,i,o->...io", shared, own.inputs, own.outputs)
    if hasattr(own, "left"):  # W + A B
        added = sum(own.left[:, r, None] * own.right[None, r] for r in range(own.right.shape[0]))
        return shared + added.reshape(shared.shape)
    if hasattr(own, "values"):  # W[..., j S + s, o] = sum_t T[..., j, o, t] c[t, s]
        bank = banks[own.bank]
        templates, splits = own.values.shape
        rows = [
            sum(bank[..., j, :, t] * own.values[t, s] for t in range(templates))
            for j in range(bank.shape[-3])
            for s in range(splits)
        ]
        return jnp.stack(rows, axis=-2)
    return own


def apart(state: lpw_jax.State) -> lpw_jax.State:
    """A released state in numpy arrays, with members that differ."""
    random = np.random.default_rng(3)
    spread = jax.tree.map(
        lambda leaf: leaf + 0.2 * random.standard_normal(leaf.shape), state.members
    )
    return state.replace(members=spread)


def split(tree: Any) -> list[Any]:
    """Members of a tree of [K, ...] arrays."""
    count = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda leaf, k=k: leaf[k], tree) for k in range(count)]


def linear(late_phase="head/w", optimizer=None, loss_fn=None, **settings):
    """y = W2 W1 x, of which W2 is late-phase."""

    def loss(params, model_state, batch, key):
        out = batch @ params["in"]["w"] @ params["head"]["w"]
        return jnp.square(out - 1).mean(), (model_state, {})

    optimizer = optax.sgd(0.1, momentum=0.9) if optimizer is None else optimizer
    kind = lpw_jax.copies(late_phase)
    return lpw_jax.LatePhase(loss_fn or loss, kind, optimizer, optimizer, **settings)


def linear_weights():
    random = np.random.default_rng(1)
    return {
        "in": {"w": jnp.asarray(random.standard_normal((3, 2)))},
        "head": {"w": jnp.asarray(random.standard_normal((2, 1)))},
    }


def released(method, num_members=3, params=None, model_state=None, key=None):
    state = jit(method.init)(linear_weights() if params is None else params, model_state, key=key)
    state = jit(functools.partial(method.release, num_members=num_members))(state)
    return apart(jax.device_get(state))


def minibatches(seed, num_members=3):
    return np.random.default_rng(seed).standard_normal((num_members, 4, 3))
