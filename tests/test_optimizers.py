"""Optimisers against PyTorch's rules, written out in numpy, alone and in cycles of members."""

import functools

import jax
import numpy as np
import optax
import pytest
import small_models
from jax import jit
from short_run import DIGITS

from lpw_jax import recipe
from lpw_jax.config import load_config
from lpw_jax.errors import ConfigError, UserError
from lpw_jax.method import optimizers

OURS = {
    "adam": optimizers.adam(decoupled=False),
    "adamw": optimizers.adam(decoupled=True),
    "optax:adamw": optimizers.with_rates(optax.adamw),
}
RATES = [(0.1, 0.05), (0.1, 0.05), (0.03, 0.02), (0.01, 0.0), (0.2, 0.3)]


class SlowAdam:
    """One weight's, after PyTorch's `adam` and `adamw`."""

    def __init__(self, weight, decoupled):
        self.weight, self.decoupled = np.array(weight), decoupled
        self.first, self.second, self.count = np.zeros_like(weight), np.zeros_like(weight), 0

    def step(self, grad, rate, decay):
        self.count += 1
        if self.decoupled:
            self.weight = self.weight * (1 - rate * decay)
        else:
            grad = grad + decay * self.weight
        self.first = 0.9 * self.first + (1 - 0.9) * grad
        self.second = 0.999 * self.second + (1 - 0.999) * grad * grad
        corrected = np.sqrt(self.second) / np.sqrt(1 - 0.999**self.count)
        step_size = rate / (1 - 0.9**self.count)
        self.weight = self.weight - step_size * self.first / (corrected + 1e-8)


@pytest.mark.parametrize("name", OURS)
def test_adam_is_pytorchs(float64, name):
    random = np.random.default_rng(0)
    params = {"a": random.standard_normal((2, 3)), "b": random.standard_normal(4)}
    slow = {key: SlowAdam(leaf, name != "adam") for key, leaf in params.items()}
    state, update = jit(OURS[name].init)(params), jit(OURS[name].update)
    promotion = "standard" if ":" in name else "strict"
    for number, (rate, decay) in enumerate(RATES):
        grads = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), params)
        if number == 3:  # a coasting step
            grads = jax.tree.map(np.zeros_like, grads)
        with jax.numpy_dtype_promotion(promotion):
            updates, state = update(grads, state, params, learning_rate=rate, weight_decay=decay)
        params = jax.tree.map(np.add, params, updates)
        for key, leaf in slow.items():
            leaf.step(grads[key], rate, decay)
            np.testing.assert_allclose(params[key], leaf.weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
def test_members_coast_with_adam_as_pytorchs_would(float64, decoupled):
    """Cycles of y = W2 W1 x, W2 late-phase, with other rates in each; a loop over members."""
    adam = optimizers.adam(decoupled=decoupled)
    method = small_models.linear(optimizer=adam, coasting="reference")
    state = small_models.released(method)
    shared = SlowAdam(state.shared["in"]["w"], decoupled)
    members = [SlowAdam(leaf, decoupled) for leaf in state.members["head"]["w"]]
    step = jit(method.step)
    for cycle, (rate, decay) in enumerate(RATES):
        batch = small_models.minibatches(cycle)
        rates = {"learning_rate": rate, "weight_decay": decay}
        member_rates = {"learning_rate": 2 * rate, "weight_decay": decay / 2}
        state, _ = step(state, batch, shared_args=rates, member_args=member_rates)
        total = 0
        for k, member in enumerate(members):
            if k == 0 and cycle > 0:
                for other in members[1:]:
                    other.step(np.zeros_like(other.weight), 2 * rate, decay / 2)
            hidden = batch[k] @ shared.weight
            error = 2 * (hidden @ member.weight - 1) / len(hidden)
            total = total + batch[k].T @ error @ member.weight.T
            member.step(hidden.T @ error, 2 * rate, decay / 2)
        shared.step(total, rate, decay)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
        close(state.shared["in"]["w"], shared.weight)
        close(state.members["head"]["w"], np.stack([member.weight for member in members]))


def configured(*fields):
    return load_config(DIGITS, [f"--config.{field}" for field in fields])


def no_decay(learning_rate):
    return optax.sgd(learning_rate)


def grows(learning_rate, weight_decay):
    """Not an optimiser: its state grows."""
    return optax.GradientTransformation(lambda p: (), lambda g, s, p: (g, (*s, learning_rate)))


def fails(learning_rate, weight_decay):
    return optax.sgd(learning_rate) if weight_decay > 0 else None


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "optax:lion"])
def test_an_optimiser_that_a_config_names_takes_the_rates_of_the_epoch(name):
    tx = recipe.optimizer(configured(f"train.optimizer={name}"))
    params, grads = {"w": np.float32([1, -2])}, {"w": np.float32([0.5, 0.5])}
    state, update = jit(tx.init)(params), jit(tx.update)
    sizes = []
    for rate, decay in ((0.1, 0.0), (0.05, 0.0), (0.0, 0.0), (0.1, 0.5)):
        updates, _ = update(grads, state, params, learning_rate=rate, weight_decay=decay)
        sizes.append(np.asarray(updates["w"]))
    np.testing.assert_allclose(sizes[1], sizes[0] / 2, rtol=1e-6)
    assert not sizes[2].any() and (sizes[3] != sizes[0]).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_optimizers:no_decay", "must take the arguments .* takes learning_rate$"),
        ("test_optimizers:configured", "must take the arguments learning_rate .* takes fields"),
        ("test_optimizers:grows", "a state of another structure"),
        ("test_optimizers:fails", "must not fail, but raised TracerBoolConversionError"),
        ("optax:lyon", "optax has no lyon .did you mean 'lion'"),
        ("nowhere:adam", "importing nowhere raised"),
    ],
)  # fmt: skip
def test_what_is_no_optimiser_is_refused_before_anything_is_built(name, message):
    with pytest.raises(UserError, match=f"^train.optimizer = '{name}': .*{message}"):
        recipe.optimizer(configured(f"train.optimizer={name}"))


def test_a_name_that_is_none_is_refused_when_a_config_is_read():
    message = r"train.optimizer = 'adm': must be one of sgd, adam, adamw, or .* mean 'adam'"
    with pytest.raises(ConfigError, match=message):
        configured("train.optimizer=adm")


def test_without_decays_an_optimiser_need_not_take_them():
    decays = ("train.weight_decay=0", "late_phase.weight_decay=0")
    assert recipe.optimizer(configured("train.optimizer=test_optimizers:no_decay", *decays))
