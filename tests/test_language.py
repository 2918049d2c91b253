"""The network of bytes and its measures, against slow loops in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from lpw_jax import linen
from lpw_jax.evaluation.sample import sample
from lpw_jax.measures import metrics, text
from lpw_jax.method.kinds.rank_one import Factored
from lpw_jax.models.lstm import lstm, rows
from lpw_jax.models.recurrent import LSTM, Carried
from lpw_jax.tasks import language

UNITS, EMBEDDING, CONTEXT, LENGTH, BATCH = 5, 3, 4, 6, 3
NET = LSTM(256, UNITS, EMBEDDING, BATCH, CONTEXT, dtype=jnp.float64)


LIKE = jax.eval_shape(
    LSTM(256, UNITS, EMBEDDING, BATCH).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1), "f4")
)["params"]


def random_params():
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), LIKE)


def bytes_of(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape)


def by_hand(params, read, state=None):
    """Logits after each byte of one sequence, byte by byte, and the last state; None begins."""
    layer, head = params["lstm"], params["head"]
    h, c = np.zeros((2, UNITS)) if state is None else state
    logits = []
    for byte in read:
        z = layer["bias"] + h @ layer["recurrent"]["kernel"]
        if byte >= 0:
            z = z + layer["embedding"]["embedding"][byte] @ layer["inputs"]["kernel"]
        i, f, g, o = np.split(z, 4)
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits.append(h @ head["kernel"] + head["bias"])
    return np.array(logits), (h, c)


def test_bits_per_character_are_those_of_a_slow_network(float64):
    """Also where the text begins, and behind its end."""
    params = random_params()
    image, label = bytes_of(1, 2, CONTEXT + LENGTH), bytes_of(2, 2, LENGTH)
    image[0, : CONTEXT + 1] = -1  # the first sequence of a text
    label[1, 4:] = -1  # the last one
    logits = np.asarray(jit(NET.apply)({"params": params}, image))
    first, _ = by_hand(params, image[0, CONTEXT:])
    last, _ = by_hand(params, image[1])
    np.testing.assert_allclose(logits, [first, last[CONTEXT:]], rtol=1e-10, atol=1e-10)
    outputs = {
        "collapsed": logits,
        "members": np.stack([logits, logits + image[:, CONTEXT:, None]]),
    }
    outputs["members"][1, ..., 7] += 1.5
    found = jax.device_get(jit(language.predicted)(outputs, {"label": label}))
    np.testing.assert_array_equal(found["label"], [LENGTH, 4])
    views = text.views(found)
    chosen = label >= 0
    log_probs = [metrics.log_softmax(member[chosen]) for member in outputs["members"]]
    expected = {
        "collapsed": log_probs[0],
        "ensemble": np.logaddexp(*log_probs) - np.log(2),
        "members": log_probs,
    }
    for view in ("collapsed", "ensemble"):
        wanted = metrics.classification_metrics(expected[view], label[chosen])
        wanted["bpc"] = wanted["nll"] / np.log(2)
        del wanted["top5_accuracy"]
        assert views[view] == pytest.approx(wanted, abs=1e-9)
    assert views["members"][1]["nll"] == pytest.approx(
        metrics.classification_metrics(log_probs[1], label[chosen])["nll"]
    )


@jit
def trained(params, carried, chunk):
    variables = {"params": params, "batch_stats": {"carry": carried}}
    logits, changed = NET.apply(variables, chunk, train=True, mutable=["batch_stats"])
    return logits, changed["batch_stats"]["carry"]


def test_two_chunks_with_a_carried_state_are_one_pass_over_both(float64):
    params, chunks = random_params(), bytes_of(3, BATCH, 2 * LENGTH)
    chunks[:, 0] = [-1, 7, -1]  # where a text begins, what was carried is forgotten
    carried = Carried(*np.random.default_rng(4).standard_normal((2, BATCH, UNITS)))
    first, between = trained(params, carried, chunks[:, :LENGTH])
    second, after = trained(params, between, chunks[:, LENGTH:])
    logits = np.concatenate([first, second], axis=1)
    for i, chunk in enumerate(chunks):
        state = None if chunk[0] < 0 else (carried.hidden[i], carried.cell[i])
        expected, (hidden, cell) = by_hand(params, chunk, state)
        np.testing.assert_allclose(logits[i], expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(after.hidden[i], hidden, rtol=1e-10)
        np.testing.assert_allclose(after.cell[i], cell, rtol=1e-10)


def plain_lstm(inputs, start, weight, factors):
    """`lstm` of an effective weight, with JAX's own gradients."""
    if factors is not None:
        weight = weight * (factors[0][:, None] * factors[1][None])

    def step(state, x):
        i, f, g, o = jnp.split(x + state[0] @ weight, 4, axis=-1)
        cell = nn.sigmoid(f) * state[1] + nn.sigmoid(i) * jnp.tanh(g)
        hidden = nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    end, hidden = jax.lax.scan(step, start, inputs)
    return hidden, end


@pytest.mark.parametrize("with_factors", [False, True])
def test_written_gradients_and_factors_on_activations_are_those_of_the_effective_weight(
    with_factors, float64
):
    random = np.random.default_rng(5)
    draw = random.standard_normal
    start = draw((2, BATCH, UNITS))
    factors = (draw(UNITS), draw(4 * UNITS)) if with_factors else None
    args = draw((LENGTH, BATCH, 4 * UNITS)), tuple(start), draw((UNITS, 4 * UNITS)), factors
    weights = draw((LENGTH, BATCH, UNITS)), draw((2, BATCH, UNITS))

    def value(function):
        def of(args):
            hidden, end = function(*args)
            return (hidden * weights[0]).sum() + (jnp.stack(end) * weights[1]).sum()

        return jit(jax.value_and_grad(of))

    found = value(lambda *args: lstm(*args, jnp.float64))(args)
    expected = value(plain_lstm)(args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
                 found, expected)  # fmt: skip


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_rows_of_a_table_and_their_gradient(backend, float64, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    table, numbers = np.arange(8.0).reshape(4, 2), np.array([[3, -1, 3]])
    weights = np.arange(6.0).reshape(1, 3, 2)
    found, gradient = jit(jax.value_and_grad(lambda t: (rows(t, numbers) * weights).sum()))(table)
    assert found == (table[3] * (weights[0, 0] + weights[0, 2])).sum()
    expected = np.zeros((4, 2))
    expected[3] = weights[0, 0] + weights[0, 2]
    np.testing.assert_array_equal(gradient, expected)


def test_the_whole_network_takes_factors_on_activations(float64):
    params, image = random_params(), bytes_of(6, 2, CONTEXT + LENGTH)
    random = np.random.default_rng(7)
    factored, effective = (jax.tree.map(lambda x: x, params) for _ in range(2))
    for name in ("inputs", "recurrent"):
        weight = params["lstm"][name]["kernel"]
        leaf = Factored(weight, *(random.standard_normal(n) for n in weight.shape))
        factored["lstm"][name]["kernel"] = leaf
        effective["lstm"][name]["kernel"] = leaf.effective()
    apply = jit(lambda params: linen.apply(NET, {"params": params}, image))
    np.testing.assert_allclose(apply(factored), apply(effective), rtol=1e-9)


def test_a_sample_follows_the_predictions_and_the_seed():
    random = np.random.default_rng(8)
    params = jax.tree.map(lambda leaf: 0.01 * random.standard_normal(leaf.shape, np.float32), LIKE)
    params["head"]["bias"][:] = -100  # of which no other byte than two are drawn
    params["head"]["bias"][[65, 66]] = [0, np.log(3)]
    net = LSTM(256, UNITS, EMBEDDING, BATCH)
    written = sample(net, params, num_bytes=600)
    assert written == sample(net, params, num_bytes=600)
    assert set(written) == {65, 66} and 0.65 < written.count(b"B") / 600 < 0.85
    assert written != sample(net, params, num_bytes=600, seed=1)
