"""Models of other libraries: trained as plain loops do it, batch norm and its state included."""

import dataclasses
import functools

import algorithm_1
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from algorithm_1 import INPUTS, WIDTH, B
from flax import nnx
from jax import jit
from small_models import double

import lpw_jax

pytestmark = pytest.mark.usefixtures("foreign_arithmetic")


def squares(out, wanted):
    return jnp.square(out - wanted).mean()


class Linen(nn.Module):
    """Batch norms with momenta and epsilons that are not the project's."""

    @nn.compact
    def __call__(self, x):
        layer = dict(param_dtype=jnp.float64)
        norm = functools.partial(nn.BatchNorm, use_running_average=False, **layer)
        x = nn.Dense(WIDTH, name="in", **layer)(x)
        x = jnp.tanh(norm(momentum=0.8, epsilon=1e-3, name="bn1")(x))
        x = norm(momentum=0.6, epsilon=0.1, name="bn2")(nn.Dense(WIDTH, name="mid", **layer)(x))
        return nn.Dense(WIDTH, name="head", **layer)(jnp.tanh(x))


def linen_loss(params, model_state, batch, key):
    x, y = batch
    out, new = Linen().apply({"params": params, **model_state}, x, mutable=["batch_stats"])
    return squares(out, y), (new, {"outputs": out})


@pytest.mark.parametrize(
    ("member_mode", "tied"), [(None, False), pytest.param("scan", True, marks=pytest.mark.slow)]
)
def test_linen_with_one_batch_norm_late_phase_and_one_shared(member_mode, tied):
    variables = double(jit(Linen().init)(jax.random.key(0), np.zeros((B, INPUTS))))
    algorithm_1.check(
        variables["params"],
        {"batch_stats": variables["batch_stats"]},
        linen_loss,
        kind=lpw_jax.copies("bn1/.*", "head/.*"),
        late=("bn1", "head"),
        own=("bn1",),
        tied=tied,
        member_mode=member_mode,
    )


class Nnx(nnx.Module):
    def __init__(self, rngs):
        layer = dict(param_dtype=jnp.float64, rngs=rngs)
        self.inner = nnx.Linear(INPUTS, WIDTH, **layer)
        self.bn1 = nnx.BatchNorm(WIDTH, momentum=0.8, epsilon=1e-3, **layer)
        self.bn2 = nnx.BatchNorm(WIDTH, momentum=0.6, epsilon=0.1, **layer)
        self.head = nnx.Linear(WIDTH, WIDTH, **layer)

    def __call__(self, x):
        return self.head(jnp.tanh(self.bn2(jnp.tanh(self.bn1(self.inner(x))))))


@pytest.mark.parametrize("shared", ["bn2", pytest.param("neither", marks=pytest.mark.slow)])
def test_nnx_states(shared):
    graph, params, model_state = nnx.split(
        jax.tree.map(jnp.asarray, Nnx(nnx.Rngs(0))), nnx.Param, ...
    )

    def loss_fn(params, model_state, batch, key):
        x, y = batch
        model = nnx.merge(graph, params, model_state)
        loss = squares(model(x), y)
        return loss, (nnx.split(model, nnx.Param, ...)[2], {})

    late = tuple(name for name in ("bn1", "bn2") if name != shared)
    kind = lpw_jax.copies(*(f"{name}/(scale|bias)" for name in late))
    algorithm_1.check(params, double(model_state), loss_fn, kind=kind, late=late, own=late)


def equinox_model():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        inner: eqx.nn.Linear
        bn: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout
        head: eqx.nn.Linear
        slow_loss: eqx.nn.StateIndex

        def __init__(self):
            one, two = jax.random.split(jax.random.key(0))
            self.inner = eqx.nn.Linear(INPUTS, WIDTH, key=one)
            self.bn = eqx.nn.BatchNorm(WIDTH, axis_name="b", mode="batch", momentum=0.7, eps=1e-3)
            self.drop = eqx.nn.Dropout(0.3)
            self.head = eqx.nn.Linear(WIDTH, WIDTH, key=two)
            self.slow_loss = eqx.nn.StateIndex(jnp.zeros(()))

        def __call__(self, x, state, key):
            x, state = self.bn(self.inner(x), state)
            return self.head(self.drop(jnp.tanh(x), key=key)), state

    whole, state = eqx.nn.make_with_state(Model)()
    params, static = eqx.partition(whole, eqx.is_inexact_array)

    def loss_fn(params, state, batch, key):
        model = eqx.combine(params, static)
        run = jax.vmap(model, axis_name="b", in_axes=(0, None, 0), out_axes=(0, None))
        out, state = run(batch[0], state, jax.random.split(key, B))
        loss = squares(out, batch[1])
        # Outside of vmap equinox refuses the state that came before.
        state = state.set(model.slow_loss, 0.5 * state.get(model.slow_loss) + 0.5 * loss)
        return loss, (state, {})

    return params, state, loss_fn


@pytest.mark.parametrize("is_own", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equinox_modules_with_dropout(is_own):
    params, state, loss_fn = equinox_model()
    with pytest.raises(ValueError, match="model_state: .* is in no module.*member_state=True"):
        lpw_jax.LatePhase(loss_fn, lpw_jax.copies("bn/.*"), optax.sgd(0.1), optax.sgd(0.1)).init(
            params, state
        )
    algorithm_1.check(
        params,
        state,
        loss_fn,
        kind=lpw_jax.copies("bn/(weight|bias)", "head/.*"),
        late=("bn", "head"),
        own=("",) if is_own else (),
        member_state=is_own,
        key=jax.random.key(1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("late", ["batch_norm", "linear_1"])
def test_haiku(late):
    hk = pytest.importorskip("haiku")

    def model(x):
        norm = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.7, eps=1e-3)
        x = norm(hk.Linear(WIDTH)(x), is_training=True)
        return hk.Linear(WIDTH)(jnp.tanh(x))

    net = hk.transform_with_state(model)
    params, state = jit(net.init)(jax.random.key(0), np.zeros((B, INPUTS)))

    def loss_fn(params, state, batch, key):
        out, state = net.apply(params, state, None, batch[0])
        return squares(out, batch[1]), (state, {})

    own = (late,) if late == "batch_norm" else ()
    algorithm_1.check(
        params, state, loss_fn, kind=lpw_jax.copies(f"{late}/.*"), late=(f"'{late}'",), own=own
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: jax.Array
    shift: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Weights:
    inner: Layer
    outer: Layer
    unused: None = None


def dataclass_model():
    random = np.random.default_rng(0)
    layers = (
        Layer(random.standard_normal((inputs, WIDTH)), random.standard_normal(WIDTH))
        for inputs in (INPUTS, WIDTH)
    )
    zeros = {"mean": np.zeros(WIDTH), "count": np.zeros((), int)}
    return Weights(*layers), {"inner": zeros, "outer": zeros}


def centering_loss(params, state, batch, key, *, observed, by_state):
    """Each layer has a mean as its state, and subtracts this or that of the minibatch."""
    h, new = batch[0], {}
    for name in ("inner", "outer"):
        layer = getattr(params, name)
        h = h @ layer.weight
        seen = lpw_jax.Observed(h.mean(0), 0.25)
        h = jnp.tanh(h - (state[name]["mean"] if by_state else seen.value) + layer.shift)
        new[name] = {"mean": seen, "count": state[name]["count"]}
        if not observed:
            new[name] = {
                "mean": seen.follow(state[name]["mean"]),
                "count": state[name]["count"] + 1,
            }
    return squares(h, batch[1]), (new, {})


def test_a_dataclass_whose_members_see_what_those_before_them_left():
    loss_fn = functools.partial(centering_loss, observed=False, by_state=True)
    mask = Weights(Layer(False, False), Layer(False, True))
    kind = lpw_jax.copies(mask)
    algorithm_1.check(
        *dataclass_model(), loss_fn, kind=kind, late=(".outer.shift",), own=("outer",)
    )


@pytest.mark.parametrize(
    ("member_mode", "num_microbatches"),
    [
        ("vmap", 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("vmap", 1), ("scan", 2)]),
    ],
)
def test_what_layers_observed_follows_in_turn(member_mode, num_microbatches):
    """Of late-phase layers and of shared ones, as where they change their state themselves."""
    loss_fn = functools.partial(centering_loss, by_state=False)

    def plain_loss(params, state, batch, key):
        loss, (new, metrics) = loss_fn(params, state, batch, key, observed=False)
        counts = {name: {"mean": new[name]["mean"], "count": state[name]["count"]} for name in new}
        return loss, (counts, metrics)

    algorithm_1.check(
        *dataclass_model(),
        functools.partial(loss_fn, observed=True),
        plain_loss=plain_loss,
        kind=lpw_jax.copies("outer/shift"),
        late=(".outer.shift",),
        own=("outer",),
        member_mode=member_mode,
        num_microbatches=num_microbatches,
    )
