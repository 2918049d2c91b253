"""Whole trainings, tied and late-phase, equal a slow Python loop written from Algorithm 1."""

import functools

import algorithm_1
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models
from jax import jit

import lpw_jax

NUM_MEMBERS, B = 3, 4
MASK = {
    "in": True,
    "mid": {"kernel": True},
    "norm": False,
    "head": {"kernel": True, "bias": False},
}


def matrices(tree):
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, tree)


def noisy_sign(rate):
    """Clipping, and signs of momenta."""
    return optax.chain(optax.clip_by_global_norm(0.5), optax.lion(rate, weight_decay=0.1))


def by_argument():
    """Its rate is an argument of `update`."""

    def update(grads, state, params=None, *, rate, **_):
        return jax.tree.map(lambda g: -rate * g, grads), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def schedule(count):
    return 0.05 / (1 + count)


# Shared and members' optimisers, as functions of what makes a tree from one for the parameters.
OPTIMIZERS = {
    "momentum": (
        lambda of: optax.sgd(0.1, momentum=0.9, nesterov=True),
        lambda of: optax.sgd(0.2, momentum=0.8),
    ),
    "adamw": (
        lambda of: optax.adamw(schedule, weight_decay=0.1),
        lambda of: optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(schedule)),
    ),
    "lion": (lambda of: noisy_sign(0.01), lambda of: noisy_sign(0.02)),
    "mask_tree": (
        lambda of: optax.adamw(0.1, mask=of(MASK)),
        lambda of: optax.chain(
            optax.masked(optax.add_decayed_weights(0.2), of(MASK)), optax.sgd(0.1, momentum=0.9)
        ),
    ),
    "mask_function": (
        lambda of: optax.adamw(0.1, mask=matrices),
        lambda of: optax.chain(optax.add_decayed_weights(0.1, mask=matrices), optax.sgd(0.1)),
    ),
    "labels": (
        lambda of: optax.partition(
            {True: optax.adam(0.01), False: optax.sgd(0.1, momentum=0.9)}, of(MASK)
        ),
        lambda of: optax.sgd(0.1),
    ),
    "hyperparameters": (
        lambda of: optax.inject_hyperparams(optax.adamw)(schedule, weight_decay=0.1),
        lambda of: optax.inject_hyperparams(optax.sgd)(schedule, momentum=0.5),
    ),
    "arguments": (
        lambda of: optax.chain(optax.trace(0.9), by_argument()),
        lambda of: optax.chain(optax.add_decayed_weights(0.1), by_argument()),
    ),
}


STRICT = ("momentum", "lion", "arguments")  # optax's Adam counts in int32


def shared_args(optimizer, number):
    return {"rate": 0.1 / (1 + number)} if optimizer == "arguments" else {}


def member_args(optimizer, number):
    return {"rate": 0.2 / (1 + number)} if optimizer == "arguments" else {}


def assert_equal(got, wanted):
    wanted = jax.tree.map(np.asarray, wanted)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), got, wanted)


def check(problem, kind, optimizer, **others):
    """Trains both for two tied steps and some cycles; states and metrics agree after each."""
    with jax.numpy_dtype_promotion("strict" if optimizer in STRICT else "standard"):
        _check(problem, kind, optimizer, **others)


def _check(
    problem,
    kind,
    optimizer,
    *,
    coasting="none",
    member_mode=None,
    num_microbatches=1,
    gamma=1.0,
    cycles=3,
    tied_steps=2,
    seed=0,
):
    params, loss_fn, batch_of = small_models.PROBLEMS[problem]
    shared_optimizer, member_optimizer = OPTIMIZERS[optimizer]
    method = lpw_jax.LatePhase(
        loss_fn,
        small_models.KINDS[kind] if isinstance(kind, str) else kind,
        shared_optimizer(lambda tree: tree),
        member_optimizer(lambda tree: tree),
        coasting=coasting,
        shared_grad_scale=gamma,
        member_mode=member_mode,
        num_microbatches=num_microbatches,
    )
    key = jax.random.key(seed) if problem == "sequence" else None
    state = jax.device_get(jit(method.init)(params, key=jax.random.key(1)))
    step = jit(method.step)
    loop = algorithm_1.Loop(
        loss_fn,
        small_models.combine,
        state.shared,
        jax.tree.map(lambda leaf: leaf[0], state.members),
        shared_optimizer=shared_optimizer,
        member_optimizer=member_optimizer,
        coasting=coasting,
        gamma=gamma,
        num_microbatches=num_microbatches,
    )

    for number in range(tied_steps):
        batch, args = batch_of((seed, number), 1, B), shared_args(optimizer, number)
        state, metrics = step(state, batch, key, shared_args=args)
        assert_equal(
            jax.tree.map(lambda leaf: leaf[0], metrics), loop.tied_step(batch, key, **args)
        )
    release = functools.partial(method.release, num_members=NUM_MEMBERS)
    state = small_models.apart(jax.device_get(jit(release)(state)))
    loop.release(small_models.split(state.members))
    assert_equal(state.shared, loop.theta)

    for number in range(cycles):
        batch = batch_of((seed, 10 + number), NUM_MEMBERS, B)
        args = dict(
            shared_args=shared_args(optimizer, number), member_args=member_args(optimizer, number)
        )
        state, metrics = step(state, batch, key, **args)
        assert_equal(metrics, loop.cycle(batch, key, **args))
        assert_equal(state.shared, loop.theta)
        assert_equal(state.members, jax.tree.map(lambda *leaves: np.stack(leaves), *loop.phis))
    assert int(state.step) == loop.step == tied_steps + NUM_MEMBERS * cycles
    opts = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(loop.member_opts))
    assert_equal(jax.tree.leaves(state.member_opt_state), jax.tree.leaves(opts))
    assert_equal(jax.tree.leaves(state.shared_opt_state), jax.tree.leaves(loop.shared_opt))


@pytest.mark.parametrize(
    ("problem", "kind", "optimizer", "others"),
    [
        ("sequence", "copies", "lion", dict(member_mode="scan", num_microbatches=2, tied_steps=0)),
        (
            "regression",
            "shared templates",
            "hyperparameters",
            dict(member_mode="unroll", tied_steps=0),
        ),
        ("two_inputs", "all", "arguments", dict(coasting="every_minibatch", gamma=0.5)),
    ],
)
def test_training_equals_algorithm_1(float64, problem, kind, optimizer, others):
    check(problem, kind, optimizer, **others)


def test_factors_on_activations_train_as_effective_weights_do(float64):
    kind = lpw_jax.rank_one(".*/kernel", on_activations=True)
    check("regression", kind, "momentum", coasting="reference", member_mode="vmap", tied_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "kind", "optimizer", "others"),
    [
        ("two_inputs", "low_rank", "mask_function", dict(member_mode="scan")),
        ("regression", "copies", "momentum", dict(coasting="reference", member_mode="vmap")),
        ("regression", "copies", "mask_tree", dict(coasting="every_minibatch", gamma=0.25)),
        ("sequence", "rank_one", "adamw", dict(num_microbatches=2)),
        ("regression", "templates", "momentum", dict(member_mode="vmap")),
        ("regression", "several", "labels", dict(num_microbatches=2, member_mode="scan")),
    ],
)
def test_more_trainings_equal_algorithm_1(float64, problem, kind, optimizer, others):
    check(problem, kind, optimizer, **others)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_trainings_equal_algorithm_1(float64, seed):
    draw = np.random.default_rng(seed).choice
    check(
        draw(list(small_models.PROBLEMS)),
        str(draw(list(small_models.KINDS))),
        draw(list(OPTIMIZERS)),
        coasting=str(draw(["none", "reference", "every_minibatch"])),
        member_mode=draw(np.array([None, "vmap", "scan", "unroll"], dtype=object)),
        num_microbatches=int(draw([1, 2])),
        gamma=float(draw([1.0, 0.3])),
        seed=seed,
    )
