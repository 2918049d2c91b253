"""States as plain pytrees: saved, donated, averaged, divided into members; what schedules count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import small_models
from jax import jit

import lpw_jax

NUM_MEMBERS, B = 3, 4
INPUTS = np.random.default_rng(0).standard_normal((4, B, 3))


def assert_close(got, wanted, **tolerance):
    tolerance = dict(rtol=1e-12, atol=1e-12) | tolerance
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), got, wanted)


def test_states_and_averages_are_saved_by_orbax(float64, tmp_path):
    method = small_models.linear(optimizer=optax.adam(0.1))
    state = small_models.released(method)
    saved = {"state": state, "average": jax.device_get(lpw_jax.Average.start(state).add(state))}
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "all", jax.tree.map(jnp.asarray, saved))
        checkpointer.wait_until_finished()
        found = checkpointer.restore(tmp_path / "all", like)
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    assert isinstance(found["state"], lpw_jax.State) and found["state"].is_released
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), saved)


def remembers(rate):
    """An optimiser that keeps the first weights in its state and pulls towards them."""

    def update(grads, first, params=None):
        updates = jax.tree.map(lambda g, p, f: -rate * (g + 0.1 * (p - f)), grads, params, first)
        return updates, first

    return optax.GradientTransformation(lambda params: params, update)


@pytest.mark.parametrize(
    "optimizer",
    [remembers(0.1), pytest.param(optax.sgd(0.1, momentum=0.9), marks=pytest.mark.slow)],
    ids=["keeps_weights", "momentum"],
)
def test_donated_states_leave_what_they_were_made_of(float64, optimizer):
    params, model_state = (
        small_models.linear_weights(),
        {"in": {"seen": jnp.ones(2)}, "head": {"seen": jnp.ones(2)}},
    )
    wanted = jax.device_get((params, model_state))
    method = small_models.linear(optimizer=optimizer)
    step = jit(method.step, donate_argnums=0)
    state = method.init(params, model_state)
    for seed in range(2):
        state, _ = step(state, small_models.minibatches(seed, 1))
    state = method.release(state, num_members=NUM_MEMBERS)
    for seed in range(2):
        state, _ = step(state, small_models.minibatches(seed))
    jax.tree.map(np.testing.assert_array_equal, (params, model_state), wanted)


def forward(params, model_state, x):
    return x @ params["in"]["w"] @ params["head"]["w"]


@pytest.mark.parametrize("member_mode", ["vmap", "scan", "unroll"])
def test_members_predict_as_networks_of_their_own(float64, member_mode):
    state, x = small_models.released(small_models.linear()), INPUTS[0]
    own, shared = state.members["head"]["w"], state.shared["in"]["w"]
    wanted = np.stack([x @ shared @ w for w in own])
    run = functools.partial(lpw_jax.map_members, forward, member_mode=member_mode)
    assert_close(jit(run)(state, x), wanted)
    if member_mode == "vmap":
        params, model_state = jit(lpw_jax.members)(state)
        assert_close(jit(jax.vmap(forward, in_axes=(0, None, None)))(params, None, x), wanted)
        params, model_state = lpw_jax.member(state, 2)
        assert_close(forward(params, model_state, x), wanted[2])


def test_selected_members_are_trained_as_they_were(float64):
    method = small_models.linear(optimizer=optax.adam(0.1))
    step = jit(method.step)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam
        state, _ = step(small_models.released(method), small_models.minibatches(0))
        some = jax.device_get(lpw_jax.select_members(state, [2, 0]))
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, np.asarray(b)[[2, 0]]),
            (some.members, some.member_opt_state),
            (state.members, state.member_opt_state),
        )
        assert some.num_members == 2
        params, _ = method.collapse(some)
    assert_close(params["head"]["w"], np.asarray(state.members["head"]["w"])[[2, 0]].mean(0))


def test_a_greedy_soup_takes_members_that_do_not_harm_it(float64):
    state = small_models.released(small_models.linear(), 4)
    own = np.array([3.0, 1.0, -0.9, 5.0])[:, None, None] * np.ones((2, 1))
    state = state.replace(members=state.members | {"head": {"w": own}})
    asked = []

    def score(some):
        values = np.asarray(some.members["head"]["w"])[:, 0, 0]
        asked.append(sorted(values))
        return -abs(values.mean() - 0.04)

    # Alone: -0.9 and 1.0 are best, in this order; together they are better, with a third worse.
    assert lpw_jax.greedy_soup(state, score) == [2, 1]
    assert asked[:4] == [[3.0], [1.0], [-0.9], [5.0]]
    assert asked[4:] == [[-0.9, 1.0], [-0.9, 1.0, 3.0], [-0.9, 1.0, 5.0]]


def test_an_ensemble_is_the_mean_of_probabilities(float64):
    logits = np.random.default_rng(0).standard_normal((3, 2, 5, 4)) * 10
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = jit(lpw_jax.ensemble)(logits)
    assert_close(np.exp(found), probabilities.mean(0))
    huge = jit(lpw_jax.ensemble)(np.array([[0.0, 1e4], [0.0, 1e4]]))
    assert_close(huge, np.array([-1e4, 0.0]))


def test_schedules_over_minibatches_are_read_at_the_first_of_a_cycle():
    release_step, num_members = 5, 3
    read = dict(release_step=release_step, num_members=num_members)
    shared = lpw_jax.per_shared_update(lambda minibatch: minibatch, **read)
    member = lpw_jax.per_member_update(lambda minibatch: minibatch, **read)
    minibatch, updates = 0, 0
    while minibatch < release_step:
        assert int(shared(updates)) == minibatch
        minibatch, updates = minibatch + 1, updates + 1
    for cycle in range(4):
        assert int(shared(updates)) == minibatch == int(member(cycle))
        minibatch, updates = minibatch + num_members, updates + 1


def test_optimisers_count_as_their_schedules_say(float64):
    """The rate that an update was made with is the schedule's at the state's `step`."""
    release_step = 2
    read = dict(release_step=release_step, num_members=NUM_MEMBERS)

    def loss(params, model_state, batch, key):
        return params["in"]["w"].sum() + params["head"]["w"].sum(), (model_state, {})

    def over(per_update):
        return optax.sgd(per_update(lambda minibatch: jnp.asarray(minibatch + 1, float), **read))

    shared, member = over(lpw_jax.per_shared_update), over(lpw_jax.per_member_update)
    method = lpw_jax.LatePhase(loss, lpw_jax.copies("head/w"), shared, member)
    step, state = jit(method.step), jit(method.init)(small_models.linear_weights())

    def moved(before, after):
        return np.unique(np.round(np.asarray(before) - np.asarray(after), 9)).tolist()

    for number in range(release_step):
        before = state
        state, _ = step(state, small_models.minibatches(0, 1))
        assert moved(before.shared["in"]["w"], state.shared["in"]["w"]) == [1.0 + number]
    state = jit(functools.partial(method.release, num_members=NUM_MEMBERS))(state)
    for _ in range(2):
        before = state
        state, _ = step(state, small_models.minibatches(0))
        rate = 1.0 + int(before.step)
        assert moved(before.shared["in"]["w"], state.shared["in"]["w"]) == [NUM_MEMBERS * rate]
        assert moved(before.members["head"]["w"], state.members["head"]["w"]) == [rate]


def test_members_that_there_are_not():
    state = small_models.released(small_models.linear())
    with pytest.raises(IndexError, match="k: must be 0 to 2, got 3"):
        lpw_jax.member(state, 3)
    for chosen in ([], [0, 3], [-1]):
        with pytest.raises(ValueError, match="chosen: must be numbers of members, 0 to 2, got "):
            lpw_jax.select_members(state, chosen)
