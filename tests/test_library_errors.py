"""Mistakes in the use of the library: each is refused by a message with path, rule and value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpw_jax

NUM_MEMBERS = 2


def weights():
    return {
        "norm": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)},
        "head": {"kernel": np.ones((3, 2), np.float32)},
    }


def statistics():
    return {"norm": {"mean": np.zeros(3, np.float32)}}


def loss_fn(params, model_state, batch, key):
    return jnp.sum(params["head"]["kernel"]) * batch["x"].mean(), (model_state, {})


def method_of(loss_fn=loss_fn, late_phase=None, **settings):
    optimizers = dict(shared_optimizer=optax.sgd(0.1), member_optimizer=optax.sgd(0.1))
    late_phase = lpw_jax.copies("head/.*") if late_phase is None else late_phase
    return lpw_jax.LatePhase(loss_fn, late_phase, **{**optimizers, **settings})


def batch(num_members=1, size=4):
    return {"x": np.zeros((num_members, size, 3), np.float32)}


def trace(method, state, *args):
    """Runs a step's checks without compiling it."""
    return jax.eval_shape(method.step, state, *args)


def released(method, model_state=None):
    return method.release(method.init(weights(), model_state), num_members=NUM_MEMBERS)


def refuses(error, *parts):
    """Expects an error whose message has all parts."""
    return pytest.raises(
        error, check=lambda e: all(part in str(e) for part in parts) or _show(e, parts)
    )


def _show(error, parts):
    raise AssertionError(f"{[p for p in parts if p not in str(error)]} not in: {error}") from error


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (lpw_jax.copies("head/.*", "tail/.*"), "copies"),
        (lpw_jax.rank_one("tail/.*"), "rank_one"),
        (lpw_jax.low_rank(1, "tail/.*"), "low_rank"),
        (lpw_jax.templates(lpw_jax.mixed("tail/.*", num_templates=2)), "mixed"),
    ],
)
def test_a_pattern_that_matches_nothing(kind, name):
    with refuses(ValueError, name, "'tail/.*'", "whole path", "3 leaves", "head/kernel, norm/bias"):
        method_of(late_phase=kind).init(weights(), key=jax.random.key(0))


def test_a_predicate_that_chooses_nothing():
    kind = lpw_jax.copies(lambda path, leaf: leaf.ndim > 2)
    with refuses(ValueError, "copies: must choose at least one of the 3 leaves", "head/kernel"):
        method_of(late_phase=kind).init(weights())


def test_a_selection_of_nothing_and_of_two_sorts():
    for selection, got in (((), "()"), (("head/.*", len), "('head/.*', <built-in function len>)")):
        with refuses(ValueError, "copies: must be patterns, or one predicate", got):
            method_of(late_phase=lpw_jax.copies(*selection)).init(weights())


def test_a_tree_of_bools_of_another_structure_or_of_other_things():
    with refuses(ValueError, "copies: a tree of bools must have the structure", "'tail'", "'norm'"):
        method_of(late_phase=lpw_jax.copies({"tail": True})).init(weights())
    with refuses(ValueError, "copies: a tree of bools must hold bools only, but has 2"):
        method_of(late_phase=lpw_jax.copies({"norm": False, "head": 2})).init(weights())
    with refuses(ValueError, "copies: must choose at least one"):
        method_of(late_phase=lpw_jax.copies({"norm": False, "head": False})).init(weights())


def test_a_leaf_that_cannot_be_trained():
    for leaf, parts in (
        (jnp.tanh, ("every leaf must be an array", "'act'", "eqx.partition")),
        (0.5, ("every leaf must be an array", "'act' is float")),
        (np.arange(3), ("every leaf must have a floating type", "'act' is int64", "model_state")),
    ):
        with refuses(TypeError, "params: ", *parts):
            method_of().init(weights() | {"act": leaf})
    with refuses(ValueError, "params: must have at least one array, but is {}"):
        method_of().init({})


def test_a_weight_that_two_kinds_choose():
    kinds = [lpw_jax.copies("head/.*"), lpw_jax.rank_one(".*/kernel")]
    with refuses(ValueError, "late_phase: a weight must be of one kind, but 'head/kernel'", "two"):
        method_of(late_phase=kinds).init(weights())


def test_a_weight_that_a_kind_cannot_have():
    for kind, rule in (
        (lpw_jax.rank_one("norm/scale"), "rank_one: a weight must have an axis of inputs (-2)"),
        (lpw_jax.low_rank(1, "norm/scale"), "low_rank: a weight must have at least two axes"),
        (
            lpw_jax.templates(lpw_jax.mixed("norm/scale", num_templates=2)),
            "mixed: a weight must be [..., in, out]",
        ),
    ):
        with refuses(ValueError, rule, "'norm/scale' has shape (3,)"):
            method_of(late_phase=kind).init(weights(), key=jax.random.key(0))
    kind = lpw_jax.templates(lpw_jax.mixed("head/.*", num_templates=2, split=2))
    with refuses(ValueError, "divisible by split = 2", "'head/kernel' has shape (3, 2)"):
        method_of(late_phase=kind).init(weights(), key=jax.random.key(0))


def test_numbers_of_kinds_below_one():
    for make, message in (
        (lambda: lpw_jax.low_rank(0, "head/.*"), "low_rank: rank must be >= 1, got 0"),
        (lambda: lpw_jax.mixed("a", num_templates=0), "mixed: num_templates must be >= 1, got 0"),
        (
            lambda: lpw_jax.mixed("a", num_templates=2, split=-1),
            "mixed: split must be >= 1, got -1",
        ),
    ):
        with refuses(ValueError, message):
            make()


def test_a_kind_that_draws_without_a_key():
    with refuses(ValueError, "init: low_rank draws random numbers", "key"):
        method_of(late_phase=lpw_jax.low_rank(1, "head/.*")).init(weights())


def test_what_is_no_kind():
    for late_phase in ("head/.*", ["head/.*"], [], None.__class__):
        with refuses(TypeError, "late_phase: must be a kind, such as lpw_jax.copies", "got "):
            method_of(late_phase=late_phase)


def test_a_batch_without_the_axis_of_members():
    method = method_of()
    state = method.init(weights())
    with refuses(
        ValueError, "[K, B, ...] with K = 1", "before the release", "'x' has shape (4, 3)"
    ):
        trace(method, state, {"x": np.zeros((4, 3))})
    with refuses(ValueError, "K = 2 members", "'x' has shape (3, 4, 3)"):
        trace(method, released(method), batch(3))
    with refuses(ValueError, "K = 2 members", "the batch has shape ()"):
        trace(method, released(method), np.zeros(()))
    with refuses(ValueError, "batch: must have at least one array, got {}"):
        trace(method, state, {})


def test_a_minibatch_that_microbatches_do_not_divide():
    method = method_of(num_microbatches=3)
    with refuses(ValueError, "divisible by num_microbatches = 3", "'x' has shape (1, 4, 3)"):
        trace(method, method.init(weights()), batch())
    with refuses(ValueError, "num_microbatches: must be >= 1, got 0"):
        method_of(num_microbatches=0)


def test_a_loss_that_is_no_scalar():
    method = method_of(lambda params, *_: (params["norm"]["scale"], (None, {})))
    with refuses(ValueError, "loss_fn: the loss must be a scalar, got shape (3,)"):
        trace(method, method.init(weights()), batch())


def test_a_loss_function_that_returns_something_else():
    for returned, parts in (
        (lambda loss: loss, ("must return (loss, (model_state, metrics))", "PyTreeDef(*)")),
        (lambda loss: (loss, {}), ("must return (loss, (model_state, metrics))",)),
        (lambda loss: (loss, (None, loss)), ("metrics must be a dict, got ",)),
    ):
        method = method_of(lambda *args, of=returned: of(loss_fn(*args)[0]))
        with refuses(ValueError, "loss_fn: ", *parts):
            trace(method, method.init(weights()), batch())


def test_a_model_state_of_another_structure():
    for before, returned, got in (
        (statistics(), {"norm": {}}, "'norm': {}"),
        (statistics(), {"norm": {"mean": {"a": np.zeros(3)}}}, "'a'"),
        (statistics(), None, "PyTreeDef("),
        (statistics(), {"norm": {"mean": None}}, "'mean': None"),
        (None, statistics(), "'mean'"),
    ):
        method = method_of(lambda *args, new=returned: (loss_fn(*args)[0], (new, {})))
        for state in (method.init(weights(), before), released(method, before)):
            with refuses(ValueError, "loss_fn: must return a model_state of the structure", got):
                trace(method, state, batch(state.num_members))


def test_a_model_state_of_another_shape_or_type():
    for new in (np.zeros(4, np.float32), np.zeros(3, np.float16)):
        for value in (new, lpw_jax.Observed(new, 0.1)):
            method = method_of(
                lambda *args, v=value: (loss_fn(*args)[0], ({"norm": {"mean": v}}, {}))
            )
            for state in (method.init(weights(), statistics()), released(method, statistics())):
                with refuses(
                    ValueError, "loss_fn: ", "'norm/mean'", "float32[3]", f"{new.dtype}[{len(new)}]"
                ):
                    trace(method, state, batch(state.num_members))


def test_a_second_release():
    method = method_of()
    with refuses(ValueError, "release: state: must be tied, not released before, got a released"):
        method.release(released(method), num_members=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(num_members=0), "release: num_members: must be >= 1, got 0"),
        (dict(num_members=2, sigma=-0.1), "release: sigma: must be >= 0, got -0.1"),
        (dict(num_members=2, sigma=float("nan")), "release: sigma: must be >= 0, got nan"),
        (dict(num_members=2, sigma=0.1), "release: key: must be given for noise, got None"),
    ],
)
def test_releases_that_cannot_be(settings, message):
    method = method_of()
    with refuses(ValueError, message):
        method.release(method.init(weights()), **settings)


def test_a_shared_optimiser_whose_state_does_not_go_by_weights():
    method = method_of(shared_optimizer=optax.flatten(optax.sgd(0.1, momentum=0.9)))
    with refuses(
        ValueError,
        "shared_optimizer: its state must have an array for each weight",
        "(12,)",
        "(6,)",
    ):
        method.release(method.init(weights()), num_members=2)


def test_unknown_rules():
    with refuses(ValueError, "coasting: must be one of none, reference, every_minibatch, got 'no'"):
        method_of(coasting="no")
    with refuses(ValueError, "member_mode: must be one of ('vmap', 'scan', 'unroll'), got 'pmap'"):
        method_of(member_mode="pmap")


def moving(params, model_state, batch, key):
    """Its layer `norm`, which is shared, writes its own state."""
    loss, _ = loss_fn(params, model_state, batch, key)
    return loss, (jax.tree.map(lambda leaf: leaf * 0.9, model_state), {})


def test_shared_state_that_members_change_in_turn_where_they_cannot():
    for settings, rule in (
        (dict(member_mode="vmap"), "member_mode = 'vmap'"),
        (dict(num_microbatches=2), "num_microbatches: must be 1"),
    ):
        method = method_of(moving, **settings)
        with refuses(ValueError, rule, "'norm/mean'", "lpw_jax.Observed", "member_state"):
            trace(method, released(method, statistics()), batch(NUM_MEMBERS))
    method = method_of(moving, member_axis="members")
    step = functools.partial(jax.vmap, axis_name="members")(method.step)
    state = jax.tree.map(lambda leaf: leaf[None], released(method, statistics()))
    with refuses(ValueError, "member_axis: ", "in turn", "'norm/mean'", "Observed", "member_state"):
        jax.eval_shape(step, state, jax.tree.map(lambda leaf: leaf[None], batch(NUM_MEMBERS)))


def test_model_state_in_no_module():
    with refuses(
        ValueError, "model_state: '0' is in no module with parameters", "member_state=True"
    ):
        method_of().init(weights(), [np.zeros(3, np.float32)])
    with refuses(ValueError, "member_state: every pattern", "'tail'"):
        method_of(member_state="tail").init(weights(), statistics())
