"""Closed forms of the noisy quadratic problem against exact recursions and the library."""

import functools
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpw_jax

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    fast = {"xla_backend_optimization_level": 2, "xla_cpu_use_fusion_emitters": True}
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=fast))  # it is long
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield importlib.import_module("noisy_quadratic")


def moments(example, rate, h, square, steps, *, minibatches=1):
    """E w^2 and E of the squared mean of w after each step, from E w^2 = square.

    The second moments of w and of the sum of all w so far follow a recursion of their own.
    """
    a, noise = 1 - rate * h, (rate * h) ** 2 / minibatches
    both = total = 0.0  # E of w times the sum, and of the squared sum
    for n in range(1, steps + 1):
        square, both = a**2 * square + noise, a * both
        total, both = total + 2 * both + square, both + square
        yield square, total / n**2


def test_closed_forms_follow_from_the_update(example):
    k, rate, steps = example.K, example.RATE, 40
    expected = dict.fromkeys(example.closed_forms(k), 0.0)
    for number, h, is_sharp in zip((5, 20), example.CURVATURES, (True, False), strict=True):
        *_, (start, _) = moments(example, rate, h, example.START**2, example.RELEASE)
        *_, plain = moments(example, rate, h, start, k * steps)
        late_rate = rate if is_sharp else k * rate  # of the mean gradient over a cycle
        *_, late = moments(example, late_rate, h, start, steps, minibatches=k)
        *_, slow = moments(example, rate / k, h, start, k * steps)
        for name, square in zip(expected, (*plain, *late, slow[0]), strict=True):
            expected[name] += h / 2 * number * square
    assert example.closed_forms(k * steps) == pytest.approx(expected, rel=1e-9)


def test_late_phase_divides_the_variance_at_the_speed_of_sgd(example):
    """What docs/noisy_quadratic.md states of this problem."""
    end = example.closed_forms(10**6)
    assert end["late-phase"] == pytest.approx(end["SGD"] / example.K, rel=0.01)
    on_the_way = example.closed_forms(500)
    assert on_the_way["late-phase"] < min(
        on_the_way[other] for other in ("SGD", "SWA", "SGD, rate / K")
    )
    assert end["SWA"] < end["late-phase"]


def compared(example):
    """Simulated over expected, of means over the minibatches 100 to 300 and 1,000 to 3,000."""
    found = example.main(["--quick"])
    assert len(found) == 4
    for name, losses in found.items():
        every = example.MINIBATCHES // len(losses)
        for window in (range(100, 301, every), range(1000, 3001, every)):
            simulated = np.mean([losses[n // every - 1] for n in window])
            yield simulated / np.mean([example.closed_forms(n)[name] for n in window])


@pytest.mark.slow
def test_the_library_does_as_the_closed_forms_say(example):
    assert list(compared(example)) == pytest.approx([1] * 8, rel=0.05)


def test_cycles_from_the_start_do_so_too(example, monkeypatch):
    monkeypatch.setattr(example, "RELEASE", 0)
    params = {n: np.full((1000, d), example.START, np.float32) for n, d in example.NUMBERS.items()}
    state = example.method.release(example.method.init(params), num_members=example.K)
    _, found = example.trained(state, jax.random.key(0), 30)
    for name, losses in zip(("late-phase", "late-phase SWA"), found, strict=True):
        expected = [example.closed_forms(example.K * n)[name] for n in range(1, 31)]
        np.testing.assert_allclose(losses, expected, rtol=0.03)


def test_added_late_phase_weights_do_as_the_page_derives():
    """The mean over members is SGD with rate K q + r, the rest follows r alone."""
    k, q, r, h, problems = 4, 0.05, 0.2, 1.0, 4000

    def loss_fn(params, model_state, noise, key):
        weights = params["shared"] + params["own"]
        return h / 2 * jnp.square(weights - noise).sum(), (model_state, {})

    method = lpw_jax.LatePhase(loss_fn, lpw_jax.copies("own"), optax.sgd(q), optax.sgd(r))

    @jax.jit
    def trained(state, key):
        def cycle(state, key):
            state, _ = method.step(state, jax.random.normal(key, (k, problems)))
            weights = state.shared["shared"][None] + state.members["own"]
            return state, (jnp.square(weights.mean(0)).mean(), weights.var(0).mean())

        return jax.lax.scan(cycle, state, jax.random.split(key, 100))[1]

    zeros = np.zeros(problems, np.float32)
    start = method.release(method.init({"shared": zeros, "own": zeros}), num_members=k)
    mean, apart = (found[50:].mean() for found in trained(start, jax.random.key(0)))
    both = k * q + r
    assert mean == pytest.approx(both * h / (2 - both * h) / k, rel=0.02)
    assert apart == pytest.approx((1 - 1 / k) * r * h / (2 - r * h), rel=0.02)


def test_the_figure_is_drawn(example, tmp_path):
    losses = {name: np.ones(300) for name in ("SGD", "SWA", "late-phase", "late-phase SWA")}
    file = tmp_path / "plot.svg"
    example.show.expected_losses(losses, example.closed_forms, example.MINIBATCHES, file)
    assert "<svg" in file.read_text()
