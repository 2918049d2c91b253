"""Training loops of the README and the pages, run as they stand there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from page_commands import PAGES, blocks


class Network(nn.Module):
    """With batch norm and dropout, which are in training mode when they can be."""

    @nn.compact
    def __call__(self, x):
        trains = self.is_mutable_collection("batch_stats")
        x = nn.BatchNorm(use_running_average=not trains, name="bn")(nn.Dense(8, name="body")(x))
        x = nn.Dropout(0.1, deterministic=not self.has_rng("dropout"))(nn.relu(x))
        return nn.Dense(3, name="head")(x)


@pytest.mark.slow
def test_the_loop_for_ones_own_network_ends_in_one_network():
    (block,) = [c for _, c in blocks(PAGES["README.md"]) if c.startswith("import jax")]
    model, rng = Network(), np.random.default_rng(0)
    variables = model.init(jax.random.key(0), jnp.zeros((2, 5)))

    def minibatches(num_members):
        for i in range(3):
            x = rng.standard_normal((num_members, 16, 5), dtype=np.float32)
            batch = {"x": x, "y": rng.integers(0, 3, (num_members, 16))}
            yield batch, jax.random.key(i)

    found = {
        "model": model,
        "params": variables["params"],
        "model_state": {"batch_stats": variables["batch_stats"]},
        "tied_batches": minibatches(1),
        "cycles": minibatches(10),
        "key": jax.random.key(1),
    }
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(block, found)
    assert found["metrics"]["loss"].shape == (10,)
    network = {"params": found["params"], **found["model_state"]}
    assert jax.tree.map(jnp.shape, network) == jax.tree.map(jnp.shape, dict(variables))
    assert jnp.isfinite(model.apply(network, jnp.ones((2, 5)))).all()


@pytest.mark.slow
def test_the_loop_for_fine_tuning_ends_in_a_network_of_the_form_that_was_given(
    tmp_path, monkeypatch
):
    class Pretrained(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + nn.MultiHeadDotProductAttention(2, name="attention")(x)
            return nn.Dense(3, name="head")(x.mean(1))

    def forward(params, model_state, x):
        return Pretrained().apply({"params": params}, x)

    def loss_fn(params, model_state, batch, key):
        logits = forward(params, model_state, batch["x"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return losses.mean(), (model_state, {})

    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 6, 8), dtype=np.float32)
    pretrained = Pretrained().init(jax.random.key(0), x[0])["params"]
    found = {
        "loss_fn": loss_fn,
        "forward": forward,
        "params": pretrained,
        "model_state": None,
        "key": jax.random.key(1),
        "cycles": [({"x": x, "y": rng.integers(0, 3, (5, 4))}, None)] * 3,
        "x": x[0],
    }
    train, paths, merge, save, views = [
        code for language, code in blocks(PAGES["docs/fine_tuning.md"]) if language == "python"
    ]
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):
        for code in (train, views, paths, merge, save):
            exec(code, found)
    same = jax.tree.map(lambda new, old: bool((new == old).all()), found["params"], pretrained)
    frozen = [name for name in ("key", "out") if all(jax.tree.leaves(same["attention"][name]))]
    assert frozen == ["key", "out"] and not same["attention"]["query"]["kernel"]
    assert not same["head"]["kernel"] and (tmp_path / "tuned.safetensors").exists()
    assert found["mean"].shape == (4, 3)
