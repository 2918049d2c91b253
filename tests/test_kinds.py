"""Laws that hold for every kind of late-phase weights, and the formulas of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models
from jax import jit

import lpw_jax
from lpw_jax.method import noise

NUM_MEMBERS, B = 3, 4


def kinds(*quick):
    """Each kind; those that are not quick in the slow suite."""
    slow = [kind for kind in small_models.KINDS if kind not in quick]
    marked = [pytest.param(kind, marks=pytest.mark.slow) for kind in slow]
    return pytest.mark.parametrize("kind", [*quick, *marked])


every_kind = kinds("copies", "rank_one", "low_rank", "templates", "all")


@functools.cache
def method_of(kind, **others):
    optimizer = optax.sgd(0.1, momentum=0.9)
    kind = small_models.KINDS[kind]
    return lpw_jax.LatePhase(small_models.regression_loss, kind, optimizer, optimizer, **others)


@functools.cache
def programs(kind):
    """Compiled once for all laws, by shapes."""
    method = method_of(kind)
    return jit(method.step), jit(method.collapse), jit(lpw_jax.members)


@functools.cache
def tied(kind):
    method = method_of(kind)
    params = small_models.parameters(2)
    return jax.device_get(jit(method.init)(params, key=jax.random.key(0)))


def released(kind, num_members=NUM_MEMBERS):
    release = functools.partial(method_of(kind).release, num_members=num_members)
    return jax.device_get(jit(release)(tied(kind)))


def batch(seed, num_members):
    return small_models.PROBLEMS["regression"].batch(seed, num_members, B)


def numpy_regression(params, x):
    h = np.tanh(np.tanh(x @ params["in"]["kernel"]) @ params["mid"]["kernel"])
    h = h * params["norm"]["scale"] + params["norm"]["shift"]
    return h @ params["head"]["kernel"] + params["head"]["bias"]


def assert_close(got, wanted, **tolerance):
    tolerance = dict(rtol=1e-13, atol=1e-13) | tolerance
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), got, wanted)


@every_kind
def test_what_is_released_without_noise_computes_what_the_tied_network_did(float64, kind):
    members = programs(kind)[2]
    one, _ = members(tied(kind))
    all_of_them, _ = members(released(kind))
    x = batch(0, 1)["x"][0]
    wanted = numpy_regression(jax.tree.map(lambda leaf: np.array(leaf[0]), one), x)
    for params in small_models.split(jax.device_get(all_of_them)):
        assert_close(numpy_regression(params, x), wanted)


@pytest.mark.parametrize("kind", [kind for kind in small_models.KINDS if "templates" not in kind])
def test_a_network_starts_as_the_one_that_was_given(float64, kind):
    params, _ = programs(kind)[2](tied(kind))
    assert_close(jax.tree.map(lambda leaf: leaf[0], params), small_models.parameters(2))


@kinds("rank_one", "templates", "all")
def test_one_member_is_trained_as_the_tied_network_is(float64, kind):
    step, _, members = programs(kind)
    one, other = tied(kind), released(kind, num_members=1)
    for seed in range(3):
        one, metrics = step(one, batch(seed, 1))
        other, other_metrics = step(other, batch(seed, 1))
        assert_close(metrics, other_metrics)
    assert_close(members(one), members(other))


@kinds("copies", "low_rank")
def test_permuted_members_permute_phi_and_leave_theta(float64, kind):
    step = programs(kind)[0]
    one = small_models.apart(released(kind))
    order = np.array([2, 0, 1])
    other = jax.device_get(lpw_jax.select_members(one, order))
    for seed in range(2):
        minibatches = batch(seed, NUM_MEMBERS)
        one, metrics = step(one, minibatches)
        other, permuted = step(other, jax.tree.map(lambda leaf: leaf[order], minibatches))
        assert_close(permuted, jax.tree.map(lambda leaf: leaf[order], jax.device_get(metrics)))
    one = jax.device_get(one)
    assert_close(other.shared, one.shared)
    assert_close(other.members, jax.tree.map(lambda leaf: leaf[order], one.members))


@every_kind
def test_equal_members_collapse_to_the_member(float64, kind):
    _, collapse, members = programs(kind)
    state = released(kind)
    params, model_state = collapse(state)
    assert model_state is None
    assert_close(params, jax.tree.map(lambda leaf: leaf[0], members(state)[0]))


@every_kind
def test_members_collapse_by_the_formula_of_their_kind(float64, kind):
    _, collapse, members = programs(kind)
    state = small_models.apart(released(kind))
    theta, phis = state.shared, state.members
    if kind in ("low_rank", "several"):
        effective = [small_models.combine(theta, phi) for phi in small_models.split(phis)]
        wanted = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *effective)
        if kind == "several":  # the means of u and v, not of their product
            factors = jax.tree.map(lambda leaf: leaf.mean(0), phis["mid"]["kernel"])
            wanted["mid"]["kernel"] = theta["mid"]["kernel"] * np.outer(
                factors.inputs, factors.outputs
            )
    else:
        wanted = small_models.combine(theta, jax.tree.map(lambda leaf: leaf.mean(0), phis))
    params, _ = collapse(state)
    assert_close(params, wanted)
    if kind in (
        "copies",
        "all",
        "templates",
        "shared templates",
    ):  # linear: the mean of the members' weights
        assert_close(params, jax.tree.map(lambda leaf: leaf.mean(0), members(state)[0]))


def test_noise_is_of_the_size_of_each_array_and_each_member_has_its_own(float64):
    leaf = np.full((4, 50, 40), 3.0)
    tree = {"a": leaf, "b": {"c": leaf}}
    noisy = jit(lambda key: noise.perturb(key, tree, 0.5))(jax.random.key(0))
    found = np.concatenate([noisy["a"], noisy["b"]["c"]]) - 3.0
    np.testing.assert_allclose(found.std((1, 2)), 1.5, rtol=0.1)
    correlations = np.corrcoef(found.reshape(8, -1))
    assert np.abs(correlations - np.eye(8)).max() < 0.1


@pytest.mark.slow
def test_noise_depends_neither_on_other_leaves_nor_on_other_members(float64):
    leaf = np.full((4, 5), 3.0)
    tree, part = {"a": leaf, "b": {"c": leaf}}, {"b": {"c": leaf[:2]}}
    noisy, alone = (
        jit(functools.partial(noise.perturb, members=some, sigma=0.5))(jax.random.key(0))
        for some in (tree, part)
    )
    np.testing.assert_allclose(alone["b"]["c"], noisy["b"]["c"][:2], rtol=1e-14)  # two programs


@pytest.mark.slow
def test_release_adds_noise_to_what_is_members_own_only(float64):
    method = lpw_jax.LatePhase(lambda *_: None, lpw_jax.copies("a"), optax.sgd(0.1), optax.sgd(0.1))
    state = jit(method.init)({"a": np.full((50, 40), 2.0), "b": np.ones(3)})
    release = functools.partial(method.release, num_members=4, sigma=0.1)
    released = jit(release)(state, jax.random.key(0))
    np.testing.assert_array_equal(released.shared["b"], 1.0)
    noise = np.asarray(released.members["a"]) - 2.0
    np.testing.assert_allclose(noise.std((1, 2)), 0.2, rtol=0.1)


def test_factors_scale_the_axes_that_are_inputs_and_outputs():
    random = np.random.default_rng(0)
    weight, u, v = (random.standard_normal(shape) for shape in ((3, 2, 5), (2,), (3,)))
    factored = lpw_jax.Factored(weight, u, v, axes=(1, 0))  # as equinox's convolutions
    np.testing.assert_allclose(
        factored.effective(), np.einsum("oix,i,o->oix", weight, u, v), rtol=1e-6
    )


def test_a_low_rank_addition_takes_all_but_the_last_axis_as_inputs(float64):
    make = functools.partial(lpw_jax.low_rank(2, "w").make, {"w": np.ones((3, 5, 100))})
    shared, own = jax.eval_shape(make, jax.random.key(0))["w"]
    assert (own.left.shape, own.right.shape) == ((15, 2), (2, 100))
    assert shared.shape == (3, 5, 100)


def test_low_rank_additions_start_as_nothing(float64):
    own = tied("low_rank").members["mid"]["kernel"]
    assert own.left.all() and not own.right.any()
    assert 0.2 < own.left.std() < 1  # 4 ** -0.5


def test_low_rank_additions_alone_are_trained_where_the_shared_optimiser_does_nothing(float64):
    method = lpw_jax.LatePhase(
        small_models.regression_loss,
        lpw_jax.low_rank(1, "mid/kernel"),
        optax.set_to_zero(),
        optax.sgd(0.1),
    )
    params = small_models.parameters(2)
    state = jit(method.init)(params, key=jax.random.key(0))
    state = jit(functools.partial(method.release, num_members=2))(state)
    trained, _ = jit(method.step)(state, batch(0, 2))
    jax.tree.map(np.testing.assert_array_equal, trained.shared, params)
    assert jnp.any(trained.members["mid"]["kernel"].right != 0)
